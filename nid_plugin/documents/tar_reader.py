"""Text files in tar archives, and in archives within archives, read once from front to back."""

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from nid_plugin.documents.document import MAX_DOCUMENT_BYTES, DocumentCounts, Oversized, RawDocument
from plugin_common.errors import UserError
from plugin_common.json_lines import zstandard_stream

# OpenWebText's first release: outer .tar, members .xz that are tar archives of .txt files.
_NESTED_ENDINGS = (".tar", ".xz", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".txz", ".tar.zst")
_SINGLE_ENDINGS = (".txt.xz",)  # no archives
_DEEPEST = 4
_BROKEN = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError)


class _CutOff(Exception):
    """The archive ended without its end mark."""


class _Member(tarfile.TarInfo):
    """Remembers how the list of members ended: the library takes broken and missing headers for the end, too."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            archive.ended_by = error  # type: ignore[attr-defined]
            raise


def read_tar(path: str, counts: DocumentCounts) -> Iterator[RawDocument]:
    """The ``.txt`` members, in bytes, in the order of the archive; members that are archives are entered.

    ``source`` is ``path:member``, or ``path:archive:member``. Members of other kinds are counted in
    ``counts.other_files``. Memory for one member.

    Raises:
        UserError: the file cannot be read, is no tar archive, or is broken or cut off; names the last sound member.
    """
    try:
        with Path(path).open("rb") as stream:
            yield from _read_archive(stream, path, counts, depth=1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_archive(stream: BinaryIO, name: str, counts: DocumentCounts, depth: int) -> Iterator[RawDocument]:
    last = None
    try:
        with _decompressed(stream, name) as plain, tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member) as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # the library keeps them all
                if member.isfile():
                    yield from _read_member(archive, member, name, counts, depth)
                    last = member.name
            _check_end(archive, name)
            while plain.read(2**20):  # checks what is left, such as the checksum at the end of the compressed data
                pass
    except UserError:
        raise
    except (_CutOff, *_BROKEN) as error:
        where = f"after {last}" if last else "at its start"
        raise UserError(
            f"{name}: broken or cut off {where} ({error or type(error).__name__}); expected a tar archive, plain or "
            "in gzip, xz, bzip2 or Zstandard; fetch it again"
        ) from error


def _read_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, counts: DocumentCounts, depth: int
) -> Iterator[RawDocument]:
    source = f"{name}:{member.name}"
    lower = member.name.lower()
    if lower.endswith(".txt"):
        if member.size > MAX_DOCUMENT_BYTES:
            yield Oversized(), source
        else:
            yield _open(archive, member).read(), source
    elif lower.endswith(_NESTED_ENDINGS) and not lower.endswith(_SINGLE_ENDINGS):
        if depth == _DEEPEST:
            raise UserError(f"{source}: archives within archives more than {_DEEPEST} deep; unpack it first")
        yield from _read_archive(_open(archive, member), source, counts, depth + 1)
    else:
        counts.other_files += 1


def _open(archive: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    stream = archive.extractfile(member)
    assert stream is not None  # a regular file
    return cast(BinaryIO, stream)


def _check_end(archive: tarfile.TarFile, name: str) -> None:
    ended_by = getattr(archive, "ended_by", None)
    if not isinstance(ended_by, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise _CutOff(f"no end mark: {ended_by or 'the data ends'}")
    stream: BinaryIO = archive.fileobj  # type: ignore[assignment]
    while rest := stream.read(2**20):
        if rest.strip(b"\0"):
            raise UserError(
                f"{name}: goes on after the archive's end mark, as archives do that were put together with `cat`; "
                "unpack it with `tar --ignore-zeros`, and give the folder"
            )


@contextlib.contextmanager
def _decompressed(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The stream's plain bytes, by what its first bytes say; never seeks."""
    buffered = io.BufferedReader(cast(io.RawIOBase, _Forward(stream)), 2**17)
    magic = buffered.peek(6)[:6]
    if magic.startswith(b"\xfd7zXZ\0"):
        plain: BinaryIO = cast(BinaryIO, lzma.LZMAFile(buffered))  # noqa: SIM115 (reads from a stream that is closed elsewhere)
    elif magic.startswith(b"\x1f\x8b"):
        plain = cast(BinaryIO, gzip.GzipFile(fileobj=buffered))
    elif magic.startswith(b"BZh"):
        plain = cast(BinaryIO, bz2.BZ2File(buffered))
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        plain = zstandard_stream(cast(BinaryIO, buffered), name)
    else:
        plain = cast(BinaryIO, buffered)
    yield plain


class _Forward(io.RawIOBase):
    """A stream that can only be read on: buffering must not ask a member of a streamed archive for its position."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
