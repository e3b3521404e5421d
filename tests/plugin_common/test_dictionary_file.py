"""dict.txt is read as fairseq reads it, and its faults are named by line."""

from pathlib import Path

import pytest
from fairseq.data import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, is_usable_symbol, read_dictionary, write_dictionary
from plugin_common.errors import UserError

symbols = st.lists(
    st.text(min_size=1, max_size=6).filter(is_usable_symbol).filter(lambda symbol: symbol not in FAIRSEQ_SYMBOLS),
    unique=True,
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(symbols=symbols, data=st.data())
def test_written_dictionary_is_fairseqs_and_ours(
    tmp_path_factory: pytest.TempPathFactory, symbols: list[str], data: st.DataObject
) -> None:
    entries = [(symbol, data.draw(st.integers(0, 10**12))) for symbol in symbols]
    path = tmp_path_factory.mktemp("dictionary") / "dict.txt"
    write_dictionary(path, entries)
    assert read_dictionary(path) == entries
    dictionary = Dictionary.load(str(path))
    assert dictionary.symbols == [*FAIRSEQ_SYMBOLS, *symbols]
    assert dictionary.count[4:] == [count for _, count in entries]
    for row, symbol in enumerate(dictionary.symbols):
        assert dictionary.encode_line(f"{symbol} {symbol}", add_if_not_exist=False).tolist() == [row, row, 2]


@pytest.mark.parametrize("symbol", ["", "a b", "a\u00a0b", "\u3000", "a\x85", "\x1c", "a\u2028"])
def test_symbols_that_token_text_would_lose_are_unusable(symbol: str) -> None:
    assert not is_usable_symbol(symbol)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1\nb\n", "line 2: expected `symbol count`, found 'b'"),
        ("a 1\n\nb 2\n", "line 2: expected `symbol count`, found ''"),
        ("a 1\nb x\n", "line 2: expected `symbol count`, found 'b x'"),
        ("a -1\n", "line 1: expected"),
        ("a ²\n", "line 1: expected"),
        ("a b 1\n", "line 1: expected"),
        ("a\u2003b 1\n", "line 1: expected"),
        ("a 1\n<pad> 1\n", "line 2: <pad> is added by fairseq itself"),
        ("a 1\nb 1\na 2\n", "line 3: 'a' stands in line 1 already"),
    ],
)
def test_faulty_lines_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "dict.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_dictionary(path)
    assert f"{path}, {problem}" in str(error.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    path.write_text("x\n" * 12, encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)line 5: .*: 7 more lines like these"):
        read_dictionary(path)


def test_missing_and_wrongly_encoded_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dict\.txt: No such file"):
        read_dictionary(tmp_path / "dict.txt")
    (tmp_path / "dict.txt").write_bytes(b"a 1\n\xff 1\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_dictionary(tmp_path / "dict.txt")
