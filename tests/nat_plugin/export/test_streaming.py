import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.export import streaming
from nat_plugin.export.streaming import InputCounts, line_windows
from plugin_common.errors import UserError


def windows(
    path: Path | str, most: int = 1024, invalid: streaming.InvalidUtf8 = "error"
) -> tuple[list[list[str]], list[str]]:
    counts = InputCounts()
    return list(line_windows(str(path), most_lines=most, invalid_utf8=invalid, counts=counts)), counts.changes()


def joined(found: list[list[str]]) -> list[str]:
    return [line for window in found for line in window]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> int:
    """Standard input is a pipe; the descriptor to write to."""
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", open(reading, encoding="utf-8"))  # noqa: PTH123, SIM115
    return writing


def test_a_line_is_given_though_the_sender_waits(pipe: int) -> None:
    found = line_windows("-", most_lines=10, invalid_utf8="error", counts=InputCounts())
    os.write(pipe, b"one\n")
    assert next(found) == ["one"]
    os.write(pipe, b"two\nthree\nhalf a li")
    assert next(found) == ["two", "three"]
    os.write(pipe, b"ne\n\n")
    assert next(found) == ["half a line", ""]
    os.write(pipe, b"last")
    os.close(pipe)
    assert list(found) == [["last"]]


def test_what_is_there_comes_in_full_windows(pipe: int) -> None:
    given = [f"line {k}" for k in range(3000)]
    os.write(pipe, "".join(f"{line}\n" for line in given).encode())
    os.close(pipe)
    found, _ = windows("-", 1000)
    assert [len(window) for window in found] == [1000, 1000, 1000]
    assert joined(found) == given


def test_a_pipe_that_does_not_wait_is_waited_for(pipe: int) -> None:
    os.set_blocking(sys.stdin.fileno(), False)
    threading.Timer(0.2, lambda: (os.write(pipe, b"late\n"), os.close(pipe))).start()
    assert windows("-")[0] == [["late"]]


def test_standard_input_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    assert joined(windows("-")[0]) == ["a", "b"]
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input is closed; give a file"):
        windows("-")


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    import tracemalloc

    sizes = []
    for lines in (20_000, 200_000):
        (tmp_path / "text").write_text("some words in a line\n" * lines)
        tracemalloc.start()
        assert (
            sum(map(len, line_windows(f"{tmp_path}/text", most_lines=100, invalid_utf8="error", counts=InputCounts())))
            == lines
        )
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sizes[1] < 1.5 * sizes[0]


lines_of_bytes = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=30)


@settings(deadline=None)
@given(lines_of_bytes, st.integers(1, 7), st.booleans())
def test_any_bytes_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, given: list[bytes], most: int, ended: bool
) -> None:
    """With ``replace`` every line is there; with ``error`` all that stand before the first bad one."""
    file = tmp_path_factory.getbasetemp() / "any"
    given = [*given, b"x"]
    file.write_bytes(b"\n".join(given) + (b"\n" if ended else b""))
    found, _ = windows(file, most, "replace")
    assert len(joined(found)) == len(given)
    assert all(1 <= len(window) <= most for window in found)
    bad = next((k for k, line in enumerate(given) if line != line.decode(errors="replace").encode()), None)
    before: list[str] = []
    try:
        for window in line_windows(str(file), most_lines=most, invalid_utf8="error", counts=InputCounts()):
            before += window
    except UserError as error:
        assert bad is not None
        assert f"any, line {bad + 1}, byte offset" in str(error)
        assert len(before) == bad
    else:
        assert bad is None
    assert before == joined(found)[: len(before)]


def test_changes_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes("\ufeffa\0b\r\nc\u2028d\ufeff\r\ne\tf\rg".encode())
    found, changes = windows(file)
    assert joined(found) == ["a b", "c\u2028d\ufeff", "e\tf g"]
    assert changes == [
        "2 Windows line ends (CR LF) read as newlines",
        "2 control characters replaced by spaces",
        "1 byte order marks removed",
    ]


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"good\n\nb\xc3d\n\xff\xfe\nend\n")
    before = []
    with pytest.raises(
        UserError, match=r"text, line 3, byte offset 7: not valid UTF-8 .*--invalid-utf8 replace"
    ) as error:
        for window in line_windows(str(file), most_lines=10, invalid_utf8="error", counts=InputCounts()):
            before += window
    assert before == ["good", ""]
    assert "(bytes c3)" in str(error.value)
    found, changes = windows(file, invalid="replace")
    assert joined(found) == ["good", "", "b\ufffdd", "\ufffd\ufffd", "end"]
    assert changes == [f"2 lines with bytes that are no UTF-8, read as U+FFFD (first {file}, line 3)"]


def test_gzip(tmp_path: Path) -> None:
    given = [f"line {k}" for k in range(50_000)]
    with gzip.open(tmp_path / "text.gz", "wt") as stream:
        stream.write("\n".join(given))
    assert joined(windows(tmp_path / "text.gz")[0]) == given
    (tmp_path / "half.gz").write_bytes((tmp_path / "text.gz").read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"half\.gz: not a complete gzip file"):
        windows(tmp_path / "half.gz")
    (tmp_path / "none.gz").write_bytes(b"text")
    with pytest.raises(UserError, match=r"none\.gz: not a complete gzip file"):
        windows(tmp_path / "none.gz")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none: no such file; check the path"):
        windows(tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        windows(tmp_path)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_LINE_BYTES", 2**20)
    file = tmp_path / "text"
    file.write_bytes(b"short\n" + b"x" * (2**21))
    found = line_windows(str(file), most_lines=10, invalid_utf8="error", counts=InputCounts())
    assert next(found) == ["short"]
    with pytest.raises(UserError, match="text: line 2 is longer than 1 MiB; expected text with one sentence a line"):
        next(found)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert windows(tmp_path / "empty") == ([], [])
