"""Decoding: the one-pass translator against left-to-right ones, on the same sentences with the same threads.

Ours through fairseq's generator (float32, bfloat16, compiled) and as ONNX (float32, int8); fairseq's Transformer as
fairseq-generate runs it; CTranslate2 converted from the very same fairseq checkpoint; Hugging Face's ``generate`` with
a Marian model of the same shape. Each runs in a process of its own, one at a time, in turn::

    python scripts/benchmarks/decoding.py --json decoding.json [--plot decoding.png] [--quick] [--device cuda]

Token ids go in and token ids (CTranslate2: pieces) come out on the host; nothing is tokenised within the time. Weights
are random, so that the length of the left-to-right translations is forced: as many decoder steps as the source has
tokens. Ratios are theirs ÷ our best by time a sentence: above 1 we are faster.
"""

import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import tempfile
from typing import Any

from plugin_common.errors import UserError
from scripts.benchmarks.decoding_models import SETS, SIZES
from scripts.benchmarks.decoding_report import best_of_ours, named_ratios, ratios_of, rows_of, table, verdict
from scripts.benchmarks.decoding_run import agreement, described, measure, random_models, started, workloads
from scripts.benchmarks.decoding_systems import OURS_ONNX, QUICK, SYSTEMS
from scripts.benchmarks.decoding_trained import measure_trained, read_spec
from scripts.benchmarks.decoding_translator import measure_translator
from scripts.benchmarks.measure import machine, versions, write_report
from scripts.benchmarks.steps import Step, all_cores

PACKAGES = ("torch", "ve-fairseq", "transformers", "onnx", "onnxscript", "onnxruntime", "ctranslate2")
BATCHES = {"full": [1, 8, 32, 128], "quick": [1, 32]}
REPEATS = {"full": 5, "quick": 2}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, with what ``--quick`` and the device make of the defaults."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="example: python scripts/benchmarks/decoding.py --json decoding.json --plot decoding.png --sizes base",
    )
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--plot", metavar="PNG", help="figure to write: speed against batch size (and against BLEU)")
    parser.add_argument(
        "--quick", action="store_true", help="the systems and batches of the main ratios, fewer repeats"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--sizes",
        nargs="+",
        choices=list(SIZES),
        help="base: XLM-R base against Transformer base; small: both six layers of 512; try: seconds (default: base "
        "small; quick base)",
    )
    parser.add_argument(
        "--systems", nargs="+", choices=list(SYSTEMS), metavar="NAME", help="default: all, see the guide"
    )
    parser.add_argument("--batches", nargs="+", type=int, metavar="N", help="default: 1 8 32 128; quick 1 32")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="sentences: default both; quick even")
    parser.add_argument("--repeats", type=int, help="turns of each system (default: 5; quick 2)")
    parser.add_argument("--threads", type=int, default=all_cores(), help="on the CPU (default: all cores, %(default)s)")
    parser.add_argument(
        "--trained", metavar="SPEC", help="JSON that names trained models: speed against BLEU, see the guide"
    )
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "full"
    args.sizes = args.sizes or (["base"] if args.quick else ["base", "small"])
    args.systems = args.systems or (QUICK[args.device] if args.quick else list(SYSTEMS))
    args.batches = sorted(set(args.batches or BATCHES[mode]))
    args.sets = args.sets or (["even"] if args.quick else list(SETS))
    args.repeats = args.repeats or REPEATS[mode]
    if args.batches[0] < 1 or args.repeats < 1 or args.threads < 1:
        parser.error("--batches, --repeats and --threads are numbers of at least 1")
    return args


def names_for(args: argparse.Namespace, batch: int) -> list[str]:
    """The systems that are measured at a batch size: quick leaves beam 5 to batch 1, where its ratio is."""
    return [name for name in args.systems if not (args.quick and batch > 1 and SYSTEMS[name].beam == 5)]


def measure_size(
    args: argparse.Namespace, size: str, report: dict[str, Any]
) -> tuple[dict[str, dict[str, list[Step]]], dict[str, Any]]:
    """``(workload → system → steps, what the report says of the size)``; the translator's figures go into it."""
    results = {}
    with tempfile.TemporaryDirectory(prefix="decoding-") as folder:
        with started(random_models(size, Path(folder)), args.systems, threads=args.threads, device=args.device) as run:
            for workload in workloads(args.sets, args.batches, quick=args.quick):
                results[described(workload)] = measure(run, workload, names_for(args, workload.batch), args.repeats)
            exported = [SYSTEMS[name].precision for name in run.processes if SYSTEMS[name].family == OURS_ONNX]
        if args.device == "cpu":
            found = measure_translator(size, Path(folder), exported, threads=args.threads, repeats=args.repeats)
            report["rows"] |= found[0]
            report["ratios"] |= found[1]
    about = {
        "shape": {"ours": vars(SIZES[size].ours), "theirs": vars(SIZES[size].theirs)},
        "labels": SIZES[size].labels,
        "tokens": SIZES[size].tokens,
        "ratio": SIZES[size].ratio,
        "parameters": run.parameters,
        "left_out": run.left_out,
        "our_best": {name: best_of_ours(systems) for name, systems in results.items()},
        "tokens_as_fairseq_fp32": {name: agreement(systems) for name, systems in results.items()},
        "output_tokens": {name: lengths(systems) for name, systems in results.items()},
        "threads_chosen": {name: threads_chosen(systems) for name, systems in results.items()},
    }
    return results, about


def threads_chosen(systems: dict[str, list[Step]]) -> dict[str, int]:
    """Of the systems that chose."""
    return {name: steps[0].value.threads for name, steps in systems.items() if steps[0].value.threads is not None}


def lengths(systems: dict[str, list[Step]]) -> dict[str, list[int]]:
    """Fewest and most tokens of each system's translations, ``</s>`` counted where it was made."""
    counted = {name: [len(row) for row in steps[0].value.tokens] for name, steps in systems.items()}
    return {name: [min(values), max(values)] for name, values in counted.items()}


def main() -> None:
    """Measure, show, write and draw."""
    args = parse_args()
    try:
        spec = read_spec(args.trained) if args.trained else None
    except UserError as error:
        sys.exit(f"error: {error}")
    report: dict[str, Any] = {"machine": machine(), "versions": versions(*PACKAGES), "rows": {}, "ratios": {}}
    report["settings"] = vars(args) | {"sizes_measured": {}}
    said: list[str] = []
    for number, size in enumerate(args.sizes):
        results, about = measure_size(args, size, report)
        report["settings"]["sizes_measured"][size] = about
        report["rows"] |= rows_of(size, results)
        ratios = ratios_of(size, results)
        report["ratios"] |= (named_ratios(size, ratios) if number == 0 else {}) | ratios
        print("\n".join(table(size, results)))
        said += verdict(size, results, device=args.device)
        write_report(args.json, report)  # so that it is there should a later size fail
    if spec is not None:
        report["trained"] = measure_trained(spec, args)
    report["verdict"] = said
    report["machine"] |= gpu(args.device)
    write_report(args.json, report)
    if args.plot:
        from scripts.benchmarks.decoding_plot import draw

        draw(report, args.plot)
    print("\n" + "\n".join(f"{name:44} {ratio:.3f}" for name, ratio in report["ratios"].items() if name.count("/") < 3))
    print("\n" + "\n".join(said))


def gpu(device: str) -> dict[str, str]:
    """The GPU's name, if that is where it ran."""
    if device == "cpu":
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name()}


if __name__ == "__main__":
    main()
