"""The tables of a reproduction as Markdown. Takes what was read and found; computes nothing but means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from examples.ctc_nat_small_scale.claims import (
    DIFFERS,
    NOT_RUN,
    REFERENCE_ROWS,
    RULE,
    SIGNIFICANT,
    Finding,
    SpeedFinding,
    common_seeds,
    overall,
    spread,
)
from examples.ctc_nat_small_scale.diagnosis import BUCKETS, Diagnosis, bucket_name
from examples.ctc_nat_small_scale.grid import BASELINE, DECODINGS, ROWS
from examples.ctc_nat_small_scale.runs_read import BLEU, CHRF, Evaluation, Key, Runs, main_evaluation

MISSING = "missing"
_DECODING_TITLES = {
    "greedy": "one pass, best 5 averaged",
    "single": "one pass, best checkpoint alone",
    "last": "one pass, last checkpoint",
    "penalty": "one pass, the blank's score lowered by 1, best 5 averaged",
    "beam": "CTC beam search with n-gram LM, best 5 averaged",
    "beam5": "beam 5",
    "beam1": "beam 1",
}


@dataclass(frozen=True)
class RowSummary:
    """A row of the grid in a direction; ``bleu`` and ``chrf`` by seed, None where the evaluation is missing.

    ``delta``: mean points of BLEU ahead of ``reference`` over the seeds that both have; ``delta_at``: ahead of the
    baseline.
    """

    direction: str
    row: str
    evaluation: str
    bleu: dict[int, float | None]
    chrf: dict[int, float | None]
    reference: str | None
    delta: float | None
    delta_at: float | None
    updates: int | None
    minutes: float | None
    logs: list[str]


def summarise(runs: Runs, direction: str, row: str, evaluation: str | None = None) -> RowSummary:
    """One row (default: by its main evaluation), whether it was run or not."""
    name = evaluation or main_evaluation(row)
    found = runs.seeds(direction, row, name)
    seeds = runs.expected_seeds(direction, row, name)
    reference = REFERENCE_ROWS.get(row)
    return RowSummary(
        direction,
        row,
        name,
        {seed: found[seed].bleu if seed in found else None for seed in seeds},
        {seed: found[seed].chrf if seed in found else None for seed in seeds},
        reference,
        _delta(found, runs.seeds(direction, reference)) if reference else None,
        _delta(found, runs.seeds(direction, BASELINE)) if row != BASELINE else None,
        max((one.updates for one in found.values()), default=None),
        fmean(one.training_seconds for one in found.values()) / 60 if found else None,
        [one.log for one in found.values()],
    )


def _delta(system: dict[int, Evaluation], reference: dict[int, Evaluation]) -> float | None:
    seeds = common_seeds(system, reference)
    return fmean(system[seed].bleu - reference[seed].bleu for seed in seeds) if seeds else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first ``left`` columns are set left, the others right; cells are made safe."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    lines = [list(head), rule, *([cell_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell_text(text: str) -> str:
    """Text that stays in its cell and shows as it is written: no Markdown, no HTML, no line end."""
    plain = " ".join(text.split())
    return re.sub(r"([\\|*_`\[\]~])", r"\\\1", plain).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def score_table(summaries: Sequence[RowSummary]) -> str:
    """BLEU and chrF2 of a direction's rows."""
    head = ["row", "what it is", "log", "BLEU by seed", "mean", "spread", "Δ to", "Δ", "Δ to baseline", "chrF2",
            "updates", "minutes"]  # fmt: skip
    return table(head, [_score_row(one) for one in summaries], left=3)


def _score_row(one: RowSummary) -> list[str]:
    bleu, chrf = _present(one.bleu), _present(one.chrf)
    return [
        one.row,
        title(one.row, one.evaluation),
        merged_logs(one.logs) or "–",
        _by_seed(one.bleu),
        _mean(bleu),
        f"{spread(bleu):.2f}" if len(bleu) > 1 else "–",
        one.reference or "–",
        signed(one.delta),
        signed(one.delta_at),
        _mean(chrf),
        f"{one.updates:,}" if one.updates is not None else "–",
        f"{one.minutes:.1f}" if one.minutes is not None else "–",
    ]


def decoding_table(runs: Runs, direction: str) -> str:
    """The ways to decode one and the same trained models: those rows that have more than one."""
    rows = []
    for row in runs.rows(direction):
        names = ("beam5", "beam1") if row == BASELINE else DECODINGS
        known = [name for name in names if runs.expected_seeds(direction, row, name)]
        summaries = [summarise(runs, direction, row, name) for name in known]
        for one in summaries if len(known) > 1 else []:
            main = runs.seeds(direction, row)
            delta = None if one.evaluation == known[0] else _delta(runs.seeds(direction, row, one.evaluation), main)
            cells = [_by_seed(one.bleu), _mean(_present(one.bleu)), signed(delta), _mean(_present(one.chrf))]
            rows.append([row, _DECODING_TITLES[one.evaluation], *cells])
    return table(["row", "decoding", "BLEU by seed", "mean", "Δ to the first", "chrF2"], rows, left=2) if rows else ""


def claim_table(found: Sequence[Finding], directions: Sequence[str]) -> str:
    """A line for each claim: the verdict of each direction and of all."""
    rows = []
    for claim in dict.fromkeys(one.claim for one in found):
        by_direction = {one.direction: one for one in found if one.claim == claim}
        said = overall(one.verdict for one in by_direction.values())
        cells = [_short(by_direction[direction]) for direction in directions]
        agreeing = [one for one in by_direction.values() if one.verdict != NOT_RUN]
        count = f" (run in {len(agreeing)} of {len(directions)} directions)" if said not in (DIFFERS, NOT_RUN) else ""
        rows.append([claim.text, claim.origin, f"{side(claim.system)} > {side(claim.reference)}", said + count, *cells])
    return table(["claim", "who says so", "compared", "verdict", *directions], rows, left=4)


