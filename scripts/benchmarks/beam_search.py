"""CTC prefix beam search over a large vocabulary: this project's against flashlight-text's, where that is installed.

Both get the same log-probabilities of the same sentences, the same n-gram language model (an ARPA file estimated from
artificial text) and the same number of candidates at each position; how often they agree is part of the report::

    python scripts/benchmarks/beam_search.py --json beam_search.json [--quick]

Times are milliseconds a sentence. ``ours/batch32`` searches 32 sentences at once, from their 20 best labels at each
position; ``…/with_topk`` adds finding those by ``torch.topk``, which flashlight-text does inside. It takes one
sentence at a time. One thread. Ratios are flashlight-text ÷ ours with top-k.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module, util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nat_plugin.decoding.arpa import write_arpa
from nat_plugin.decoding.beam_search import BeamOptions, ctc_beam_search
from nat_plugin.decoding.ngram_counts import count_ngrams
from nat_plugin.decoding.ngram_estimation import estimate
from nat_plugin.decoding.ngram_lm import NgramLm
from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS
from scripts.benchmarks.measure import machine, paired_ratio, row, run_in_turn, versions, write_report

BLANK, PAD = 0, 1
LM_WEIGHT = 0.3
FLASHLIGHT = "flashlight_text"

Floats = NDArray[np.float32]
Search = Callable[[], list[tuple[int, ...]]]


def emissions(sentences: int, positions: int, labels: int, seed: int = 0) -> Floats:
    """[sentences, positions, labels] natural-log probabilities: at each position one label or the blank stands out."""
    rng = np.random.default_rng(seed)
    scores = rng.gumbel(size=(sentences, positions, labels)).astype(np.float32)
    place = np.ix_(np.arange(sentences), np.arange(positions))
    weights = 1 / np.arange(1, labels - len(FAIRSEQ_SYMBOLS) + 1)
    spoken = rng.choice(len(weights), size=(sentences, positions), p=weights / weights.sum()) + len(FAIRSEQ_SYMBOLS)
    scores[(*place, spoken)] += np.log(labels) + rng.uniform(0, 5, size=(sentences, positions))
    scores[:, :, BLANK] += np.where(rng.random((sentences, positions)) < 0.5, np.log(labels) + 4, 0)
    return torch.from_numpy(scores).log_softmax(-1).numpy()


def language_model(folder: Path, labels: int, lines: int) -> tuple[Path, list[str]]:
    """``(ARPA file, symbols)`` of a 4-gram model over artificial text."""
    rng = np.random.default_rng(1)
    names = [f"w{i}" for i in range(labels - len(FAIRSEQ_SYMBOLS))]
    weights = 1 / np.arange(1, len(names) + 1)
    draws = rng.choice(len(names), size=(lines, 20), p=weights / weights.sum())
    (folder / "text").write_text("".join(" ".join(names[i] for i in line) + "\n" for line in draws))
    with (folder / "lm.arpa").open("wb") as stream:
        write_arpa(stream, estimate(count_ngrams([str(folder / "text")], 4)).model, compress=False)
    return folder / "lm.arpa", [*FAIRSEQ_SYMBOLS, *names]


def ours(log_probs: Floats, options: BeamOptions, batch: int, with_topk: bool) -> Search:
    """This project's search, ``batch`` sentences at a time."""
    dense = torch.from_numpy(log_probs)
    ready = dense.topk(options.candidates, dim=-1)

    def search() -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for i in range(0, len(dense), batch):
            part = slice(i, i + batch)
            values, labels = (
                dense[part].topk(options.candidates, dim=-1) if with_topk else (ready[0][part], ready[1][part])
            )
            lengths = np.full(len(values), dense.size(1))
            result = ctc_beam_search(
                values.numpy(),
                labels.numpy(),
                log_probs[part, :, BLANK],
                lengths,
                blank=BLANK,
                pad=PAD,
                options=options,
            )
            found += [tuple(r[:n].tolist()) for r, n in zip(result.tokens, result.lengths, strict=True)]
        return found

    return search


