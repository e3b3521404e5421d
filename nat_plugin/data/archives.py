"""Take text files out of archives (tar, gzipped tar, zip), and sentences out of the formats of the shared tasks.

Nothing is unpacked under a name that an archive gives: members are copied to files named by the caller, so an archive
cannot write elsewhere. Archives are read to their very end, which checks their CRCs.
"""

import gzip
import html
import re
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

BLOCK_BYTES = 2**20
_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg\s*>", re.DOTALL | re.IGNORECASE)
_SEGMENT_START = re.compile(r"<seg\b", re.IGNORECASE)
_TAG_LINE = re.compile(r"\s*<(?P<tag>[A-Za-z]\w*)\b[^<>]*>(?P<text>.*?)(?:</(?P=tag)\s*>\s*)?", re.DOTALL)
_END_TAG_LINE = re.compile(r"\s*</[A-Za-z]\w*\s*>\s*")
# White space of any kind, line ends of other alphabets (U+0085, U+2028, U+2029) included.
_SPACE = re.compile(r"\s+")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error)


def copy_members(archive: Path, names: Collection[str], folder: Path) -> dict[str, Path]:
    """Copy those of the members ``names`` that are there to files in ``folder``.

    Args:
        archive: ``.tgz``, ``.tar.gz``, ``.tar`` or ``.zip``; the content decides, not the name.
        names: full names in the archive, with ``/``; a leading ``./`` in the archive is ignored.
        folder: an existing folder; the files are called after the archive and numbered.

    Returns:
        The files by member name; names that the archive lacks are absent.

    Raises:
        UserError: the archive is damaged or incomplete, or a member is no regular file.
    """
    found: dict[str, Path] = {}
    for name, stream in _members(archive, frozenset(names)):
        path = folder / f"{archive.name}.member{len(found)}"
        with path.open("wb") as target:
            try:
                shutil.copyfileobj(stream, target, BLOCK_BYTES)
            except _DAMAGED as error:
                raise _damaged(archive, error) from error
        found[name] = path
    return found


def segments(text: str) -> list[str]:
    """The texts of ``<seg>`` elements of an SGML or XML file, in order.

    Entities are written out once (``&amp;lt;`` gives ``&lt;``); white space of all kinds, line breaks included, becomes
    single spaces, so that a segment is one line.

    Raises:
        UserError: a ``<seg>`` without its end.
    """
    found = [_SPACE.sub(" ", html.unescape(inner)).strip() for inner in _SEGMENT.findall(text)]
    starts = len(_SEGMENT_START.findall(text))
    if starts != len(found):
        raise UserError(f"{starts} <seg> begin and {len(found)} end; expected as many")
    return found


def untagged_lines(lines: Iterable[str], dropped: Counter[str]) -> Iterator[str]:
    """The sentences among the lines of IWSLT's tagged transcripts.

    ``<title>`` and ``<description>`` lines count as sentences, without their tags, as in the literature; all other tag
    lines (``<url>``, ``<talkid>``, ``<keywords>``) are metadata, left out and counted in ``dropped`` by tag.
    """
    for line in lines:
        tagged = _TAG_LINE.fullmatch(line)
        if tagged is None and _END_TAG_LINE.fullmatch(line):
            dropped["end tags"] += 1
        elif tagged is None:
            yield line.strip()
        elif tagged["tag"] in ("title", "description"):
            yield tagged["text"].strip()
        else:
            dropped[tagged["tag"]] += 1


def _members(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, BinaryIO]]:
    """The wanted members and their content, in the archive's order."""
    try:
        if zipfile.is_zipfile(archive):
            yield from _zip_members(archive, names)
        else:
            yield from _tar_members(archive, names)
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror or error})") from error


def _zip_members(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.filename.removeprefix("./")
            if name in names and not info.is_dir():
                with opened.open(info) as stream:
                    yield name, stream  # type: ignore[misc]


def _tar_members(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, BinaryIO]]:
    with (
        archive.open("rb") as raw,
        progress_bar(total=archive.stat().st_size, unit="B", description=f"reading {archive.name}") as bar,
    ):
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
        # As a stream: once from front to back, whatever the size.
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for member in opened:
                bar.update(raw.tell() - bar.n)
                name = member.name.removeprefix("./")
                if name not in names:
                    continue
                content = opened.extractfile(member) if member.isreg() else None
                if content is None:
                    raise UserError(f"{archive}: member {name} is no regular file; expected a text file")
                yield name, content  # type: ignore[misc]
        while stream.read(BLOCK_BYTES):  # to the end: only there gzip compares its CRC
            bar.update(raw.tell() - bar.n)


def _damaged(archive: Path, error: BaseException) -> UserError:
    return UserError(
        f"{archive}: damaged or incomplete archive ({error or type(error).__name__}); remove it and run the command "
        "again, or give --mirror URL-OR-FOLDER to take it from elsewhere"
    )
