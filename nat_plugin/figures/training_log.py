"""The figures in a log of fairseq-train, as series over updates. Knows neither fairseq nor matplotlib."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from plugin_common.errors import UserError

TRAINING, INTERVAL = "train", "train_inner"
"""Parts of a log that are no validation: means over an epoch, and over the updates since the last line."""

_NAMED = re.compile(r"\| INFO \| (?P<part>[\w.-]+) \| (?P<rest>(?:epoch \d+|\{).*)")
_NAMED_BY_HYDRA = re.compile(r"\]\[(?P<part>[\w.-]+)\]\[INFO\] - (?P<rest>(?:epoch \d+|\{).*)")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf|nan)"
_WITH_EQUALS = re.compile(rf"(?P<name>\w+)=(?P<value>{_NUMBER})(?:,|$)", re.IGNORECASE)
_WITH_PIPES = re.compile(rf"\| (?P<name>\w+) (?P<value>{_NUMBER})(?= \||$)", re.IGNORECASE)


class Series(NamedTuple):
    """A metric's values, and after how many updates each was logged (rising)."""

    updates: list[int]
    values: list[float]


@dataclass
class TrainingLog:
    """A training, or several one after the other that continued each other.

    ``records``: for each part (``train``, ``train_inner``, ``valid`` or another validation subset) what was logged, as
    ``(updates, {metric: value})`` by rising updates. ``replaced``: lines that a continued run logged anew.
    """

    records: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    replaced: int = 0

    def add(self, part: str, updates: int, values: dict[str, float]) -> None:
        """Add a line; where a run continued from an earlier update, what stands there from then on is replaced."""
        known = self.records.setdefault(part, [])
        while known and known[-1][0] >= updates:
            known.pop()
            self.replaced += 1
        known.append((updates, values))

    def metrics(self) -> list[str]:
        """Names of all metrics, in the order of their first appearance."""
        return list(dict.fromkeys(name for known in self.records.values() for _, values in known for name in values))

    def validations(self) -> list[str]:
        """Names of the validation subsets."""
        return [part for part in self.records if part not in (TRAINING, INTERVAL)]

    def series(self, part: str, metric: str) -> Series:
        """A metric over a part of the log; empty where it was not logged."""
        found = [(updates, values[metric]) for updates, values in self.records.get(part, []) if metric in values]
        return Series([updates for updates, _ in found], [value for _, value in found])


def read_training_log(path: str | Path) -> TrainingLog:
    """Read what fairseq-train printed with ``--log-format simple``, ``json`` or ``tqdm``.

    Raises:
        UserError: no such file, or one without a line of statistics.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a log of fairseq-train") from error
    log = parse_training_log(re.split(r"[\r\n]", text))
    if not log.records:
        raise UserError(
            f"{path}: no statistics of fairseq-train in it; give what fairseq-train printed with --log-format simple "
            "or json (none prints no statistics)"
        )
    return log


def parse_training_log(lines: Sequence[str]) -> TrainingLog:
    """The statistics among lines of any kind; a line that was cut off gives what is whole in it, or nothing."""
    log = TrainingLog()
    for part, values in _statistics(lines):
        updates = values.pop("num_updates", math.nan)
        if math.isfinite(updates):
            log.add(part, int(updates), values)
    return log


def _statistics(lines: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    for line in lines:
        found = _NAMED.search(line) or _NAMED_BY_HYDRA.search(line)
        if found is None:
            continue
        part, rest = found["part"], found["rest"]
        if rest.startswith("{"):
            yield part, _from_json(part, rest)
        else:
            pattern = _WITH_EQUALS if part == INTERVAL else _WITH_PIPES
            yield part, {match["name"]: float(match["value"]) for match in pattern.finditer(rest)}


def _from_json(part: str, text: str) -> dict[str, float]:
    """The numbers of a JSON line; the names of all but ``train_inner`` start with the part's."""
    try:
        entries = json.loads(text)
    except ValueError:
        return {}
    values = {}
    for name, value in entries.items():
        try:
            values[name.removeprefix(f"{part}_")] = float(value)
        except (TypeError, ValueError):  # not every statistic is a number
            continue
    return {name: value for name, value in values.items() if name not in ("epoch", "update")}