def _short(one: Finding) -> str:
    if one.delta is None:
        return one.verdict
    seeds = f"{len(one.pairs)} seed{'s' if len(one.pairs) > 1 else ''}"
    return f"{one.verdict} {signed(one.delta)}, {seeds}{' (!)' if one.cautions else ''}"


def evidence_table(found: Sequence[Finding]) -> str:
    """What each verdict rests on, seed by seed, and what counts against it; claims that were not run are left out."""
    rows = []
    for one in (one for one in found if one.pairs):
        cells = [
            ", ".join(str(pair.system.key.seed) for pair in one.pairs),
            ", ".join(signed(pair.delta) for pair in one.pairs),
            ", ".join(f"{pair.p_value:.3f}" for pair in one.pairs),
            *("–" if value is None else f"{value:.2f}" for value in one.spreads),
        ]
        compared = f"{side(one.claim.system)} > {side(one.claim.reference)}"
        rows.append([compared, one.direction, one.verdict, "; ".join(one.cautions) or "–", *cells])
    head = ["compared", "direction", "verdict", "counts against it", "seeds", "Δ BLEU", "p", "spread", "of the other"]
    return table(head, rows, left=4)


def claim_notes(found: Sequence[Finding]) -> str:
    """How the verdicts were reached, and how many would be wrong by chance."""
    tests = sum(len(one.pairs) for one in found)
    return (
        f"{RULE} Numbers beside a verdict are mean points of BLEU ahead (Δ). (!): something counts against it, see the "
        "next table. The bootstrap resamples test sentences and knows nothing of other training seeds: the spread "
        "(highest − lowest BLEU of a row's seeds) is for that, and where there is one seed only, how much another one "
        f"would change is not known. Were there no difference behind any of the {tests} comparisons, about "
        f"{tests * SIGNIFICANT:.0f} would show p < {SIGNIFICANT}. Minutes are those of the translation training; the "
        "masked LM's pretraining comes on top for the rows that start from it."
    )


def speed_table(found: Sequence[SpeedFinding]) -> str:
    """Our fastest system against each left-to-right one."""
    rows = [[one.peer, one.ours, one.verdict, f"{one.times:.2f}"] for one in found]
    return table(["left to right", "our fastest", "one pass is faster", "times as fast"], rows, left=3)


def diagnosis_table(found: Sequence[Diagnosis], members: Sequence[int]) -> str:
    """Lengths, repeats and empty lines, and BLEU / chrF2 by words of the source."""
    buckets = [f"{bucket_name(one)} words ({count:,})" for one, count in zip(BUCKETS, members, strict=True)]
    head = ["row", "length ratio", "brevity penalty", "empty %", "repeated word %", "infeasible %", *buckets]
    return table(head, [_diagnosis_row(one) for one in found])


def _diagnosis_row(one: Diagnosis) -> list[str]:
    shares = [one.empty, one.repeated, one.infeasible]
    return [
        one.row or "references",
        f"{one.length_ratio:.2f}",
        f"{one.brevity_penalty:.2f}",
        *("–" if share is None else f"{100 * share:.1f}" for share in shares),
        *("–" if scores is None else f"{scores[BLEU]:.1f} / {scores[CHRF]:.1f}" for scores in one.buckets),
    ]


def sample_table(sample: dict[str, object]) -> str:
    """A test sentence and what the systems make of it."""
    translations = sample["translations"]
    assert isinstance(translations, dict)
    rows = [["source", str(sample["source"])], ["reference", str(sample["reference"])]]
    rows += [[row, MISSING if text is None else str(text)] for row, text in translations.items()]
    return table([f"line {sample['line']}", "text"], rows, left=2)


def missing_list(keys: Sequence[Key]) -> str:
    """What was expected and is not there, a line a row and direction."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        grouped.setdefault((key.direction, key.row), []).append(f"seed {key.seed} {key.evaluation}")
    return "\n".join(f"- {direction} {row}: {', '.join(names)}" for (direction, row), names in grouped.items())


def title(row: str, evaluation: str) -> str:
    """What a row is."""
    if row == BASELINE:
        return f"autoregressive Transformer, {_DECODING_TITLES.get(evaluation, evaluation)}"
    return ROWS[row].title if row in ROWS else "not in the grid"


def side(system: tuple[str, str]) -> str:
    """A side of a comparison: the row, and how it is decoded where that is not its main way."""
    row, evaluation = system
    return row if evaluation == main_evaluation(row) else f"{row} {evaluation}"


def merged_logs(logs: Sequence[str]) -> str:
    """One path for logs that differ in the seed alone: ``a/seed{1,2}/train.log``."""
    seed = re.compile(r"(?<=/seed)\d+(?=/)")
    if len({seed.sub("", log) for log in logs}) != 1 or len(logs) == 1:
        return ", ".join(logs)
    seeds = [found[0] for log in logs if (found := seed.search(log))]
    return seed.sub("{" + ",".join(seeds) + "}", logs[0])


def signed(value: float | None) -> str:
    """With its sign, to two decimals."""
    return "–" if value is None else f"{value:+.2f}"


def _by_seed(values: dict[int, float | None]) -> str:
    return ", ".join(f"{seed}: {MISSING if value is None else f'{value:.2f}'}" for seed, value in values.items()) or "–"


def _present(values: dict[int, float | None]) -> list[float]:
    return [value for value in values.values() if value is not None]


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" if values else MISSING
