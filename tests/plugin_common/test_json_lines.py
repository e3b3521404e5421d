import gzip
import io
import json
import sys

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugin_common import json_lines
from plugin_common.errors import UserError
from plugin_common.json_lines import open_maybe_compressed, read_json_lines, read_raw_lines

OBJECTS = [{"text": f"line {number} ä 😀"} for number in range(5000)]
PLAIN = b"".join(json.dumps(value).encode() + b"\n" for value in OBJECTS)
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("ending", PACK)
def test_objects_and_line_numbers_come_back(tmp_path, ending):
    file = tmp_path / f"a.jsonl{ending}"
    file.write_bytes(PACK[ending](PLAIN))
    assert list(read_json_lines(str(file))) == list(enumerate(OBJECTS, start=1))


def test_blank_lines_are_passed_over_but_counted(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\n{"a": 1}\r\n  \n{"a": 2}')
    assert list(read_json_lines(str(file))) == [(2, {"a": 1}), (4, {"a": 2})]
    assert [number for number, _ in read_raw_lines(str(file), blank=True)] == [1, 2, 3, 4]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}\n')))
    assert list(read_json_lines("-")) == [(1, {"a": 1})]


def test_several_zstandard_frames_are_one_stream(tmp_path):
    file = tmp_path / "a.jsonl.zst"
    cut = PLAIN.index(b"\n", len(PLAIN) // 2) - 5  # within a line
    file.write_bytes(PACK[".zst"](PLAIN[:cut]) + PACK[".zst"](b"") + PACK[".zst"](PLAIN[cut:]))
    assert [value for _, value in read_json_lines(str(file))] == OBJECTS


def test_a_frame_with_a_long_window_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    file = tmp_path / "a.jsonl.zst"
    file.write_bytes(packer.compress(PLAIN) + packer.flush())
    assert sum(1 for _ in read_json_lines(str(file))) == len(OBJECTS)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0.001, 0.999))
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_cut_off_data_is_never_taken_for_the_end(tmp_path, ending, share):
    packed = PACK[ending](PLAIN)
    file = tmp_path / f"a.jsonl{ending}"
    file.write_bytes(packed[: max(1, int(share * len(packed)))])
    with pytest.raises(UserError, match=r"cut off|broken compressed data") as caught:
        list(read_json_lines(str(file)))
    assert str(file) in str(caught.value)
    assert "fetch the file again" in str(caught.value)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_damaged_data(tmp_path, ending):
    packed = bytearray(PACK[ending](PLAIN))
    packed[len(packed) // 2] ^= 0xFF
    file = tmp_path / f"a.jsonl{ending}"
    file.write_bytes(packed)
    with pytest.raises(UserError, match=r"broken|not valid JSON"):
        list(read_json_lines(str(file)))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_plain_text_under_a_compressed_name(tmp_path, ending):
    file = tmp_path / f"a.jsonl{ending}"
    file.write_bytes(PLAIN)
    with pytest.raises(UserError, match="broken"):
        list(read_json_lines(str(file)))


@pytest.mark.parametrize(
    ("line", "says"), [(b"[1]", "found list"), (b'{"a":', "not valid JSON"), (b"\xff", "not valid")]
)
def test_a_line_that_is_no_object_is_named(tmp_path, line, says):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=says) as caught:
        list(read_json_lines(str(file)))
    assert f"{file}, line 2" in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        list(read_json_lines(str(tmp_path / "none.jsonl")))


def test_an_endless_line_is_an_error_not_a_full_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 1000)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + b"x" * 5000)
    with pytest.raises(UserError, match="line 2: longer than"):
        list(read_raw_lines(str(file)))


def test_reading_zstandard_in_pieces_gives_the_same_bytes(tmp_path):
    file = tmp_path / "a.zst"
    file.write_bytes(PACK[".zst"](PLAIN))
    with open_maybe_compressed(str(file)) as stream:
        assert b"".join(iter(lambda: stream.read(777), b"")) == PLAIN


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    """It comes through JSON's escapes, and could neither be written nor sent."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}\n{"a": ["\\uD83d x"]}\n')
    lines = read_json_lines(str(file))
    assert next(lines) == (1, {"a": "😀", "b": "\\ud800"})
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: \\ud83d without its other half is no valid Unicode"):
        next(lines)
    file.write_bytes(b'{"a": "\xed\x9f\xbf"}\n{"a": "\xed\xa0\x80"}\n')  # U+D7FF is a place without character
    lines = read_json_lines(str(file))
    assert next(lines) == (1, {"a": "\ud7ff"})
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: \\ud800 without its other half"):
        next(lines)
