"""From a benchmark's archives to line-aligned plain text: ``train``, ``valid`` and ``test`` in both languages."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nat_plugin.data.archives import copy_members, segments, untagged_lines
from nat_plugin.data.literature_corpora import Dataset, Part
from plugin_common.errors import UserError, raise_all
from plugin_common.text_lines import TextCounts, read_lines

log = logging.getLogger(__name__)

# Line ends to some programs, though not to those that end lines at "\n" alone.
_OTHER_LINE_ENDS = str.maketrans("\u2028\u2029", "  ")


@dataclass
class PartReport:
    """What became of one part; ``changes`` counts per language, by phrase, what was changed or left out."""

    part: Part
    members: dict[str, str]
    lines: int = 0
    changes: dict[str, dict[str, int]] = field(default_factory=dict)


def write_splits(
    dataset: Dataset, source: str, target: str, archives: Mapping[str, Path], folder: Path, strict_counts: set[str]
) -> list[PartReport]:
    """Write ``folder/{train,valid,test}.{source,target}`` for the splits that the data set has.

    One sentence a line, UTF-8; line k of both files is a pair. Line ends inside a sentence and control characters
    become spaces. A benchmark without a part for a split gets no file for it (IWSLT14's ``valid``, which the
    literature takes from ``train`` after cleaning).

    Args:
        dataset: what is where.
        source, target: the direction.
        archives: the checked archives' files, by name.
        folder: an existing folder for the results and for temporary files, which are removed.
        strict_counts: names of the archives whose parts must have their known number of lines; others are warned about.

    Raises:
        UserError: a damaged archive, missing members, invalid UTF-8, sides of different length, unexpected line counts;
            all missing members of all archives at once.
    """
    languages = (source, target)
    members = _copy_all(dataset, languages, archives, folder)
    for split in {part.split for part in dataset.parts}:
        for language in languages:
            (folder / f"{split}.{language}").write_bytes(b"")
    reports = []
    for part in dataset.parts:
        report = PartReport(part, {language: members[part.name, language][0] for language in languages})
        counts = {}
        for language in languages:
            name, path = members[part.name, language]
            counts[language], report.changes[language] = _append(
                part, f"{archives[part.archive]}, member {name}", path, folder / f"{part.split}.{language}"
            )
            path.unlink()
        _check_counts(part, archives[part.archive], report.members, counts, part.archive in strict_counts)
        report.lines = counts[source]
        reports.append(report)
    return reports


def _copy_all(
    dataset: Dataset, languages: tuple[str, str], archives: Mapping[str, Path], folder: Path
) -> dict[tuple[str, str], tuple[str, Path]]:
    """Each part's two members: (part's name, language) → (member's name, its copy in ``folder``)."""
    members: dict[tuple[str, str], tuple[str, Path]] = {}
    problems = []
    for archive in dataset.archives:
        wanted = {
            (part.name, language): part.candidates(*languages, language)
            for part in dataset.parts
            if part.archive == archive.name
            for language in languages
        }
        names = [name for candidates in wanted.values() for name in candidates]
        found = copy_members(archives[archive.name], names, folder)
        for key, candidates in wanted.items():
            present = [name for name in candidates if name in found]
            if present:
                members[key] = (present[0], found[present[0]])
            else:
                problems.append(
                    f"{archives[archive.name]}: lacks the member {' or '.join(candidates)} ({key[0]}); is it the "
                    f"archive of {archive.url}?"
                )
        used = {members[key][1] for key in wanted if key in members}
        for path in found.values():
            if path not in used:
                path.unlink()
    raise_all(problems)
    return members


def _append(part: Part, shown: str, path: Path, output: Path) -> tuple[int, dict[str, int]]:
    """Append the sentences of a member to ``output``; returns their number and the counts of changes."""
    counts, dropped = TextCounts(), Counter[str]()
    lines = 0
    try:
        with output.open("a", encoding="utf-8", newline="\n") as stream:
            for line in _sentences(part, path, counts, dropped):
                stream.write(line + "\n")
                lines += 1
    except UserError as error:
        raise UserError(f"{shown}: {str(error).removeprefix(str(path)).lstrip(':, ')}") from error
    changes = {f"{tag} lines left out" if tag != "end tags" else tag: count for tag, count in dropped.items()}
    changes |= {"carriage returns at line ends removed": counts.crlf_ends}
    changes |= {"control characters replaced by spaces": counts.control_characters}
    changes |= {"byte order marks removed": counts.byte_order_marks}
    return lines, {phrase: count for phrase, count in changes.items() if count}


def _sentences(part: Part, path: Path, counts: TextCounts, dropped: Counter[str]) -> Iterator[str]:
    lines = read_lines(str(path), "space", counts)
    if part.format == "segments":
        return iter(segments("\n".join(lines)))
    if part.format == "tagged":
        lines = untagged_lines(lines, dropped)
    return (line.translate(_OTHER_LINE_ENDS) for line in lines)


def _check_counts(
    part: Part, archive: Path, members: Mapping[str, str], counts: Mapping[str, int], strict: bool
) -> None:
    """Both sides must be equally long, and as long as is known of this part."""
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{members[language]} has {count:,}" for language, count in counts.items())
        raise UserError(f"{archive}: {part.name}: the two sides differ in their number of sentences: {shown}")
    count = next(iter(counts.values()))
    if not count:
        raise UserError(f"{archive}: {part.name} ({', '.join(members.values())}) holds no sentence")
    if part.lines is None or count == part.lines:
        return
    message = f"{archive}: {part.name} has {count:,} sentences, {part.lines:,} are known of it"
    if strict:
        raise UserError(
            f"{message}; the archive is altered or incomplete: remove it and run the command again, or, if this file "
            "is meant, give its SHA-256 with --checksums FILE"
        )
    log.warning("%s", message)