def flashlight(log_probs: Floats, options: BeamOptions, arpa: Path | None, symbols: list[str]) -> Search:
    """flashlight-text's search; its language model scores are base-10 logarithms, its scores natural ones."""
    # Imported by name: the package is no dependency of this project.
    decoder = import_module("flashlight.lib.text.decoder")
    KenLM = import_module("flashlight.lib.text.decoder.kenlm").KenLM
    Dictionary = import_module("flashlight.lib.text.dictionary").Dictionary

    names = Dictionary()
    for symbol in symbols:
        names.add_entry(symbol)
    lm = decoder.ZeroLM() if arpa is None else KenLM(str(arpa), names)
    settings = decoder.LexiconFreeDecoderOptions(
        options.beam, options.candidates, 1e9, options.lm_weight * np.log(10) if arpa else 0.0, 0.0, True,
        decoder.CriterionType.CTC,
    )  # fmt: skip
    search_one = decoder.LexiconFreeDecoder(settings, lm, -1, BLANK, [])

    def search() -> list[tuple[int, ...]]:
        found = []
        for sentence in log_probs:
            labels = search_one.decode(sentence.ctypes.data, *sentence.shape)[0].tokens
            pairs = zip([-1, *labels], labels, strict=False)
            found.append(tuple(label for before, label in pairs if label not in (before, BLANK) and label >= 0))
        return found

    return search


def searches(args: argparse.Namespace, folder: Path) -> dict[str, Search]:
    """All variants by name."""
    log_probs = emissions(args.sentences, args.positions, args.labels)
    arpa, symbols = language_model(folder, args.labels, args.lm_lines)
    lm = NgramLm.from_file(arpa, symbols)
    found: dict[str, Search] = {}
    for beam in args.beams:
        for name, weight in (("no_lm", 0.0), ("lm", LM_WEIGHT)):
            options = BeamOptions(beam, lm=lm, lm_weight=weight)
            for batch in (1, args.sentences):
                prefix = f"beam{beam}/{name}/ours/batch{batch}"
                found[prefix] = ours(log_probs, options, batch, False)
                found[f"{prefix}/with_topk"] = ours(log_probs, options, batch, True)
            if util.find_spec("flashlight"):
                found[f"beam{beam}/{name}/{FLASHLIGHT}"] = flashlight(
                    log_probs, options, arpa if weight else None, symbols
                )
    return found


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Run all variants in turn."""
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        variants = searches(args, Path(folder))
        outputs: dict[str, list[tuple[int, ...]]] = {}

        def timed(name: str) -> float:
            started = time.perf_counter()
            outputs[name] = variants[name]()
            return 1e3 * (time.perf_counter() - started) / args.sentences

        times = run_in_turn({name: partial(timed, name) for name in variants}, args.repeats)
    ratios, agreement = {}, {}
    for name in [name for name in variants if name.endswith(FLASHLIGHT)]:
        for batch in (1, args.sentences):
            own = name.replace(FLASHLIGHT, f"ours/batch{batch}")
            ratios[f"{own}/time"] = paired_ratio(times[name], times[f"{own}/with_topk"])
        pairs = list(zip(outputs[name], outputs[own], strict=True))
        agreement[name] = sum(a == b for a, b in pairs) / len(pairs)
    return {
        "machine": before,
        "versions": versions("numpy", "torch", "flashlight-text"),
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        "rows": {f"{name}/ms": row(values) for name, values in times.items()},
        "ratios": ratios,
        "same_translation": agreement,
    }


def main() -> None:
    """Parse the options, run, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="report to write")
    parser.add_argument("--quick", action="store_true", help="2 rounds")
    parser.add_argument("--repeats", type=int, help="rounds (default: 5)")
    parser.add_argument("--labels", type=int, default=32_000, help="size of the vocabulary (default: 32000)")
    parser.add_argument("--positions", type=int, default=52, help="of each sentence (default: 52)")
    parser.add_argument("--sentences", type=int, default=32, help="default: 32")
    parser.add_argument("--beams", type=int, nargs="+", default=[5, 20], help="default: 5 20")
    parser.add_argument("--lm-lines", type=int, default=20_000, help="lines of the language model's text")
    args = parser.parse_args()
    args.repeats = args.repeats or (2 if args.quick else 5)
    torch.set_num_threads(1)
    found = report(args)
    write_report(args.json, found)
    for name, figures in found["rows"].items():
        print(f"{name:45} {figures['median']:8.2f}  ({figures['min']:.2f} to {figures['max']:.2f})")
    print("ratios", found["ratios"], "same translation", found["same_translation"], sep="\n")


if __name__ == "__main__":
    main()
