import gzip
import io
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_common import text_lines
from plugin_common.errors import UserError
from plugin_common.text_lines import LineBlock, TextCounts, count_block, decode_block, read_blocks, read_lines

# Lines as a corpus may hold them: anything but control characters; U+2028 and U+00A0 are among it.
line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\t"), max_size=20)


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str = "text.en") -> str:
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(line, max_size=20), last_newline=st.booleans(), block_bytes=st.integers(1, 40))
def test_lines_come_back_whatever_the_block_size(tmp_path_factory, lines, last_newline, block_bytes):
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = "x" + lines[0]
    last_newline = last_newline or (bool(lines) and lines[-1] == "")
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(("\n".join(lines) + ("\n" if last_newline and lines else "")).encode())
    blocks = list(read_blocks(str(path), block_bytes))
    assert b"".join(block.data for block in blocks) == path.read_bytes()
    read, counts = [], TextCounts()
    for block in blocks:
        assert block.first_line == len(read) + 1
        block_lines, block_counts = decode_block(block, "text")
        assert block_counts == count_block(block, "text")
        assert block_counts.lines == len(block_lines)
        read += block_lines
        counts.add(block_counts)
    assert read == lines
    assert counts == TextCounts(lines=len(lines))
    assert counts.changes() == []


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u00a0", "\u3000", "\t"])
def test_only_newline_ends_a_line(write, separator):
    assert list(read_lines(write(f"a{separator}b\nc\n".encode()))) == [f"a{separator}b", "c"]


def test_windows_line_ends_and_byte_order_mark_are_removed_and_counted(write):
    counts = TextCounts()
    path = write("\ufeffa\r\nb\nc\ufeff\r\nd\r".encode())
    assert list(read_lines(path, counts=counts)) == ["a", "b", "c\ufeff", "d"]
    assert counts == TextCounts(lines=4, crlf_ends=3, final_returns=1, byte_order_marks=1)
    assert counts.changes() == [
        "2 Windows line ends (CR LF) read as newlines",
        "1 carriage returns at the end of a file removed",
        "1 byte order marks removed",
    ]


@pytest.mark.parametrize(
    "content, lines",
    [
        (b"", []),
        (b"\n", [""]),
        (b"\n\n", ["", ""]),
        (b"a", ["a"]),
        (b"\xef\xbb\xbf", []),
        (b"a\n\r", ["a"]),
        (b"\r\n", [""]),
    ],
)
def test_edges(write, content, lines):
    counts = TextCounts()
    assert list(read_lines(write(content), counts=counts)) == lines
    assert counts.lines == len(lines)


@pytest.mark.parametrize("block_bytes", [3, 1000])
@pytest.mark.parametrize(
    "content, line, offset, wrong",
    [
        (b"good\nb\xe4d\n", 2, 6, "e4 64"),
        (b"good\n\nx\xff", 3, 7, "ff"),
        ("ä\n".encode() + b"cut \xe2\x82", 2, 7, "e2 82"),
        (b"\xed\xa0\x80\n", 1, 0, "ed"),  # a surrogate
    ],
)
def test_invalid_utf8_names_file_line_and_offset(write, content, line, offset, wrong, block_bytes):
    path = write(content)
    with pytest.raises(UserError) as caught:
        for block in read_blocks(path, block_bytes):
            decode_block(block, path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}, byte offset {offset}: not valid UTF-8 (bytes {wrong.split()[0]}")
    assert "iconv -f ITS-ENCODING -t UTF-8" in message


def test_utf16_is_recognised(write):
    with pytest.raises(UserError, match=r"line 1, byte offset 0: not valid UTF-8 .*iconv -f UTF-16 -t UTF-8"):
        list(read_lines(write("hello\n".encode("utf-16"))))


@pytest.mark.parametrize(
    "content, line, offset, code",
    [
        (b"a\nb\0c\n", 2, 3, "0000"),
        (b"a\rb\n", 1, 1, "000D"),
        (b"a\r\nb\r\r\n", 2, 4, "000D"),
        ("ä\u0085b\n".encode(), 1, 2, "0085"),
        (b"\xef\xbb\xbfa\x1cb", 1, 4, "001C"),
        (b"tab\tis fine\n\x7f", 2, 12, "007F"),
    ],
)
def test_control_characters_are_refused_or_become_spaces(write, content, line, offset, code):
    path = write(content)
    with pytest.raises(UserError, match=rf"line {line}, byte offset {offset}: control character U\+{code}"):
        list(read_lines(path))
    counts = TextCounts()
    lines = list(read_lines(path, "space", counts))
    assert counts.control_characters == 1
    assert counts.lines == len(lines) == line
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(lines))
    assert " " in lines[line - 1]


def test_gzip_and_standard_input(write, monkeypatch):
    assert list(read_lines(write(gzip.compress("ä\nb\n".encode()), "text.gz"))) == ["ä", "b"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ä\r\nb".encode())))
    assert list(read_lines("-")) == ["ä", "b"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ok\n\xff\n")))
    with pytest.raises(UserError, match=r"^standard input, line 2, byte offset 3: not valid UTF-8"):
        list(read_lines("-"))


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"word\n" * 1000, mtime=0)[:-20]])
def test_broken_gzip(write, content):
    with pytest.raises(UserError, match=r"text\.gz: not a complete gzip file"):
        list(read_lines(write(content, "text.gz")))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}/none: no such file; .*ls {tmp_path}"):
        list(read_lines(f"{tmp_path}/none"))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_lines(str(tmp_path)))


def test_endless_line_is_refused(write, monkeypatch):
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 2**20)
    with pytest.raises(UserError, match=r"line 2 is longer than 1 MiB"):
        list(read_lines(write(b"short\n" + b"x" * (2 * 2**20))))


def test_errors_count_from_the_blocks_place_in_the_file():
    block = LineBlock(b"a\nb\0\n", first_line=11, first_byte=1000)
    with pytest.raises(UserError, match=r"line 12, byte offset 1003: control character"):
        decode_block(block, "x")
