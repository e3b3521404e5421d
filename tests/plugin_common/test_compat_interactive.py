"""The lines that fairseq-interactive reads, by itself and mended."""

import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nat_plugin
from plugin_common import compat
from plugin_common.compat_interactive import _buffered_read
from plugin_common.errors import UserError

nat_plugin.register()


def fairseqs_own_reader() -> Callable[[str, int], Iterator[list[str]]]:
    spec = importlib.util.find_spec("fairseq_cli.interactive")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.buffered_read


LINES = {
    "plain": b"a b\nc\n",
    "lone carriage return": b"a\rb\nc\n",
    "windows": b"a b\r\nc\r\n",
    "separators": "a\u2028b\u2029c\x85d\x0be\x0cf\nc\n".encode(),
    "no end": b"a\nc",
    "empty lines": b"\n\na\n\n",
    "invalid": b"a\n\xff b\nc\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_interactive_lines_are_those_of_the_file(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = LINES[name]
    (tmp_path / "input").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    expected = (
        [line.decode("utf-8", "replace").strip() for line in data.removesuffix(b"\n").split(b"\n")] if data else []
    )
    for source in (str(tmp_path / "input"), "-"):
        buffers = list(_buffered_read(source, size))
        assert [line for buffer in buffers for line in buffer] == expected
        assert all(len(buffer) == size for buffer in buffers[:-1])


def test_fairseq_reads_other_lines(tmp_path: Path) -> None:
    own = fairseqs_own_reader()
    (tmp_path / "input").write_bytes(LINES["lone carriage return"])
    assert [line for buffer in own(str(tmp_path / "input"), 9) for line in buffer] == ["a", "b", "c"]
    (tmp_path / "input").write_bytes(LINES["invalid"])
    with pytest.raises(UnicodeDecodeError):
        list(own(str(tmp_path / "input"), 9))


def test_interactive_uses_these_lines() -> None:
    import fairseq_cli.interactive

    compat.apply()
    assert fairseq_cli.interactive.buffered_read is _buffered_read


def test_invalid_utf8_is_named_by_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "input").write_bytes(b"a\nb \xffc\n")
    assert list(_buffered_read(str(tmp_path / "input"), 9)) == [["a", "b \ufffdc"]]
    assert "input line 2: byte 3 is no UTF-8; replaced by U+FFFD" in caplog.text


def test_a_missing_input_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--input .*/missing: No such file or directory; give a readable text file"):
        list(_buffered_read(str(tmp_path / "missing"), 9))
