"""Reading a corpus and counting its pieces."""

import gzip
import hashlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from nat_plugin.pmlm.corpus_pieces import Corpus, count_pieces
from plugin_common.errors import UserError


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Letters are their own pieces, ``ab`` is one; ``[MASK]`` is special."""
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "ab": 3, "[MASK]": 4, "[": 5, "]": 6, "M": 7, "##b": 8}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[MASK]"])
    return tokenizer


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_counts_over_several_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [write(tmp_path / "1", "ab a\n\nab\r\n"), write(tmp_path / "2", "b ä")]
    corpus = Corpus(files)
    counted = count_pieces(tokenizer, corpus)
    assert counted.counts.tolist() == [1, 1, 1, 2, 0, 0, 0, 0, 0]
    assert counted.characters == set("ab ä")
    assert [(file.path, file.lines) for file in corpus.files] == [(str(files[0]), 3), (str(files[1]), 1)]
    assert corpus.files[0].sha256 == hashlib.sha256(files[0].read_bytes()).hexdigest()


def test_control_symbols_in_text_are_text_and_nothing_is_cut_or_padded(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8, pad_id=2)
    counted = count_pieces(tokenizer, Corpus([write(tmp_path / "1", "[M] [MASK] a a a a a\na\n")]))
    assert counted.counts.tolist() == [1, 6, 0, 0, 0, 2, 2, 1, 0]


def test_gzip_is_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(b"ab\nab\n"))
    corpus = Corpus([path])
    assert count_pieces(tokenizer, corpus).counts[3] == 2
    assert corpus.files[0].sha256 == hashlib.sha256(b"ab\nab\n").hexdigest()


def test_text_over_several_blocks_is_counted_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    counted = count_pieces(tokenizer, Corpus([write(tmp_path / "1", "ab a\n" * 150_000)]))
    assert counted.counts[[1, 3]].tolist() == [150_000, 150_000]


def test_invalid_utf8_names_file_and_line(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "latin1.de"
    path.write_bytes(b"ab\n\xe4\n")
    with pytest.raises(UserError, match=r"latin1\.de, line 2, .*not valid UTF-8"):
        count_pieces(tokenizer, Corpus([path]))


def test_control_characters_stop_or_become_spaces(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "1", "ab\na\x00b\n")
    with pytest.raises(UserError, match=r"line 2, .*U\+0000"):
        count_pieces(tokenizer, Corpus([path]))
    corpus = Corpus([path], "space")
    assert count_pieces(tokenizer, corpus).counts[[1, 2, 3]].tolist() == [1, 1, 1]
    assert corpus.files[0].changes == ("1 control characters replaced by spaces",)


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_corpus_without_text_is_refused(tmp_path: Path, tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UserError, match="no text in it"):
        count_pieces(tokenizer, Corpus([write(tmp_path / "empty", text)]))


def test_all_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)2 problems:.*/x: no such file.*/y: no such file"):
        Corpus([tmp_path / "x", write(tmp_path / "here", "a"), tmp_path / "y"]).check()
