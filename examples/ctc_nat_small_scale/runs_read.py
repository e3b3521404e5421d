"""What the trainings of a reproduction left on disk: scores, translations, costs, and the text that they translate."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from examples.ctc_nat_small_scale.commands import PAIRS
from examples.ctc_nat_small_scale.grid import BASELINE, ROWS, Expected
from examples.ctc_nat_small_scale.sizes import DIRECTIONS
from plugin_common.errors import UserError, raise_all
from plugin_common.text_lines import read_lines

BLEU, CHRF = "sacreBLEU", "chrF2"
_ROUNDING = 0.005
"""Points of BLEU by which a written score may differ from that of the translations beside it."""


class Key(NamedTuple):
    """Which evaluation of which training; ``row`` is ``BASELINE`` or a row of the grid."""

    direction: str
    row: str
    seed: int
    evaluation: str


@dataclass(frozen=True)
class Evaluation:
    """A trained model's translations of the test text.

    Attributes:
        key: which one.
        bleu, chrf: scores from 0 to 100.
        signatures: score → sacreBLEU's signature.
        brevity_penalty: BLEU's, from 0 to 1. length_ratio: tokens of the translations by those of the references.
        recomputed: the BLEU was computed again from the translations and is the same.
        hypotheses: translations, in the order of the test text.
        training_seconds, updates: what the training took.
        log: the training's log, relative to the working folder.
    """

    key: Key
    bleu: float
    chrf: float
    signatures: dict[str, str]
    brevity_penalty: float
    length_ratio: float
    recomputed: bool
    hypotheses: list[str]
    training_seconds: float
    updates: int
    log: str

    @property
    def empty(self) -> int:
        """How many translations hold nothing but spaces."""
        return sum(not line.strip() for line in self.hypotheses)


@dataclass(frozen=True)
class TestText:
    """The test text of a direction, a sentence a line."""

    source: list[str]
    reference: list[str]


@dataclass(frozen=True)
class Runs:
    """All evaluations that there are, the texts of their directions, and what the grid asks for."""

    work: Path
    evaluations: dict[Key, Evaluation]
    texts: dict[str, TestText]
    expected: list[Expected] = field(default_factory=list)

    def seeds(self, direction: str, row: str, evaluation: str | None = None) -> dict[int, Evaluation]:
        """Seed → evaluation (default: the row's main one), by rising seed."""
        name = evaluation or main_evaluation(row)
        found = {key.seed: one for key, one in self.evaluations.items() if key[:2] + key[3:] == (direction, row, name)}
        return dict(sorted(found.items()))

    def expected_keys(self) -> list[Key]:
        """What the grid asks for, one entry an evaluation."""
        return [
            Key(one.direction, one.row, one.seed, evaluation) for one in self.expected for evaluation in one.evaluations
        ]

    def missing(self) -> list[Key]:
        """What the grid asks for and is not there."""
        return [key for key in self.expected_keys() if key not in self.evaluations]

    def directions(self) -> list[str]:
        """Found or expected ones, in the grid's order."""
        return _in_order((key.direction for key in self._all_keys()), DIRECTIONS)

    def rows(self, direction: str) -> list[str]:
        """Found or expected in a direction: the baseline, then the grid's order, then rows that it does not know."""
        return _in_order((key.row for key in self._all_keys() if key.direction == direction), [BASELINE, *ROWS])

    def expected_seeds(self, direction: str, row: str, evaluation: str) -> list[int]:
        """Found or expected seeds of an evaluation, rising."""
        return sorted({key.seed for key in self._all_keys() if key[:2] + key[3:] == (direction, row, evaluation)})

    def _all_keys(self) -> list[Key]:
        return [*self.expected_keys(), *self.evaluations]


def main_evaluation(row: str) -> str:
    """The one that stands for a row: beam 5 of the baseline, one pass of the averaged model."""
    return "beam5" if row == BASELINE else "greedy"


def read_runs(work: Path, expected: Sequence[Expected]) -> Runs:
    """Read every evaluation that has a ``scores.json``; one without counts as missing.

    Raises:
        UserError: no working folder; files that are broken or do not belong together (all of them at once).
    """
    if not work.is_dir():
        raise UserError(f"--work {work}: no such folder; give the folder that run.py works in")
    files = sorted([*work.glob("at/*/seed*/*/scores.json"), *work.glob("rows/*/*/seed*/*/scores.json")])
    problems: list[str] = []
    texts: dict[str, TestText] = {}
    for direction in sorted({_direction(file.relative_to(work)) for file in files}):
        try:
            texts[direction] = read_test(work, direction)
        except UserError as error:
            problems.append(str(error))
    evaluations = {}
    for file in files:
        try:
            if text := texts.get(_direction(file.relative_to(work))):
                one = read_evaluation(work, file, text.reference)
                evaluations[one.key] = one
        except UserError as error:
            problems.append(str(error))
    raise_all([*problems, *different_signatures(evaluations.values())])
    return Runs(work, evaluations, texts, list(expected))


def read_test(work: Path, direction: str) -> TestText:
    """The test text of a direction such as ``de-en``.

    Raises:
        UserError: no such direction, a file that cannot be read, or sides of different length.
    """
    if direction not in PAIRS:
        raise UserError(f"{direction}: no direction; expected one of {', '.join(PAIRS)}; rename or remove the folder")
    source, _, target = direction.partition("-")
    folder = work / "data" / "corpora" / PAIRS[direction]
    lines = [list(read_lines(str(folder / f"test.{language}"), "space")) for language in (source, target)]
    if len(lines[0]) != len(lines[1]) or not lines[0]:
        raise UserError(
            f"{folder}: test.{source} has {len(lines[0]):,} lines and test.{target} {len(lines[1]):,}; expected the "
            "same number, at least one; make the corpus again"
        )
    return TestText(*lines)


def read_evaluation(work: Path, file: Path, references: Sequence[str]) -> Evaluation:
    """Read a ``scores.json`` and the translations beside it, and compute its BLEU again.

    Raises:
        UserError: what is wrong with them.
    """
    key = _key(file.relative_to(work))
    content = _object(file)
    scores = _scores(content)
    again = "score it again (score.py)"
    problems = [f"no number for {name} in scores" for name in (BLEU, CHRF) if name not in scores]
    problems += [f"no number for {name}" for name in ("training_seconds", "updates") if not _is_number(content, name)]
    told = Key(*(content.get(name) for name in Key._fields))  # type: ignore[arg-type]
    if told != key:
        problems.append(f"it is of {told}, its place is that of {key}")
    if not isinstance(content.get("log"), str):
        problems.append("names no log")
    raise_all(f"{file}: {problem}; {again}" for problem in problems)
    hypotheses = list(read_lines(str(file.with_name(f"hypotheses.{key.direction.partition('-')[2]}")), "space"))
    if len(hypotheses) != len(references):
        raise UserError(f"{file.parent}: {len(hypotheses):,} translations of {len(references):,} test lines; {again}")
    bleu, signature = bleu_of(hypotheses, references)
    same_way = scores[BLEU][1] == signature
    if same_way and abs(bleu.score - scores[BLEU][0]) > _ROUNDING:
        raise UserError(
            f"{file}: says BLEU {scores[BLEU][0]:.2f}, the translations beside it have {bleu.score:.2f}; {again}"
        )
    return Evaluation(
        key,
        scores[BLEU][0],
        scores[CHRF][0],
        {name: scores[name][1] for name in (BLEU, CHRF)},
        bleu.bp,
        bleu.sys_len / max(bleu.ref_len, 1),
        same_way,
        hypotheses,
        float(content["training_seconds"]),
        int(content["updates"]),
        content["log"],
    )


def bleu_of(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[Any, str]:
    """sacreBLEU's score object, and its signature."""
    from sacrebleu.metrics.bleu import BLEU as Bleu

    metric = Bleu()
    return metric.corpus_score(list(hypotheses), [list(references)]), str(metric.get_signature())


def different_signatures(evaluations: Iterable[Evaluation]) -> list[str]:
    """A problem for each score that was not computed in the same way everywhere."""
    problems = []
    for name in (BLEU, CHRF):
        first: dict[str, Key] = {}
        for one in evaluations:
            first.setdefault(one.signatures[name], one.key)
        if len(first) > 1:
            listed = "; ".join(f"{signature} ({'/'.join(map(str, key))})" for signature, key in first.items())
            problems.append(f"{name} was computed in {len(first)} ways: {listed}; score all evaluations again alike")
    return problems


def _key(path: Path) -> Key:
    """From a path relative to the working folder."""
    top, *rest = path.parts[:-1]
    direction, row, seed, evaluation = rest if top == "rows" else (rest[0], BASELINE, *rest[1:])
    number = seed.removeprefix("seed")
    if not number.isdecimal():
        raise UserError(f"{path}: {seed} is no folder of a seed; expected seedN, rename or remove it")
    return Key(direction, row, int(number), evaluation)


def _direction(path: Path) -> str:
    return path.parts[1]


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a JSON file that can be read ({error}); score it again (score.py)") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected a JSON object; score it again (score.py)")
    return content


def _scores(content: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Score → value and signature, of those that are whole."""
    listed = content.get("scores")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {
        str(entry.get("name")): (float(entry["value"]), str(entry["signature"]))
        for entry in entries
        if _is_number(entry, "value") and isinstance(entry.get("signature"), str)
    }


def _is_number(content: dict[str, Any], name: str) -> bool:
    value = content.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_order(found: Iterable[str], order: Sequence[str]) -> list[str]:
    names = set(found)
    return [name for name in order if name in names] + sorted(names - set(order))
