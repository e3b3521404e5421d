import bz2
import gc
import gzip
import io
import lzma
import tarfile

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nid_plugin.documents import DocumentCounts, DocumentSettings, tar_reader
from nid_plugin.documents.document import Oversized
from nid_plugin.documents.tar_reader import read_tar
from nid_plugin.halving import half_line, halves
from plugin_common.errors import UserError

FILES = {f"dir/{number}.txt": f"Document {number}. ".encode() * (number % 50) for number in range(60)}
PACK = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.xz": lzma.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": zstandard.ZstdCompressor().compress,
}


def tar_of(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def read(path, counts=None) -> dict[str, object]:
    return {source.removeprefix(f"{path}:"): cell for cell, source in read_tar(str(path), counts or DocumentCounts())}


@pytest.mark.parametrize("ending", PACK)
def test_members_come_back_whatever_the_compression(tmp_path, ending):
    file = tmp_path / f"a{ending}"
    file.write_bytes(PACK[ending](tar_of(FILES)))
    assert read(file) == FILES


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, format):
    files = {f"{'d' * 90}/{'ä' * 60}{number}.txt": b"x" for number in range(3)}
    file = tmp_path / "a.tar"
    file.write_bytes(tar_of(files, format))
    assert read(file) == files


def nested() -> bytes:
    """The layout of OpenWebText's first release: tar → .xz (each a tar.xz) → .txt."""
    parts = [dict(list(FILES.items())[start : start + 20]) for start in range(0, 60, 20)]
    return tar_of(
        {f"openwebtext/urlsf_{number}_data.xz": lzma.compress(tar_of(part)) for number, part in enumerate(parts)}
    )


def test_archives_in_archives(tmp_path):
    file = tmp_path / "urlsf_subset00.tar"
    file.write_bytes(nested())
    found = read(file)
    assert list(found.values()) == list(FILES.values())
    assert list(found)[20] == "openwebtext/urlsf_1_data.xz:dir/20.txt"


def test_other_members_are_counted(tmp_path):
    file = tmp_path / "a.tar"
    file.write_bytes(tar_of({"a.txt": b"x", "b.html": b"y", "c": b""}))
    counts = DocumentCounts()
    assert read(file, counts) == {"a.txt": b"x"}
    assert counts.other_files == 2


def test_large_members_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_reader, "MAX_DOCUMENT_BYTES", 10)
    file = tmp_path / "a.tar"
    file.write_bytes(tar_of({"a.txt": b"x" * 11, "b.txt": b"y" * 10}))
    found = read(file)
    assert isinstance(found["a.txt"], Oversized)
    assert found["b.txt"] == b"y" * 10


def test_archives_too_deep(tmp_path):
    data = tar_of(FILES)
    for _ in range(6):
        data = tar_of({"inner.tar": data})
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match="more than 4 deep"):
        read(tmp_path / "a.tar")


def test_memory_does_not_grow_with_the_members(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(FILES))
    documents = read_tar(str(tmp_path / "a.tar"), DocumentCounts())
    for _ in range(50):
        next(documents)
    assert sum(isinstance(thing, tarfile.TarInfo) for thing in gc.get_objects()) <= 4


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 0.9999))
@pytest.mark.parametrize("ending", [*PACK, "nested.tar"])
def test_an_archive_cut_off_anywhere_is_an_error(tmp_path, ending, share):
    """Nothing is ever taken for the end but the end."""
    whole = nested() if ending == "nested.tar" else PACK[ending](tar_of(FILES))
    end = whole.rstrip(b"\0") if ending.endswith(".tar") else whole  # cutting the padding of a plain tar is no loss
    file = tmp_path / f"a{ending}"
    file.write_bytes(end[: int(share * len(end))])
    found = []
    with pytest.raises(UserError, match="cut off") as caught:
        for cell, source in read_tar(str(file), DocumentCounts()):
            found.append((source, cell))
    assert str(file) in str(caught.value)
    if found and "Zstandard" not in str(caught.value):
        last = found[-1][0].rpartition(":")[2]
        assert (
            f"after {last}" in str(caught.value)
            or "at its start" in str(caught.value)
            or "_data.xz" in str(caught.value)
        )


def test_a_damaged_header_is_an_error(tmp_path):
    data = bytearray(tar_of({"a.txt": b"x" * 500, "b.txt": b"y", "c.txt": b"z"}))
    data[1024 + 10] ^= 0xFF  # the header of b.txt
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar: broken or cut off after a\.txt"):
        read(tmp_path / "a.tar")


GZIP = gzip.compress(b"text", mtime=0)  # with the time in it, processes would name the test differently


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100, GZIP, b"\xfd7zXZ\0rubbish"])
def test_what_is_no_archive(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar: broken or cut off at its start"):
        read(tmp_path / "a.tar")


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.tar")


def test_names_that_are_no_utf8_can_be_written_later(tmp_path):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        member = tarfile.TarInfo("caf\udce9.txt")
        member.size = 9
        archive.addfile(member, io.BytesIO(b"One. Two."))
    (half,) = halves(DocumentSettings((str(file),), min_document_tokens=0), DocumentCounts())
    assert half.source == rf"{file}:caf\udce9.txt"
    assert half_line(half).decode()


def test_archives_put_together_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of({"1.txt": b"one"}) + tar_of({"2.txt": b"two"}))
    with pytest.raises(UserError, match=r"a\.tar: goes on after the archive's end mark.*--ignore-zeros"):
        read(tmp_path / "a.tar")


def test_compressed_texts_in_archives_are_other_files(tmp_path):
    packed = {"a.txt": b"x", "b.txt.xz": lzma.compress(b"x"), "c.txt.gz": gzip.compress(b"x")}
    (tmp_path / "a.tar").write_bytes(tar_of(packed))
    counts = DocumentCounts()
    assert list(read(tmp_path / "a.tar", counts)) == ["a.txt"]
    assert counts.other_files == 2
