"""Where fairseq-generate's time goes: the model, this project's code around it, and fairseq's own.

The real command runs in this process, with stopwatches around its parts, on your data and checkpoint; loading is not
counted, the data is read in the same process, and what it prints is thrown away::

    python scripts/benchmarks/generate_overhead.py data-bin --path model.pt --pmlm pmlm --json overhead.json [--quick]

Variants: ``greedy`` with scores, ``no_scores``, and in bf16 ``no_scores_bf16``. Their rows are parts, in seconds of the
whole test set: ``model`` (the pass up to the vocabulary projection), ``labels`` (projection, argmax and scores),
``generator`` (the rest of ours on the way to hypotheses), ``detokenizer`` (ours: pieces to text), ``data`` (datasets
and batches: fairseq's, ours cuts long sources), ``strings`` (fairseq: ids to pieces, a sentence at a time), ``scorer``
(sacreBLEU), ``rest`` (fairseq: printing and its loop), ``all``. Ratios are shares of ``all``: ``outside`` is all but
model and labels, ``ours`` is generator and detokenizer.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any
from unittest.mock import patch

from scripts.benchmarks.measure import machine, row, run_in_turn, versions, write_report

PLUGIN = Path(__file__).resolve().parents[2] / "nat_plugin"
VARIANTS: dict[str, tuple[str, ...]] = {
    "greedy": (),
    "no_scores": ("--no-scores",),
    "no_scores_bf16": ("--no-scores", "--decode-precision", "bf16"),
}
PARTS = ("model", "labels", "generator", "detokenizer", "data", "strings", "scorer")
SHARES = {"outside": ("generator", "detokenizer", "data", "strings", "scorer", "rest"),
          "ours": ("generator", "detokenizer")}  # fmt: skip


class Stopwatches:
    """Seconds of each part, without those of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.started = self.ended = 0.0
        self._inner = [0.0]

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` that counts for ``part``."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took

        return timed

    def starting_after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` whose end is the beginning of what is measured."""

        @functools.wraps(function)
        def last_of_setting_up(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.seconds = dict.fromkeys(PARTS, 0.0)
            self.started = time.perf_counter()
            return result

        return last_of_setting_up

    def result(self) -> dict[str, float]:
        """Seconds of each part, of the ``rest`` and of ``all``."""
        whole = self.ended - self.started
        return {**self.seconds, "rest": whole - sum(self.seconds.values()), "all": whole}


@contextmanager
def measured(watches: Stopwatches) -> Iterator[None]:
    """Stopwatches around the functions of fairseq-generate, for as long as the block runs."""
    from fairseq.data import Dictionary
    from fairseq.scoring.bleu import SacrebleuScorer

    from nat_plugin.decoding import ctc_generator
    from nat_plugin.models.ctc_pmlm import CtcPmlmModel
    from nat_plugin.pmlm.fairseq_bpe import PmlmBpe
    from nat_plugin.tasks.ctc_nat import CtcNatTask
    from nat_plugin.tasks.translation_dataset import TranslationDataset

    places: list[tuple[Any, str, str]] = [
        (CtcPmlmModel, "forward", "model"),
        (ctc_generator, "best_labels", "labels"),
        (ctc_generator.CtcGenerator, "generate", "generator"),
        (PmlmBpe, "decode", "detokenizer"),
        (TranslationDataset, "__getitem__", "data"),
        (TranslationDataset, "collater", "data"),
        (Dictionary, "string", "strings"),
        (SacrebleuScorer, "add_string", "scorer"),
        (SacrebleuScorer, "result_string", "scorer"),
    ]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, watches.around(part, getattr(owner, name))))
        started = watches.starting_after(CtcNatTask.build_generator)
        stack.enter_context(patch.object(CtcNatTask, "build_generator", started))
        yield


def generate(words: Sequence[str]) -> dict[str, float]:
    """Run fairseq-generate once with this command line; seconds of each part."""
    from fairseq import options
    from fairseq_cli import generate as command

    args = options.parse_args_and_arch(options.get_generation_parser(), list(words))
    watches = Stopwatches()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), measured(watches):
        command.main(args)
        watches.ended = time.perf_counter()
    return watches.result()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data-bin folder of fairseq-preprocess")
    parser.add_argument("--path", required=True, help="checkpoint of ctc_nat")
    parser.add_argument("--pmlm", required=True, help="PMLM folder: its tokenizer makes plain text")
    parser.add_argument("--json", required=True, metavar="OUT", help="where to write the report")
    parser.add_argument("--subset", default="test", help="split to translate (default: test)")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences of a batch (default: 32)")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads (default: as torch chooses)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of the first two variants")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the shares, write the report."""
    args = parse(argv)
    import torch

    import nat_plugin

    nat_plugin.register()
    if args.threads:
        torch.set_num_threads(args.threads)
    words = [args.data, "--user-dir", str(PLUGIN), "--task", "ctc_nat", "--cpu", "--path", args.path, "--bpe", "pmlm",
             "--pmlm-tokenizer", args.pmlm, "--scoring", "sacrebleu", "--gen-subset", args.subset,
             "--batch-size", str(args.batch_size), "--num-workers", "0", "--data-buffer-size", "0"]  # fmt: skip
    names = list(VARIANTS)[: 2 if args.quick else None]
    described = machine()
    generate([*words, *VARIANTS[names[0]]])  # libraries are loaded in the first run, which does not count
    found = run_in_turn(
        {name: functools.partial(generate, [*words, *VARIANTS[name]]) for name in names},
        2 if args.quick else args.repeats,
    )
    report = summary(found)
    for name, runs in found.items():
        print(f"{name}: {statistics.median(run['all'] for run in runs):.2f} s")
        for part in (*PARTS, "rest"):
            share = statistics.median(run[part] / run["all"] for run in runs)
            print(f"  {part:12} {100 * share:5.1f} %  {statistics.median(run[part] for run in runs):8.3f} s")
    packages = versions("torch", "ve-fairseq", "transformers", "tokenizers", "sacrebleu")
    settings = {"batch_size": args.batch_size, "threads": torch.get_num_threads(), "subset": args.subset}
    write_report(args.json, {"machine": described, "versions": packages, "settings": settings, **report})
    return 0


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Rows (seconds) and ratios (shares) of the runs."""
    rows = {
        f"{name}/{part}": row([run[part] for run in runs])
        for name, runs in found.items()
        for part in (*PARTS, "rest", "all")
    }
    ratios = {
        f"{name}/{share}": statistics.median(sum(run[part] for part in parts) / run["all"] for run in runs)
        for name, runs in found.items()
        for share, parts in SHARES.items()
    }
    return {"rows": rows, "ratios": ratios}


if __name__ == "__main__":
    sys.exit(main())
