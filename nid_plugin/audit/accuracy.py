"""How right the detectors are: counted on texts that were labelled by hand."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nid_plugin.audit.detectors import BY_NAME, DETECTORS, find_all, is_strict


class Measured(NamedTuple):
    """Counts of texts.

    Attributes:
        right: the detector found what the label says is there.
        wrong: it found something where the label says there is nothing.
        missed: it did not find what is there.
    """

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Of the texts with a finding, the share that has the label; 1 without findings."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Of the texts with the label, the share with a finding; 1 where no text has it."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


ANY_STRICT = "assistant or instruction"
"""Stands for all detectors of these two groups together: a text counts once, whichever of them it is."""


def measure(texts: Iterable[Mapping[str, Any]]) -> dict[str, Measured]:
    """Count hits and misses of each detector, and of those of instruction data together (``ANY_STRICT``).

    Args:
        texts: each with ``text``, ``side`` and ``labels``, the names of the detectors that should find something.
    """
    outcomes: dict[str, Counter[tuple[bool, bool]]] = {name: Counter() for name in (*BY_NAME, ANY_STRICT)}
    for text in texts:
        looking = {detector.name for detector in DETECTORS if text["side"] in detector.sides}
        found, labels = find_all(text["text"], text["side"]).keys(), looking & set(text["labels"])
        for name in looking:
            outcomes[name][name in found, name in labels] += 1
        outcomes[ANY_STRICT][is_strict(found), is_strict(labels)] += 1
    return {name: Measured(seen[True, True], seen[True, False], seen[False, True]) for name, seen in outcomes.items()}


MEASURED: dict[str, dict[str, Measured]] = {
    "role-marker": {
        "all": Measured(10, 0, 0),
        "dev": Measured(6, 0, 0),
        "test": Measured(4, 0, 0),
        "found": Measured(0, 0, 0),
    },
    "assistant-identity": {
        "all": Measured(18, 0, 2),
        "dev": Measured(9, 0, 0),
        "test": Measured(8, 0, 0),
        "found": Measured(1, 0, 2),
    },
    "refusal": {
        "all": Measured(11, 0, 1),
        "dev": Measured(6, 0, 0),
        "test": Measured(5, 0, 1),
        "found": Measured(0, 0, 0),
    },
    "task-talk": {
        "all": Measured(21, 0, 2),
        "dev": Measured(13, 0, 0),
        "test": Measured(6, 0, 0),
        "found": Measured(2, 0, 2),
    },
    "reply": {
        "all": Measured(53, 1, 12),
        "dev": Measured(43, 0, 3),
        "test": Measured(1, 1, 0),
        "found": Measured(9, 0, 9),
    },
    "help-offer": {
        "all": Measured(39, 0, 4),
        "dev": Measured(25, 0, 0),
        "test": Measured(5, 0, 0),
        "found": Measured(9, 0, 4),
    },
    "task-request": {
        "all": Measured(15, 3, 2),
        "dev": Measured(7, 0, 1),
        "test": Measured(8, 3, 1),
        "found": Measured(0, 0, 0),
    },
    "code-request": {
        "all": Measured(14, 0, 0),
        "dev": Measured(3, 0, 0),
        "test": Measured(11, 0, 0),
        "found": Measured(0, 0, 0),
    },
    "imperative-opening": {
        "all": Measured(57, 2, 1),
        "dev": Measured(31, 0, 1),
        "test": Measured(25, 2, 0),
        "found": Measured(1, 0, 0),
    },
    "step-list": {
        "all": Measured(14, 2, 2),
        "dev": Measured(7, 0, 2),
        "test": Measured(7, 2, 0),
        "found": Measured(0, 0, 0),
    },
    "reader-request": {
        "all": Measured(32, 1, 1),
        "dev": Measured(24, 0, 1),
        "test": Measured(6, 1, 0),
        "found": Measured(2, 0, 0),
    },
    "question-answer": {
        "all": Measured(9, 0, 0),
        "dev": Measured(3, 0, 0),
        "test": Measured(6, 0, 0),
        "found": Measured(0, 0, 0),
    },
    "reader-question": {
        "all": Measured(36, 2, 4),
        "dev": Measured(19, 0, 2),
        "test": Measured(16, 2, 2),
        "found": Measured(1, 0, 0),
    },
    "assistant or instruction": {
        "all": Measured(159, 0, 16),
        "dev": Measured(96, 0, 2),
        "test": Measured(45, 0, 1),
        "found": Measured(18, 0, 13),
    },
}
"""What was counted on the texts of ``tests/nid_plugin/audit/labelled_texts.jsonl``: detector → part → counts.

Parts: ``dev`` (the rules were made with these in view), ``test`` (written by the same hand, not looked at while the
rules were made), ``found`` (completions of a real model, first looked at when the rules were done), ``all`` of them.
The tests count again and compare.
"""
