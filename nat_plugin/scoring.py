"""Scores as the literature reports them for each benchmark, each with a signature that says how to get it again.

python -m nat_plugin.scoring --dataset wmt14 --target-lang de --hypotheses out.de --references raw/test.de
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from nat_plugin.data.literature_corpora import DATASETS
from nat_plugin.data.moses_text import (
    caseless_moses_tokens,
    close_up_punctuation,
    moses_tokens,
    normalise_punctuation,
    normalise_romanian,
    remove_romanian_diacritics,
    split_compounds,
    straighten_apostrophes,
)
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError, raise_all
from plugin_common.text_lines import read_lines


@dataclass(frozen=True)
class Score:
    """A score from 0 to 100 (higher is better), and all that is needed to get it again."""

    name: str
    value: float
    signature: str


@dataclass(frozen=True)
class Comparison:
    """A score of two systems on the same sentences.

    Attributes:
        name: of the score.
        baseline, system: the two values.
        p_value: probability, under the null hypothesis that the systems are equal, of a difference as large as this.
        signature: with number of samples and seed.
    """

    name: str
    baseline: float
    system: float
    p_value: float
    signature: str


@dataclass(frozen=True)
class _Preparation:
    """How lines are made ready for a tokenised BLEU, in words (for the signature) and steps."""

    name: str
    steps: tuple[str, ...]


def preparations(dataset: str, target_lang: str) -> list[_Preparation]:
    """The tokenised BLEUs that are usual for a benchmark.

    WMT14 splits compounds at hyphens, WMT16 normalises Romanian letters (once more without diacritics, as some report
    it), IWSLT14 is in lower case.
    """
    if dataset == "wmt14":
        return [_Preparation("BLEU tokenised", ("moses-punctuation", "moses-tokens", "compound-split"))]
    if dataset == "iwslt14":
        return [_Preparation("BLEU tokenised", ("straight-apostrophes", "closed-up", "caseless-moses-tokens"))]
    if target_lang == "ro":
        start = ("moses-punctuation", "romanian-comma-below")
        return [
            _Preparation("BLEU tokenised", (*start, "moses-tokens")),
            _Preparation("BLEU tokenised, no diacritics", (*start, "no-diacritics", "moses-tokens")),
        ]
    return [_Preparation("BLEU tokenised", ("moses-punctuation", "moses-tokens"))]


_STEPS: dict[str, Any] = {
    "moses-punctuation": normalise_punctuation,
    "moses-tokens": lambda text, language: " ".join(moses_tokens(text, language)),
    "compound-split": lambda text, language: split_compounds(text),
    "romanian-comma-below": lambda text, language: normalise_romanian(text),
    "no-diacritics": lambda text, language: remove_romanian_diacritics(text),
    "straight-apostrophes": lambda text, language: straighten_apostrophes(text),
    "closed-up": lambda text, language: close_up_punctuation(text),
    "caseless-moses-tokens": lambda text, language: " ".join(caseless_moses_tokens(text, language)),
}


def prepare(lines: Sequence[str], language: str, steps: Sequence[str]) -> list[str]:
    """The lines after the named steps, in order."""
    prepared = list(lines)
    for step in steps:
        prepared = [_STEPS[step](line, language) for line in prepared]
    return prepared


def score(dataset: str, target_lang: str, hypotheses: Sequence[str], references: Sequence[str]) -> list[Score]:
    """sacreBLEU, chrF2 and the benchmark's usual tokenised BLEU.

    Args:
        dataset: ``wmt14``, ``wmt16`` or ``iwslt14`` (whose scores ignore case, as its models write lower case).
        target_lang: the language translated into.
        hypotheses: translations, plain (not tokenised) text.
        references: as published (``nat download``'s ``test.LANG``), one for each hypothesis.

    Raises:
        UserError: unknown benchmark or language, different numbers of lines, no line.
    """
    from sacrebleu.metrics.bleu import BLEU

    _check(dataset, target_lang, hypotheses, references)
    scores = _scores(_plain_metrics(lower=dataset == "iwslt14"), hypotheses, references)
    for preparation in preparations(dataset, target_lang):
        metric = BLEU(tokenize="none", force=True)  # force: that the text is tokenised is meant
        prepared = [prepare(lines, target_lang, preparation.steps) for lines in (hypotheses, references)]
        value = metric.corpus_score(prepared[0], [prepared[1]]).score
        steps = "+".join(preparation.steps)
        signature = f"{metric.get_signature()}|lang:{target_lang}|prep:{steps}|sacremoses:{version('sacremoses')}"
        scores.append(Score(preparation.name, value, signature))
    return scores


def plain_scores(hypotheses: Sequence[str], references: Sequence[str]) -> list[Score]:
    """sacreBLEU and chrF2 of any text.

    Raises:
        UserError: different numbers of lines, no line.
    """
    raise_all(_line_problems(hypotheses, references))
    return _scores(_plain_metrics(), hypotheses, references)


def significance(
    dataset: str,
    target_lang: str,
    baseline: Sequence[str],
    system: Sequence[str],
    references: Sequence[str],
    *,
    samples: int = 1000,
) -> list[Comparison]:
    """Paired bootstrap resampling (Koehn, 2004) of sacreBLEU and chrF2; the seed is ``SACREBLEU_SEED`` (12345).

    Raises:
        UserError: as :func:`score`.
    """
    for lines in (baseline, system):
        _check(dataset, target_lang, lines, references)
    return _compared(_plain_metrics(lower=dataset == "iwslt14"), baseline, system, references, samples)


def plain_significance(
    baseline: Sequence[str], system: Sequence[str], references: Sequence[str], *, samples: int = 1000
) -> list[Comparison]:
    """As :func:`significance`, of any text.

    Raises:
        UserError: as :func:`plain_scores`.
    """
    for lines in (baseline, system):
        raise_all(_line_problems(lines, references))
    return _compared(_plain_metrics(), baseline, system, references, samples)


def _scores(metrics: dict[str, Any], hypotheses: Sequence[str], references: Sequence[str]) -> list[Score]:
    return [
        Score(name, metric.corpus_score(list(hypotheses), [list(references)]).score, str(metric.get_signature()))
        for name, metric in metrics.items()
    ]


def _compared(
    metrics: dict[str, Any], baseline: Sequence[str], system: Sequence[str], references: Sequence[str], samples: int
) -> list[Comparison]:
    from sacrebleu.significance import PairedTest, Result

    systems = [("baseline", list(baseline)), ("system", list(system))]
    test = PairedTest(systems, metrics, [list(references)], test_type="bs", n_samples=samples)
    signatures, results = test()
    compared = []
    for name, (key, signature) in zip(metrics, signatures.items(), strict=True):
        first, second = results[key]
        assert isinstance(first, Result) and isinstance(second, Result)
        assert second.p_value is not None
        # sacreBLEU counts the resampled differences above the observed one: for equal systems none is above zero.
        p_value = 1.0 if first.score == second.score else second.p_value
        compared.append(Comparison(name, first.score, second.score, p_value, str(signature)))
    return compared


def main(argv: Sequence[str] | None = None) -> int:
    """Score files: 0 on success, 1 on bad input, 2 for wrong use."""
    args = _parser().parse_args(argv)
    try:
        hypotheses, references = (list(read_lines(path, "space")) for path in (args.hypotheses, args.references))
        scores = score(args.dataset, args.target_lang, hypotheses, references)
        empty = sum(not line.strip() for line in hypotheses)
        result: dict[str, Any] = {"dataset": args.dataset, "target_lang": args.target_lang, "lines": len(references)}
        result |= {"empty_hypotheses": empty, "scores": [asdict(one) for one in scores]}
        if args.baseline:
            baseline = list(read_lines(args.baseline, "space"))
            compared = significance(args.dataset, args.target_lang, baseline, hypotheses, references)
            result["significance"] = [asdict(one) for one in compared]
        if args.json:
            with atomic_output(args.json) as stream:
                stream.write((json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    except UserError as error:
        print(f"nat_plugin.scoring: error: {error}", file=sys.stderr)
        return 1
    if args.json != "-":
        for one in scores:
            print(f"{one.name}\t{one.value:.2f}\t{one.signature}")
        for two in result.get("significance", []):
            print("{name}\t{baseline:.2f} -> {system:.2f}\tp = {p_value:.4f}\t{signature}".format(**two))
    if empty:
        print(f"{args.hypotheses}: {empty:,} of {len(hypotheses):,} lines are empty", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nat_plugin.scoring", description="Score translations as the literature does, with signatures."
    )
    parser.add_argument("--dataset", required=True, choices=list(DATASETS))
    parser.add_argument("--target-lang", required=True, metavar="LANG")
    parser.add_argument("--hypotheses", required=True, metavar="FILE", help="translations, plain text, one a line")
    parser.add_argument("--references", required=True, metavar="FILE", help="published references, plain text")
    parser.add_argument("--baseline", metavar="FILE", help="another system's translations to compare with")
    parser.add_argument("--json", metavar="FILE", help="write all figures here; - is standard output")
    return parser


def _plain_metrics(*, lower: bool = False) -> dict[str, Any]:
    """The metrics that take plain text and bring their own tokenisation."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"sacreBLEU": BLEU(lowercase=lower), "chrF2": CHRF(lowercase=lower)}


def _check(dataset: str, target_lang: str, hypotheses: Sequence[str], references: Sequence[str]) -> None:
    problems = []
    if dataset not in DATASETS:
        problems.append(f"{dataset}: no such data set; expected one of {', '.join(DATASETS)}")
    elif target_lang not in DATASETS[dataset].languages:
        problems.append(
            f"--target-lang {target_lang}: {dataset} has the languages {' and '.join(DATASETS[dataset].languages)}"
        )
    raise_all([*problems, *_line_problems(hypotheses, references)])


def _line_problems(hypotheses: Sequence[str], references: Sequence[str]) -> list[str]:
    problems = []
    if len(hypotheses) != len(references):
        problems.append(
            f"{len(hypotheses):,} hypotheses for {len(references):,} references; expected one for each line, in order"
        )
    if not references:
        problems.append("no reference at all; give files with one sentence a line")
    return problems


if __name__ == "__main__":
    sys.exit(main())
