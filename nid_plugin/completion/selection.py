"""The documents that a ledger works on: their halves, kept in it, so that a run started again need not read them anew.

``halves.jsonl`` holds them, each document once; ``selection.json`` says how they were chosen and is written last.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nid_plugin.completion.changes import differences
from nid_plugin.completion.durable_file import sync_folder
from nid_plugin.completion.ledger import nothing_asked
from nid_plugin.documents.hash_set import HashSet
from nid_plugin.halving import Half, read_halves, write_halves
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError


@dataclass
class Size:
    """How much there is.

    Attributes:
        documents: halves in the selection.
        repeated: further copies of a document that is there already, left out.
        prompt_bytes, second_half_bytes: UTF-8, in all.
        blank: halves to complete that hold white space alone, left out.
    """

    documents: int = 0
    repeated: int = 0
    prompt_bytes: int = 0
    second_half_bytes: int = 0
    blank: int = 0

    def lines(self) -> list[str]:
        """What was left out, for a reader."""
        repeated = f"{self.repeated:,} further copies of a document left out"
        blank = f"{self.blank:,} documents left out whose first half holds white space alone"
        return [line for count, line in ((self.repeated, repeated), (self.blank, blank)) if count]


@dataclass(frozen=True)
class Selection:
    """The halves of a ledger and what is known of them.

    Attributes:
        path: of ``halves.jsonl``.
        settings: how the documents were chosen.
        size: how much there is.
        report: lines on what was read and dropped.
    """

    path: Path
    settings: dict[str, Any]
    size: Size
    report: list[str]

    def halves(self) -> Iterator[Half]:
        """The halves, in order."""
        return read_halves(str(self.path))


def select(
    folder: Path,
    settings: dict[str, Any],
    read: Callable[[], Iterator[Half]],
    report: Callable[[], list[str]],
    *,
    anew: bool = False,
) -> Selection:
    """The selection of a ledger; made from the documents where it is not there yet.

    Args:
        folder: of the ledger.
        settings: how the documents are chosen, JSON-able.
        read: gives their halves.
        report: lines on what was read and dropped; called after that.
        anew: replace a selection that was made with other settings; results that are there stay.

    Raises:
        UserError: there is a selection of other settings, no documents are left, or reading failed.
    """
    there = read_selection(folder)
    if there is not None:
        changed = list(differences(there.settings, settings))
        if not changed:
            return there
        if not anew and not nothing_asked(folder):
            listed = "\n".join(f"  - {difference}" for difference in changed)
            raise UserError(
                f"{folder}: this ledger was made for other documents:\n{listed}\n"
                "Give the options as they were, or --new-selection to go on with these documents (answers that are "
                "there are kept and not paid again), or another --ledger."
            )
        (folder / "selection.json").unlink()
        sync_folder(folder)  # before the new halves take the place of those that it described
    size = Size()
    write_halves(str(folder / "halves.jsonl"), each_once(read(), size))
    if not size.documents:
        raise UserError("\n  ".join(["no document is left to complete:", *report(), *size.lines()]))
    return write_selection(folder, settings, size, [*report(), *size.lines()])


def write_selection(folder: Path, settings: dict[str, Any], size: Size, report: list[str]) -> Selection:
    """Note what ``halves.jsonl`` in the folder holds; it is complete from then on."""
    with atomic_output(str(folder / "selection.json")) as stream:
        record = {"settings": settings, "size": asdict(size), "report": report}
        stream.write(json.dumps(record, indent=1).encode() + b"\n")  # names of files need not be UTF-8
    return Selection(folder / "halves.jsonl", settings, size, report)


def read_selection(folder: Path) -> Selection | None:
    """The selection of a ledger, None where none is complete.

    Raises:
        UserError: its file is damaged.
    """
    path = folder / "selection.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Selection(folder / "halves.jsonl", record["settings"], Size(**record["size"]), record["report"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it, and the documents are read again") from error


def digest(path: Path) -> str:
    """SHA-256 of a file of halves: names a selection that was given as one."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def each_once(halves: Iterable[Half], size: Size) -> Iterator[Half]:
    """The halves without further copies of a document; ``size`` counts them. 13 to 27 bytes of memory a document."""
    seen = HashSet()
    for half in halves:
        if not half.prompt.strip():
            size.blank += 1
            continue
        if not seen.add(int.from_bytes(hashlib.sha256(half.document.encode()).digest()[:8])):
            size.repeated += 1
            continue
        size.documents += 1
        size.prompt_bytes += len(half.prompt.encode("utf-8", "surrogatepass"))
        size.second_half_bytes += len(half.second_half.encode("utf-8", "surrogatepass"))
        yield half
