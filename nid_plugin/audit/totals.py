"""Counts over many pairs, in memory that does not grow with their number (but for the set of different lengths)."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nid_plugin.audit.detectors import BY_NAME, SIDES, Side, is_strict
from nid_plugin.audit.examination import Facts
from nid_plugin.audit.intervals import quantile_rank
from nid_plugin.pairs import Pair

QUANTILES = (5, 25, 50, 75, 95)
"""In percent."""
HITS_KEPT = 1000


class Distribution:
    """Of integers; exact, in memory for the different ones."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def add(self, value: int) -> None:
        """Count a value."""
        self.counts[value] += 1

    def summary(self) -> dict[str, float]:
        """Number, mean, smallest, quantiles (the value at or below which that share lies), largest; {} without any."""
        total = self.counts.total()
        if not total:
            return {}
        ordered = sorted(self.counts.items())
        result: dict[str, float] = {
            "count": total,
            "mean": sum(v * n for v, n in ordered) / total,
            "min": ordered[0][0],
        }
        for q in QUANTILES:
            result[f"{q}%"] = _value_at(ordered, quantile_rank(q, total))
        return result | {"max": ordered[-1][0]}


def _value_at(ordered: Sequence[tuple[int, int]], rank: int) -> int:
    passed = 0
    for value, count in ordered:
        passed += count
        if passed >= rank:
            return value
    return ordered[-1][0]


class Examples:
    """A few of many, each with the same chance (reservoir sampling); the same ones for the same seed."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, random.Random(seed)
        self._seen: Counter[Any] = Counter()
        self.kept: dict[Any, list[Any]] = {}

    def add(self, key: Any, example: Any) -> None:
        """Offer an example of ``key``."""
        self._seen[key] += 1
        kept = self.kept.setdefault(key, [])
        if len(kept) < self._size:
            kept.append(example)
        elif (place := self._random.randrange(self._seen[key])) < self._size:
            kept[place] = example


@dataclass
class Agreement:
    """Detectors against the judge, in pairs that it judged."""

    both: int = 0
    only_detectors: int = 0
    only_judge: int = 0
    neither: int = 0

    def add(self, detected: bool, judged: bool) -> None:
        """Count a pair."""
        if detected:
            self.both, self.only_detectors = self.both + judged, self.only_detectors + (not judged)
        else:
            self.only_judge, self.neither = self.only_judge + judged, self.neither + (not judged)


@dataclass
class Totals:
    """What was found in all pairs; counts are of pairs unless they say otherwise.

    Attributes:
        found: (detector, side) → pairs; (detector, "either") counts a pair once.
        groups: group of detectors → pairs with any of it; ``any`` for all detectors.
        properties, relations: as ``examination.PROPERTIES`` and ``dropping.RELATIONS`` name them.
        words, characters: by side.
        from_prompt, from_second_half, repeated: shares in whole percent; longest_run in words.
        languages: (side, language); ``languages_compared`` counts pairs where both were sure, ``changes`` what from and
            to.
        hits: evaluation item → pairs; ``hit_list`` the first thousand.
        dropped_for: every reason counts; ``dropped`` counts a pair once.
        judge_detectors, judge_strict: agreement of the judge with any detector, and with those of instruction data.
    """

    examples: Examples
    pairs: int = 0
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    properties: Counter[str] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    words: dict[Side, Distribution] = field(default_factory=lambda: {side: Distribution() for side in SIDES})
    characters: dict[Side, Distribution] = field(default_factory=lambda: {side: Distribution() for side in SIDES})
    from_prompt: Distribution = field(default_factory=Distribution)
    longest_run: Distribution = field(default_factory=Distribution)
    repeated: Distribution = field(default_factory=Distribution)
    from_second_half: Distribution = field(default_factory=Distribution)
    without_second_half: int = 0
    languages: Counter[tuple[str, str]] = field(default_factory=Counter)
    languages_compared: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    hit_list: list[dict[str, str]] = field(default_factory=list)
    dropped: int = 0
    dropped_for: Counter[str] = field(default_factory=Counter)
    judge_detectors: Agreement = field(default_factory=Agreement)
    judge_strict: Agreement = field(default_factory=Agreement)

    def add(
        self, pair: Pair, facts: Facts, relations: Sequence[str], verdict: bool | None, reasons: Sequence[str]
    ) -> None:
        """Count a pair.

        Args:
            pair: as it stands in the file.
            facts: found in it.
            relations: to earlier pairs.
            verdict: the judge's; None where there is none.
            reasons: what it is to be dropped for.
        """
        self.pairs += 1
        self.finish_reasons[pair.finish_reason] += 1
        self.teachers[pair.teacher] += 1
        self.properties.update(facts.properties)
        self.relations.update(relations)
        self._add_sides(pair, facts)
        self._add_copying(facts)
        self._add_hits(pair, facts)
        self.dropped += bool(reasons)
        self.dropped_for.update(reasons)
        if verdict is not None:
            self._add_verdict(pair, facts, verdict)

    def _add_sides(self, pair: Pair, facts: Facts) -> None:
        for side in SIDES:
            part = facts.sides[side]
            self.words[side].add(part.words)
            self.characters[side].add(part.characters)
            self.languages[side, part.language or "not sure"] += 1
            for name, excerpt in part.found.items():
                self.found[name, side] += 1
                self.examples.add(name, {"id": pair.id, "side": side, "excerpt": excerpt})
        detected = facts.detected()
        for name in detected:
            self.found[name, "either"] += 1
        self.groups.update({BY_NAME[name].group for name in detected} | ({"any"} if detected else set()))
        self.groups["strict"] += is_strict(detected)
        one, other = (facts.sides[side].language for side in SIDES)
        if one is not None and other is not None:
            self.languages_compared += 1
            if one != other:
                self.changes[one, other] += 1

    def _add_copying(self, facts: Facts) -> None:
        if facts.from_prompt.share is not None:
            self.from_prompt.add(round(100 * facts.from_prompt.share))
        self.longest_run.add(facts.from_prompt.longest)
        if facts.repeated is not None:
            self.repeated.add(round(100 * facts.repeated))
        if facts.from_second_half is None:
            self.without_second_half += 1
        elif facts.from_second_half.share is not None:
            self.from_second_half.add(round(100 * facts.from_second_half.share))

    def _add_hits(self, pair: Pair, facts: Facts) -> None:
        for hit in facts.hits:
            self.hits[hit.item] += 1
            if len(self.hit_list) < HITS_KEPT:
                self.hit_list.append({"id": pair.id, "item": hit.item, "side": hit.side, "words": hit.words})

    def _add_verdict(self, pair: Pair, facts: Facts, verdict: bool) -> None:
        detected = facts.detected()
        self.judge_detectors.add(bool(detected), verdict)
        self.judge_strict.add(is_strict(detected), verdict)
        if verdict != is_strict(detected):
            found = ", ".join(sorted(detected)) or "nothing"
            self.examples.add(
                "only the judge" if verdict else "only detectors",
                {"id": pair.id, "side": f"found: {found}", "excerpt": _ends(pair)},
            )


def _ends(pair: Pair) -> str:
    start = " ".join(pair.completion[:200].split())
    return f"…{' '.join(pair.prompt[-100:].split())} ‖ {start}…".encode("utf-8", "replace").decode()
