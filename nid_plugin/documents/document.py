"""A document, and the count of what became of the documents of a stream."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Document(NamedTuple):
    """A text and where it came from.

    Attributes:
        text: never empty or blank, valid Unicode (no lone surrogates), with its white space as it stood.
        source: file and line, row or member; or data set, split and row; valid Unicode, too.
        digest: 16 bytes, XXH3 (128 bits) of the text's UTF-8 bytes: tells texts apart in a tenth of the time that a
            cryptographic hash takes.
    """

    text: str
    source: str
    digest: bytes


def printable(name: str) -> str:
    """The name of a file or member with ``\\udchh`` in place of bytes that are no UTF-8, so that it can be written."""
    return name.encode(errors="backslashreplace").decode()


MAX_DOCUMENT_BYTES = 64 * 2**20
"""A text file or archive member beyond this is passed over (counted as oversized) without being read."""


class Oversized:
    """Stands for the text of a document that is larger than ``MAX_DOCUMENT_BYTES``."""


RawDocument = tuple[Any, str]
"""What a reader found where a document's text should be (a text, UTF-8 bytes, ``Oversized``, or anything else that a
column may hold), and its source."""


REASONS: Mapping[str, str] = {
    "not_text": "no text in their place (empty cells, numbers, …)",
    "not_utf8": "not valid UTF-8",
    "oversized": "larger than the limit of a document",
    "blank": "blank",
    "other_shards": "belong to other shards",
    "too_short": "too short",
    "too_long": "too long",
    "duplicates": "equal to an earlier document",
    "near_duplicates": "nearly equal to an earlier document",
    "other_language": "surely in another language",
    "no_boundary": "without a boundary near the middle to be halved at",
    "not_drawn": "not drawn for the sample",
}
"""Why a document is left out → the phrase for it in a log, in the order of the checks."""

UNREADABLE = ("not_text", "not_utf8", "oversized")


@dataclass
class DocumentCounts:
    """What became of the documents of a stream: ``read`` is ``kept`` plus all that is ``dropped``.

    Attributes:
        read: documents found, whatever became of them.
        kept: documents that came out.
        dropped: reason (a key of ``REASONS``) → how many documents were left out for it.
        other_files: files in folders and archives that are passed over, since their names' endings say they are of
            another kind.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    other_files: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": {reason: self.dropped[reason] for reason in REASONS if self.dropped[reason]},
            "other_files": self.other_files,
        }

    def lines(self) -> list[str]:
        """What to tell the user: how many were read and kept, and a line for each reason to leave documents out."""
        lines = [f"{self.read:,} documents read, {self.kept:,} kept"]
        lines += [f"  {self.dropped[reason]:,} {REASONS[reason]}" for reason in REASONS if self.dropped[reason]]
        if self.other_files:
            lines.append(f"{self.other_files:,} files of other kinds passed over")
        return lines
