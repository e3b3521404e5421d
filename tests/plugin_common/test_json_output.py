"""JSON Lines written: any text, compressed by name, the same bytes again."""

import gzip
import json
import time
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from plugin_common.errors import UserError
from plugin_common.json_lines import read_json_lines
from plugin_common.json_output import json_line, lines_output


@given(st.text(st.characters()))  # lone surrogates, too
def test_a_line_is_utf8_and_comes_back(text: str) -> None:
    line = json_line({"text": text})
    assert json.loads(line.decode("utf-8")) == {"text": text}
    assert line.count(b"\n") == 1 and line.endswith(b"\n")


@pytest.mark.parametrize(("ending", "opened"), [("", open), (".gz", gzip.open), (".zst", zstandard.open)])
def test_what_is_written_is_read_again(ending: str, opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / f"a.jsonl{ending}", tmp_path / f"b.jsonl{ending}"
    for name in (path, other):
        monkeypatch.setattr(time, "time", lambda name=name: 10.0**9 * (1 + (name == other)))
        with lines_output(str(name)) as stream:
            for number in range(1000):
                stream.write(json_line({"number": number}))
    with opened(path, "rb") as stream:
        assert stream.read().startswith(b'{"number": 0}\n')
    assert [record["number"] for _, record in read_json_lines(str(path))] == list(range(1000))
    assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_nothing_half_written_stays(ending: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stop"), lines_output(str(tmp_path / f"a{ending}")) as stream:
        stream.write(b"{}\n")
        raise UserError("stop")
    assert not list(tmp_path.iterdir())


def test_nesting_without_end_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(UserError, match="line 1: not valid JSON"):
        list(read_json_lines(str(tmp_path / "a.jsonl")))
