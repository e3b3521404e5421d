import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nid_plugin.documents import text_reader
from nid_plugin.documents.document import Oversized
from nid_plugin.documents.text_reader import read_jsonl, read_txt_file, read_txt_paragraphs
from plugin_common.errors import UserError


def test_jsonl_gives_texts_and_lines(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "one", "n": 1}\n\n{"text": "\\u00e4 \\ud83d\\ude00"}\n')
    assert list(read_jsonl(str(file), "text")) == [("one", f"{file}:1"), ("ä 😀", f"{file}:3")]


def test_jsonl_gives_what_is_no_text_as_it_is(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"t": null}\n{"t": 3}\n{"other": 1}\n{"t": "\xff"}\n{"t": "\\ud800"}\n{"t": NaN}\n')
    cells = [cell for cell, _ in read_jsonl(str(file), "t")]
    assert cells[:3] == [None, 3, None]
    assert cells[3] == b'{"t": "\xff"}\n'
    assert cells[4] == "\ud800"
    assert cells[5] != cells[5]


@pytest.mark.parametrize("line", [b"[1]\n", b'{"text": "cut\n', b"text\n"])
def test_jsonl_names_a_broken_line(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "one"}\n' + line)
    with pytest.raises(UserError, match=r"line 2: .*one JSON object a line is expected"):
        list(read_jsonl(str(file), "text"))


def test_jsonl_lists_the_fields_where_the_text_is_missing(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"body": "one", "id": 1}\n')
    with pytest.raises(UserError, match="no field 'text'; --text-column takes one of 'body', 'id'"):
        list(read_jsonl(str(file), "text"))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_text_file_is_one_document(tmp_path, ending):
    data = "\ufeffone\r\n\r\ntwo ä\n".encode()
    file = tmp_path / f"a.txt{ending}"
    file.write_bytes(gzip.compress(data) if ending else data)
    assert list(read_txt_file(str(file))) == [(data, str(file))]


def test_text_files_and_paragraphs_of_any_size_need_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text_reader, "MAX_DOCUMENT_BYTES", 10)
    file = tmp_path / "a.txt"
    file.write_bytes(b"line 1\nline 2\n\nshort\n")
    assert isinstance(next(read_txt_file(str(file)))[0], Oversized)
    (first, _), second = read_txt_paragraphs(str(file))
    assert isinstance(first, Oversized)
    assert second == (b"short", f"{file}:4")


def test_paragraphs(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\n \t\none\n two\r\n\r\n\nthree\r\n\n")
    assert list(read_txt_paragraphs(str(file))) == [(b"one\n two", f"{file}:3"), (b"three", f"{file}:7")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \r.")), max_size=20))
def test_paragraphs_hold_all_lines_that_are_not_blank(tmp_path, lines):
    file = tmp_path / "a.txt"
    file.write_bytes("\n".join(lines).encode())
    found = [line.strip() for cell, _ in read_txt_paragraphs(str(file)) for line in cell.decode().split("\n")]
    assert found == [line.strip() for line in lines if line.strip()]


def test_no_such_file(tmp_path):
    for read in (read_txt_file, read_txt_paragraphs, lambda path: read_jsonl(path, "text")):
        with pytest.raises(UserError, match=r"none\.txt: cannot be read \(No such file"):
            list(read(str(tmp_path / "none.txt")))
