"""Reading and writing ARPA files: the variations of tools, and what is wrong with a file."""

import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest

from nat_plugin.decoding import arpa
from nat_plugin.decoding.arpa import read_arpa, write_arpa
from plugin_common.errors import UserError

MODEL = """\
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.3
-1\t</s>\t0
-0.6\ta\t-0.2
-0.7\tb\t0

\\2-grams:
-0.2\t<s> a
-0.3\ta b

\\end\\
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lm.arpa"


def test_what_is_written_is_what_was_read(path: Path) -> None:
    path.write_text(MODEL)
    model = read_arpa(str(path))
    assert model.vocabulary == ["<s>", "</s>", "a", "b"]
    assert model.orders[1].words.tolist() == [[0, 2], [2, 3]]
    assert model.orders[0].log10_backoffs.tolist() == pytest.approx([-0.3, 0, -0.2, 0])
    stream = io.BytesIO()
    write_arpa(stream, model, compress=False)
    assert stream.getvalue().decode() == MODEL


def test_compressed_files_hold_the_same_and_are_reproducible(path: Path) -> None:
    path.write_text(MODEL)
    model = read_arpa(str(path))
    packed = [io.BytesIO(), io.BytesIO()]
    for stream in packed:
        write_arpa(stream, model, compress=True)
    assert packed[0].getvalue() == packed[1].getvalue()
    assert gzip.decompress(packed[0].getvalue()).decode() == MODEL


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\nmore of it\n\n" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\t", "  "),
        lambda text: text.replace("-99\t", "-inf\t"),
        lambda text: text.replace("-1\t</s>\t0", "-1\t</s>").replace("b\t0", "b"),
        lambda text: text.replace("ngram 1=4", "ngram  1 = 4"),
        lambda text: text.replace("-0.6\t", "-6.0e-1\t"),
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace("\n\n", "\n"),
    ],
    ids=["comments", "crlf", "spaces", "inf", "no back-off", "spaced counts", "exponent", "no last newline", "dense"],
)
def test_variations_of_tools_read_alike(path: Path, change, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(MODEL)
    expected = read_arpa(str(path))
    path.write_text(change(MODEL), newline="")
    for block_bytes in (2**22, 20):  # also with block borders anywhere
        monkeypatch.setattr(arpa, "_BLOCK_BYTES", block_bytes)
        found = read_arpa(str(path))
        assert found.vocabulary == expected.vocabulary
        for table, other in zip(found.orders, expected.orders, strict=True):
            assert (table.words == other.words).all()
            assert np.array_equal(table.log10_probs, other.log10_probs)
            assert np.array_equal(table.log10_backoffs, other.log10_backoffs)


def test_pieces_with_unicode_spaces_stay_whole(path: Path) -> None:
    piece = "a\u00a0b\u2028c"
    path.write_text(
        MODEL.replace("a\t-0.2", f"{piece}\t-0.2").replace("<s> a", f"<s> {piece}").replace("a b", f"{piece} b")
    )
    assert read_arpa(str(path)).vocabulary == ["<s>", "</s>", piece, "b"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", "no line \\data\\; expected an n-gram model in ARPA format"),
        ("\\end\\\n", "", "ends without \\end\\; the file is incomplete"),
        ("ngram 2=2", "ngram 3=2", "line 3: expected `ngram 2=COUNT`, found 'ngram 3=2'"),
        ("ngram 1=4\nngram 2=2\n", "", "line 3: expected lines `ngram 1=COUNT`"),
        ("ngram 1=4", "ngram 1=5", "lines 5 to 11: \\1-grams: has 4 n-grams, the header says 5"),
        ("ngram 2=2", "ngram 2=1", "lines 11 to 15: \\2-grams: has 2 n-grams, the header says 1"),
        ("\\2-grams:", "\\3-grams:", "line 11: expected \\2-grams:, found '\\\\3-grams:'"),
        ("\\2-grams:", "\\end\\", "line 11: expected \\2-grams:, found '\\\\end\\\\'"),
        ("\\end\\", "\\3-grams:", "line 15: expected \\end\\, found '\\\\3-grams:'"),
        ("\\end\\\n", "\\end\\\nmore\n", "line 16: found text after \\end\\"),
        ("-0.3\ta b", "-0.3\ta", "line 13: expected a log-probability, 2 words, found 2 fields"),
        ("-0.3\ta b", "-0.3\ta b -0.1", "line 13: expected a log-probability, 2 words, found 4 fields"),
        ("-0.6\ta\t-0.2", "-0.6", "line 8: expected a log-probability, 1 words and perhaps a back-off weight, found 1"),
        ("-0.6\ta", "-0,6\ta", "line 8: expected a number, found '-0,6'"),
        ("a\t-0.2", "a\tnan", "line 8: expected a number, found 'nan'"),
        ("-0.7\tb", "0.7\tb", "line 9: log-probability 0.7 is positive; expected base-10 logarithms"),
        ("a b", "a x", "line 13: 'x' is not among the unigrams"),
        ("-0.7\tb", "-0.7\ta", "line 9: the unigram 'a' stands there twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(path: Path, old: str, new: str, message: str) -> None:
    assert MODEL.count(old) == 1
    path.write_text(MODEL.replace(old, new))
    with pytest.raises(UserError) as caught:
        read_arpa(str(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_words_that_are_no_utf8_are_refused(path: Path) -> None:
    path.write_bytes(MODEL.replace("b", "\u00e4").encode("latin-1"))
    with pytest.raises(UserError, match=re.escape("unigram 4 (b'\\xe4') is not UTF-8")):
        read_arpa(str(path))


def test_files_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_arpa(str(path))
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no line"):
        read_arpa(str(path))
    packed = path.with_name("lm.arpa.gz")
    packed.write_bytes(gzip.compress(MODEL.encode())[:-20])
    with pytest.raises(UserError, match="not a complete gzip file"):
        read_arpa(str(packed))
