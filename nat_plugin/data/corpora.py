"""From the catalogues of many packages to a split corpus on disk and a report of what was kept and dropped."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nat_plugin.data.catalogues import CatalogueError, read_catalogue
from nat_plugin.data.cleaning import (
    CleaningRules,
    Drop,
    Pair,
    clean_pairs,
    lacks_diacritics,
)

log = logging.getLogger(__name__)

UNREADABLE = "catalogues that could not be read"


@dataclass
class PackageTally:
    """One package's part in a corpus.

    Attributes:
        catalogues: catalogue files read.
        entries: pairs and unusable entries found in them.
        kept: pairs in the corpus that this package was the first to give.
        dropped: entries left out, by reason (``Unread``, ``Drop``).
        unreadable: catalogue files that could not be read at all.
    """

    catalogues: int = 0
    entries: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


class CorpusBuilder:
    """Gathers the pairs of one language from package after package; the order of ``add`` calls decides ties.

    Args:
        language: code of the target's language ("de").
        rules: what to keep; see ``CleaningRules``.
        all_translations: keep every distinct pair. Otherwise a source keeps one translation, the most frequent.
    """

    def __init__(self, language: str, rules: CleaningRules | None = None, *, all_translations: bool = False) -> None:
        self.language = language
        self.rules = rules or CleaningRules()
        self.all_translations = all_translations
        self.tallies: dict[str, PackageTally] = {}
        self._found: dict[str, dict[str, list[str]]] = {}  # source → target → the packages that have it

    def add(self, package: str, path: str, content: bytes) -> None:
        """Read one catalogue file; one that cannot be read is counted, logged and left out."""
        tally = self.tallies.setdefault(package, PackageTally())
        try:
            catalogue = read_catalogue(content, f"{package}: {path}")
        except CatalogueError as error:
            log.warning("%s", error)
            tally.unreadable.append(path)
            return
        tally.catalogues += 1
        tally.entries += len(catalogue.pairs) + catalogue.unread.total()
        tally.dropped += catalogue.unread
        if lacks_diacritics(catalogue.pairs, language=self.language):
            tally.dropped[Drop.NO_DIACRITICS] += len(catalogue.pairs)
            return
        for source, target in clean_pairs(catalogue.pairs, tally.dropped, language=self.language, rules=self.rules):
            self._found.setdefault(source, {}).setdefault(target, []).append(package)

    def pairs(self) -> list[Pair]:
        """The corpus so far, in order of first appearance; brings the tallies' ``kept`` and ``dropped`` up to date."""
        for tally in self.tallies.values():
            tally.kept = 0
            for reason in (Drop.DUPLICATE, Drop.OTHER_TRANSLATION):
                del tally.dropped[reason]
        chosen: list[Pair] = []
        for source, targets in self._found.items():
            best = max(targets, key=lambda target: len(targets[target]))  # of equals the first
            for target, packages in targets.items():
                if target == best or self.all_translations:
                    chosen.append((source, target))
                    self.tallies[packages[0]].kept += 1
                    for package in packages[1:]:
                        self.tallies[package].dropped[Drop.DUPLICATE] += 1
                else:
                    for package in packages:
                        self.tallies[package].dropped[Drop.OTHER_TRANSLATION] += 1
        return chosen

    def total(self) -> PackageTally:
        """The sum over all packages."""
        total = PackageTally()
        for tally in self.tallies.values():
            total.catalogues += tally.catalogues
            total.entries += tally.entries
            total.kept += tally.kept
            total.dropped += tally.dropped
            total.unreadable += tally.unreadable
        return total


def write_split(folder: Path, sides: Mapping[str, Sequence[Pair]], *, source: str, target: str) -> None:
    """Write ``{side}.{source}`` and ``{side}.{target}``: UTF-8, one string a line, line k of both files is pair k."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, pairs in sides.items():
        for language, column in ((source, 0), (target, 1)):
            text = "".join(f"{pair[column]}\n" for pair in pairs)
            (folder / f"{side}.{language}").write_text(text, encoding="utf-8", newline="\n")


def report_of(builder: CorpusBuilder) -> dict[str, object]:
    """The tallies as plain values for JSON: ``total``, and ``packages`` by name."""
    return {
        "total": _plain(builder.total()),
        "packages": {name: _plain(tally) for name, tally in sorted(builder.tallies.items())},
    }


def report_markdown(title: str, builder: CorpusBuilder) -> str:
    """The same as two Markdown tables: how many entries each reason cost, and each package's part."""
    total = builder.total()
    lines = [
        f"## {title}",
        "",
        f"{total.kept:,} pairs from {total.entries:,} entries of {total.catalogues:,} catalogues.",
        "",
        "| dropped because | entries |",
        "|---|---:|",
        *(f"| {reason} | {count:,} |" for reason, count in total.dropped.most_common() if count),
        *([f"| {UNREADABLE} | {len(total.unreadable):,} files |"] if total.unreadable else []),
        "",
        "| package | entries | kept | dropped, by reason |",
        "|---|---:|---:|---|",
    ]
    for name, tally in sorted(builder.tallies.items(), key=lambda item: (-item[1].kept, item[0])):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.dropped.most_common() if count)
        if tally.unreadable:
            reasons += f"; {UNREADABLE}: {', '.join(tally.unreadable)}"
        lines.append(f"| {name} | {tally.entries:,} | {tally.kept:,} | {reasons} |")
    return "\n".join([*lines, ""])


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as readable JSON with a stable order of keys."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(tally: PackageTally) -> dict[str, object]:
    dropped = {str(reason): count for reason, count in tally.dropped.most_common() if count}
    return {
        "catalogues": tally.catalogues,
        "entries": tally.entries,
        "kept": tally.kept,
        "dropped": dropped,
        "unreadable": tally.unreadable,
    }
