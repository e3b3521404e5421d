"""What one looks at when a CTC model translates poorly: lengths, repeated words, empty lines, infeasible targets."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from examples.ctc_nat_small_scale.grid import BASELINE
from examples.ctc_nat_small_scale.runs_read import BLEU, CHRF, Evaluation, Runs, TestText
from nat_plugin.figures.training_log import read_training_log
from nat_plugin.scoring import plain_scores
from plugin_common.errors import UserError

BUCKETS = ((1, 3), (4, 7), (8, 15), (16, None))
"""Words of the source, first and last; words are what spaces separate."""
SAMPLE_ROWS = (BASELINE, "random", "pmlm", "distill")
SAMPLES, SAMPLE_SEED, SAMPLE_WORDS = 8, 1, (5, 20)


@dataclass(frozen=True)
class Diagnosis:
    """Of a row in a direction, means over its seeds; ``row`` None: the references themselves.

    Attributes:
        length_ratio: tokens of the translations by those of the references.
        brevity_penalty: of BLEU, from 0 to 1.
        empty, repeated: shares (0 to 1) of translations that are empty, or hold a word twice running.
        infeasible: share (0 to 1) of the validation targets that CTC cannot emit; None where it was not logged.
        buckets: for each of ``BUCKETS`` ``{"sacreBLEU": ..., "chrF2": ...}``, None where no sentence is as long.
    """

    direction: str
    row: str | None
    seeds: list[int]
    length_ratio: float
    brevity_penalty: float
    empty: float
    repeated: float
    infeasible: float | None
    buckets: list[dict[str, float] | None]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def has_repetition(line: str) -> bool:
    """Whether a word follows itself immediately."""
    words = line.split()
    return any(first == second for first, second in pairwise(words))


def bucket_members(sources: Sequence[str]) -> list[list[int]]:
    """For each bucket the indices of its sentences; an empty source is in none."""
    lengths = [len(line.split()) for line in sources]
    return [
        [i for i, length in enumerate(lengths) if low <= length and (high is None or length <= high)]
        for low, high in BUCKETS
    ]


def bucket_name(bucket: tuple[int, int | None]) -> str:
    """Such as ``4–7`` or ``16+``."""
    low, high = bucket
    return f"{low}+" if high is None else f"{low}–{high}"


def diagnoses(runs: Runs, direction: str) -> list[Diagnosis]:
    """One for the references, then one for each row that has translations."""
    text = runs.texts.get(direction)
    if text is None:
        return []
    found = [_of_references(direction, text)]
    for row in runs.rows(direction):
        seeds = list(runs.seeds(direction, row).values())
        if seeds:
            found.append(_of_row(runs, direction, row, seeds, text))
    return found


def _of_references(direction: str, text: TestText) -> Diagnosis:
    empty, repeated = _share(text.reference, lambda line: not line.strip()), _share(text.reference, has_repetition)
    return Diagnosis(direction, None, [], 1.0, 1.0, empty, repeated, None, [None] * len(BUCKETS))


def _of_row(runs: Runs, direction: str, row: str, seeds: Sequence[Evaluation], text: TestText) -> Diagnosis:
    infeasible = [share for one in seeds if (share := infeasible_share(runs.work / one.log)) is not None]
    return Diagnosis(
        direction,
        row,
        [one.key.seed for one in seeds],
        fmean(one.length_ratio for one in seeds),
        fmean(one.brevity_penalty for one in seeds),
        fmean(one.empty / len(one.hypotheses) for one in seeds),
        fmean(_share(one.hypotheses, has_repetition) for one in seeds),
        fmean(infeasible) if infeasible else None,
        [_bucket_scores(seeds, text.reference, members) for members in bucket_members(text.source)],
    )


def _bucket_scores(
    seeds: Sequence[Evaluation], references: Sequence[str], members: Sequence[int]
) -> dict[str, float] | None:
    if not members:
        return None
    chosen = [references[i] for i in members]
    scores = [
        {score.name: score.value for score in plain_scores([one.hypotheses[i] for i in members], chosen)}
        for one in seeds
    ]
    return {name: fmean(score[name] for score in scores) for name in (BLEU, CHRF)}


def infeasible_share(log: Path) -> float | None:
    """Of the validation targets at the last validation; None where the log does not tell (or cannot be read)."""
    try:
        values = read_training_log(log).series("valid", "infeasible_pct").values
    except UserError:
        return None
    return values[-1] / 100 if values else None


def _share(lines: Sequence[str], holds: Any) -> float:
    return sum(map(holds, lines)) / len(lines)


def sample_lines(sources: Sequence[str], count: int = SAMPLES) -> list[int]:
    """Rising indices of sentences drawn with a fixed seed: of middling length first, others where these are too few."""
    fitting = [i for i, line in enumerate(sources) if SAMPLE_WORDS[0] <= len(line.split()) <= SAMPLE_WORDS[1]]
    others = [i for i in range(len(sources)) if i not in set(fitting)]
    draw = random.Random(SAMPLE_SEED)
    chosen = draw.sample(fitting, min(count, len(fitting)))
    chosen += draw.sample(others, min(count - len(chosen), len(others)))
    return sorted(chosen)


def samples(runs: Runs, direction: str) -> list[dict[str, Any]]:
    """Sentences with their translations by ``SAMPLE_ROWS`` (first seed each; None where there are none)."""
    text = runs.texts.get(direction)
    if text is None:
        return []
    systems = {row: next(iter(runs.seeds(direction, row).values()), None) for row in SAMPLE_ROWS}
    return [
        {
            "line": i + 1,
            "source": text.source[i],
            "reference": text.reference[i],
            "translations": {row: None if one is None else one.hypotheses[i] for row, one in systems.items()},
        }
        for i in sample_lines(text.source)
    ]
