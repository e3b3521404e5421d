"""Peak memory of a process when 1, 2 or 4 fine-tune a causal LM: each with a whole one (DDP), or split (--shard-model).

Both are ``fairseq-train`` under torchrun on CPUs, a few updates each. The figure is the peak resident size of the
largest process, as Linux keeps it; ``program`` is the same command on a model of next to no weights. Both sides give
freed memory back to the system at once (``MALLOC_MMAP_THRESHOLD_``). The processes share the machine's cores, so that
nothing is said of speed.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.benchmarks.measure import machine, paired_ratio, row, run_command, run_in_turn, versions, write_report

PLUGIN = Path(__file__).resolve().parents[2] / "nid_plugin"
WORDS = ("a", "river", "runs", "through", "our", "old", "town", "and", "its", "people", "walk", "along", "slowly")


@dataclass(frozen=True)
class Variant:
    """A training: ``ddp`` gives every process the whole model, ``split`` a part."""

    tuning: str
    kind: str
    processes: int

    @property
    def name(self) -> str:
        """As in the report."""
        return f"{self.tuning}_{self.kind}_{self.processes}"


def variants(tunings: Sequence[str], processes: Sequence[int]) -> list[Variant]:
    """All that are measured; a single process has nobody to share with."""
    several = [count for count in processes if count > 1]
    return [
        Variant(tuning, kind, count)
        for tuning in tunings
        for kind, counts in (("ddp", processes), ("split", several))
        for count in counts
    ]


def command(variant: Variant, model: Path, data: Path, *, precision: Sequence[str], updates: int) -> list[str]:
    """The whole command line."""
    several = variant.processes > 1
    launcher = (
        ["torchrun", "--standalone", "--nproc-per-node", str(variant.processes), "--no-python"] if several else []
    )
    words = [
        *launcher, "fairseq-train", data, "--user-dir", PLUGIN, "--task", "completion_sft", "--cpu",
        "--arch", "hf_causal_lm", "--model", model, "--tuning", variant.tuning, "--gradient-checkpointing",
        *(["--shard-model"] if variant.kind == "split" else []), *precision,
        "--criterion", "completion_cross_entropy", "--optimizer", "fused_adamw", "--lr", "1e-5",
        "--lr-scheduler", "fixed", "--max-tokens", 128, "--num-workers", 0, "--max-update", updates,
        "--no-save", "--disable-validation", "--no-progress-bar",
    ]  # fmt: skip
    return [str(word) for word in words]


def make_pairs(folder: Path, count: int = 64) -> None:
    """``train.jsonl`` of made-up pairs."""
    lines = []
    for number in range(count):
        turned = WORDS[number % len(WORDS) :] + WORDS[: number % len(WORDS)]
        pair = {"id": f"{number:032x}", "prompt": " ".join(turned), "completion": " ".join(turned[::-1])}
        lines.append(json.dumps({**pair, "source": str(number), "teacher": "none", "finish_reason": "stop"}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_models(folder: Path, model: Path, dtype: str) -> tuple[Path, Path]:
    """The model saved in the precision of the training, and one of a single narrow layer with its tokenizer."""
    from plugin_common.compat import hide_broken_torchaudio

    hide_broken_torchaudio()
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=8, **shape)
    tiny, saved = folder / "tiny", folder / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(tiny)
    kind = "bfloat16" if dtype == "bf16" else "float32"
    AutoModelForCausalLM.from_pretrained(model, dtype=kind, local_files_only=True).save_pretrained(saved)
    for made in (tiny, saved):
        tokenizer.save_pretrained(made)
    return saved, tiny


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Peak MiB by variant, in the order of the rounds."""
    environment = {
        "PYTHONPATH": str(PLUGIN.parent),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # By default glibc keeps freed blocks of up to 32 MiB, among them a layer's weights that were gathered.
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
    }
    precision = ["--memory-efficient-bf16"] if args.dtype == "bf16" else []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        make_pairs(data)
        saved, tiny = make_models(data, args.model, args.dtype)

        def runner(variant: Variant, model: Path) -> Callable[[], float]:
            words = command(variant, model, data, precision=precision, updates=args.updates)
            return lambda: run_command(words, environment).peak_mib

        runners = {"program": runner(Variant("lora", "ddp", 1), tiny)}
        for variant in variants(args.tunings, args.processes):
            runners[variant.name] = runner(variant, saved)
        return run_in_turn(runners, args.repeats)


def ratios(peaks: dict[str, list[float]], tunings: Sequence[str], processes: Sequence[int]) -> dict[str, float]:
    """Split ÷ DDP: the whole process, and ``model``: what it holds beyond the program."""
    found = {}
    program = peaks["program"]
    for variant in variants(tunings, processes):
        if variant.kind == "split":
            name = f"{variant.tuning}_{variant.processes}"
            split, ddp = peaks[variant.name], peaks[Variant(variant.tuning, "ddp", variant.processes).name]
            found[f"{name}/peak"] = paired_ratio(split, ddp)
            beyond = [[peak - base for peak, base in zip(side, program, strict=True)] for side in (split, ddp)]
            found[f"{name}/model"] = paired_ratio(*beyond)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="a causal LM")
    parser.add_argument("--json", required=True, metavar="OUT")
    parser.add_argument("--tunings", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="LoRA by 2 processes alone")
    args = parser.parse_args(argv)
    if args.quick:
        args.tunings, args.processes, args.updates = ["lora"], [2], 1
    about = machine()
    peaks = measure(args)
    report = {
        "machine": about,
        "versions": versions("torch", "transformers", "peft", "ve-fairseq"),
        "settings": {
            "model": args.model.name, "dtype": args.dtype, "updates": args.updates, "max_tokens": 128,
            "malloc_mmap_threshold": 2**20,
            "unit": "MiB, peak resident size of the largest process",
        },
        "rows": {name: row(values) for name, values in peaks.items()},
        "ratios": ratios(peaks, args.tunings, args.processes),
    }  # fmt: skip
    write_report(args.json, report)
    print(json.dumps({"rows": report["rows"], "ratios": report["ratios"]}, indent=1))


if __name__ == "__main__":
    main()
