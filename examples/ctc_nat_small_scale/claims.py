"""What the paper claims and this example asks, each with the rows that carry it, and how the verdicts are reached.

A claim says that one system translates better than another, its reference. Rule, for each direction: both systems'
translations of the test text are compared by paired bootstrap resampling of BLEU (sacreBLEU, 1,000 samples, fixed
seed), training seed by training seed. The claim *holds* if p < 0.05 and the system is ahead for every seed, *does not
hold* if p < 0.05 and the reference is ahead for every seed, and the difference is *within noise* otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from examples.ctc_nat_small_scale.bootstrap import Bootstrap
from examples.ctc_nat_small_scale.grid import BASELINE
from examples.ctc_nat_small_scale.runs_read import BLEU, CHRF, Evaluation, Runs
from nat_plugin.scoring import Comparison

HOLDS, FAILS, NOISE, NOT_RUN = "holds", "does not hold", "within noise", "not run"
DIFFERS = "differs by direction"
SIGNIFICANT = 0.05
LEAST_BLEU = 5.0
"""Below it a model translates too badly for differences to say much."""
LIKE_COMPUTE = 1.2
"""Trainings of which one takes up to so many times as long as the other count as alike."""

PAPER, OPTION, OURS = "paper", "option of the paper", "asked here"
RULE = (
    f"Rule: paired bootstrap resampling of BLEU, 1,000 samples, seed by seed. **{HOLDS}**: p < {SIGNIFICANT} and ahead "
    f"for every seed; **{FAILS}**: p < {SIGNIFICANT} and behind for every seed; **{NOISE}**: anything else; "
    f"**{NOT_RUN}**: translations of one side are missing."
)


@dataclass(frozen=True)
class Claim:
    """``system`` is better than ``reference``; each is ``(row, evaluation)``. ``origin``: who says or asks so."""

    name: str
    text: str
    origin: str
    system: tuple[str, str]
    reference: tuple[str, str]


def _rows(name: str, text: str, origin: str, system: str, reference: str) -> Claim:
    return Claim(name, text, origin, (system, "greedy"), (reference, "beam5" if reference == BASELINE else "greedy"))


CLAIMS = (
    _rows("pmlm-init", "Starting from the masked LM beats random weights", PAPER, "pmlm", "random"),
    _rows("mask-insertion", "MASK insertion beats token duplication", PAPER, "pmlm", "duplication"),
    _rows("distillation", "Embedding distillation adds to it", PAPER, "distill", "pmlm"),
    _rows("random-against-at", "From random weights alone it is ahead of the baseline", OURS, "random", BASELINE),
    _rows("raw-against-at", "From the masked LM, on raw data, it is ahead of the baseline", PAPER, "pmlm", BASELINE),
    _rows("distill-against-at", "So is the model with embedding distillation", PAPER, "distill", BASELINE),
    _rows("kd-against-at", "Trained on distilled data it is ahead of the baseline", PAPER, "kd", BASELINE),
    _rows("kd", "Distilled data helps the model that starts from the masked LM", OPTION, "kd", "pmlm"),
    _rows("random-kd", "Distilled data helps the model that starts from random weights", OPTION, "random-kd", "random"),
    _rows("pmlm-init-kd", "Starting from the masked LM helps on distilled data, too", PAPER, "kd", "random-kd"),
    _rows("uniform-right", "MASKs between the tokens beat MASKs right of them", OPTION, "pmlm", "right"),
    _rows("uniform-left", "MASKs between the tokens beat MASKs left of them", OPTION, "pmlm", "left"),
    _rows("ratio3", "Ratio 3 beats ratio 2", OPTION, "ratio3", "pmlm"),
    _rows("ratio2.5", "Ratio 2.5 beats ratio 2", OPTION, "ratio2.5", "pmlm"),
    _rows("blank", "Blank <s> beats blank <mask>", OPTION, "pmlm", "blank-mask"),
    Claim("averaging", "The best 5 averaged beat the best one", PAPER, ("pmlm", "greedy"), ("pmlm", "single")),
    Claim("penalty", "Lowering the blank's score by 1 helps", OURS, ("pmlm", "penalty"), ("pmlm", "greedy")),
    Claim("beam", "Beam search with an n-gram LM beats one pass alone", OPTION, ("pmlm", "beam"), ("pmlm", "greedy")),
    _rows("glancing", "Glancing helps", OURS, "glancing", "pmlm"),
)
REFERENCE_ROWS = {
    "random": BASELINE,
    "pmlm": "random",
    "random-kd": "random",
    **dict.fromkeys(
        ("duplication", "distill", "ratio3", "ratio2.5", "right", "left", "blank-mask", "kd", "glancing"), "pmlm"
    ),
}
"""Row → the one that it differs from in one thing (``random``: from the baseline in all)."""


@dataclass(frozen=True)
class SeedPair:
    """A system and its reference, each of one seed, on the same sentences; ``comparisons``: score → bootstrap."""

    system: Evaluation
    reference: Evaluation
    comparisons: dict[str, Comparison]

    @property
    def delta(self) -> float:
        """Points of BLEU by which the system is ahead."""
        return self.system.bleu - self.reference.bleu

    @property
    def p_value(self) -> float:
        """Of the difference in BLEU."""
        return self.comparisons[BLEU].p_value


@dataclass(frozen=True)
class Finding:
    """A claim in one direction: what was compared (by seed), the verdict, and what counts against it.

    ``spreads``: of BLEU over all seeds of the system and of the reference, compared or not; None with fewer than two.
    """

    claim: Claim
    direction: str
    pairs: list[SeedPair]
    spreads: tuple[float | None, float | None]
    verdict: str
    cautions: list[str]

    @property
    def delta(self) -> float | None:
        """Mean over the pairs; None without any."""
        return fmean(pair.delta for pair in self.pairs) if self.pairs else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "claim": self.claim.name,
            "text": self.claim.text,
            "origin": self.claim.origin,
            "system": "/".join(self.claim.system),
            "reference": "/".join(self.claim.reference),
            "direction": self.direction,
            "verdict": self.verdict,
            "delta": self.delta,
            "spreads": self.spreads,
            "pairs": [_pair_as_dict(pair) for pair in self.pairs],
            "cautions": self.cautions,
        }


def verdict(results: Sequence[tuple[float, float]]) -> str:
    """The rule of this module for ``(delta, p)`` of each seed."""
    if not results:
        return NOT_RUN
    if all(p < SIGNIFICANT and delta > 0 for delta, p in results):
        return HOLDS
    if all(p < SIGNIFICANT and delta < 0 for delta, p in results):
        return FAILS
    return NOISE


def overall(verdicts: Iterable[str]) -> str:
    """Of all directions that were run: what they agree on, or that they differ."""
    different = {one for one in verdicts if one != NOT_RUN}
    return NOT_RUN if not different else different.pop() if len(different) == 1 else DIFFERS


def findings(runs: Runs, bootstrap: Bootstrap, claims: Sequence[Claim] = CLAIMS) -> list[Finding]:
    """Every claim in every direction; the comparisons are made (or remembered) one after the other."""
    wanted = [(claim, direction) for claim in claims for direction in runs.directions()]
    sides = {one: _sides(runs, *one) for one in wanted}
    found = []
    with bootstrap.progress(sum(len(common_seeds(*both)) for both in sides.values())) as advance:
        for (claim, direction), (systems, references) in sides.items():
            pairs = []
            for seed in common_seeds(systems, references):
                system, reference = systems[seed], references[seed]
                lines = (reference.hypotheses, system.hypotheses, runs.texts[direction].reference)
                pairs.append(SeedPair(system, reference, bootstrap.compare(*lines)))
                advance()
            spreads = (_spread_of(systems), _spread_of(references))
            said = verdict([(pair.delta, pair.p_value) for pair in pairs])
            found.append(Finding(claim, direction, pairs, spreads, said, cautions(pairs, spreads)))
    return found


def common_seeds(system: Mapping[int, Evaluation], reference: Mapping[int, Evaluation]) -> list[int]:
    """Seeds that both have, rising: with the same seed they saw the same batches."""
    return sorted(system.keys() & reference.keys())


def _sides(runs: Runs, claim: Claim, direction: str) -> tuple[dict[int, Evaluation], dict[int, Evaluation]]:
    return runs.seeds(direction, *claim.system), runs.seeds(direction, *claim.reference)


def _spread_of(seeds: Mapping[int, Evaluation]) -> float | None:
    return spread([one.bleu for one in seeds.values()]) if len(seeds) > 1 else None


def cautions(pairs: Sequence[SeedPair], spreads: Sequence[float | None] = ()) -> list[str]:
    """What counts against a verdict from these pairs, one phrase each; that there is one seed only is told elsewhere.

    Args:
        pairs: by seed.
        spreads: of all seeds of either side, where there are several.
    """
    if not pairs:
        return []
    said = []
    sides = [[pair.system for pair in pairs], [pair.reference for pair in pairs]]
    lowest = min(one.bleu for side in sides for one in side)
    if lowest < LEAST_BLEU:
        said.append(
            f"BLEU {lowest:.1f}: below {LEAST_BLEU:.0f} a model translates too badly for a verdict to mean much"
        )
    widest = max((one for one in spreads if one is not None), default=None)
    mean = abs(fmean(pair.delta for pair in pairs))
    if widest is not None and mean <= widest:
        said.append(f"the difference ({mean:.2f}) is no larger than the spread of the seeds ({widest:.2f})")
    minutes = [fmean(one.training_seconds for one in side) / 60 for side in sides]
    if max(minutes) > LIKE_COMPUTE * min(minutes):
        said.append(f"{minutes[0]:.1f} against {minutes[1]:.1f} minutes of training: unlike compute, or a busy machine")
    against = [pair for pair in pairs if pair.delta * _chrf_delta(pair) < 0]
    if against:
        said.append(f"{CHRF} says the opposite for {len(against)} of {len(pairs)} seeds")
    return said


def spread(values: Sequence[float]) -> float:
    """From the lowest to the highest."""
    return max(values) - min(values) if values else 0.0


def _chrf_delta(pair: SeedPair) -> float:
    return pair.system.chrf - pair.reference.chrf


def _pair_as_dict(pair: SeedPair) -> dict[str, Any]:
    return {
        "seed": pair.system.key.seed,
        "bleu": pair.system.bleu,
        "reference_bleu": pair.reference.bleu,
        "delta": pair.delta,
        "p": pair.p_value,
        "chrf2_delta": _chrf_delta(pair),
        "chrf2_p": pair.comparisons[CHRF].p_value,
        "signature": pair.comparisons[BLEU].signature,
    }


@dataclass(frozen=True)
class SpeedFinding:
    """One pass against a left-to-right system on the same text: how many times as fast, and the verdict."""

    ours: str
    peer: str
    times: float
    verdict: str


def speed_findings(measured: Sequence[Mapping[str, Any]]) -> list[SpeedFinding]:
    """Our fastest system (by median) against each peer.

    The claim that one pass is faster *holds* if our slowest turn beats the peer's fastest, *does not hold* if our
    fastest turn is behind the peer's slowest, and is *within noise* otherwise.

    Args:
        measured: entries of the decoding benchmark's ``trained``, those left out removed.
    """
    ours = [one for one in measured if one["system"].startswith("ours")]
    if not ours:
        return []
    best = max(ours, key=lambda one: float(one["sentences_per_s"]["median"]))
    mine = best["sentences_per_s"]
    found = []
    for peer in (one for one in measured if not one["system"].startswith("ours")):
        speed = peer["sentences_per_s"]
        said = HOLDS if mine["min"] > speed["max"] else FAILS if mine["max"] < speed["min"] else NOISE
        found.append(SpeedFinding(_shown(best), _shown(peer), mine["median"] / speed["median"], said))
    return found


def _shown(entry: Mapping[str, Any]) -> str:
    return f"{entry['model']}: {entry['system']} (BLEU {entry['bleu']:.1f})"
