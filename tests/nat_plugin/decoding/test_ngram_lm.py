"""Scoring with a back-off model, against a plain dictionary of n-grams."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.decoding.arpa import read_arpa, write_arpa
from nat_plugin.decoding.ngram_lm import NgramLm
from nat_plugin.decoding.ngram_lm_file import write_arrays
from nat_plugin.decoding.ngram_tables import NgramTable, NgramTables
from plugin_common.errors import UserError

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "b", "ß", "d"]
MODEL = """\
\\data\\
ngram 1=6
ngram 2=5
ngram 3=3

\\1-grams:
-99 <s> -0.3
-1.0 </s>
-1.5 <unk> -0.05
-0.6 ▁a -0.2
-0.7 b -0.1
-0.9 ß

\\2-grams:
-0.2 <s> ▁a -0.15
-0.3 ▁a b -0.11
-0.4 b </s>
-0.5 b ▁a
-0.25 b <unk> -0.02

\\3-grams:
-0.1 <s> ▁a b
-0.12 ▁a b ▁a
-0.13 b <unk> ß

\\end\\
"""
ARRAYS = ("words", "keys", "log_probs", "next_states", "backoffs", "suffixes")


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(MODEL, encoding="utf-8")
    return path


def plain_log10(model: NgramTables, context: tuple[str, ...], word: str) -> float:
    """The definition of a back-off model, n-gram by n-gram."""
    found = {
        tuple(model.text(n, row).split()): (table.log10_probs[row], table.log10_backoffs[row])
        for n, table in enumerate(model.orders, start=1)
        for row in range(len(table))
    }
    total = 0.0
    while (*context, word) not in found:
        total += found.get(context, (0, 0))[1]
        context = context[1:]
    return float(total + found[(*context, word)][0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(SYMBOLS[3:]), max_size=6), min_size=1, max_size=5))
def test_scores_are_those_of_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.arpa"
    path.write_text(MODEL, encoding="utf-8")
    model = read_arpa(str(path))
    lm = NgramLm.from_file(path, SYMBOLS)
    width = max(map(len, texts))
    padded = [[*text, *["</s>"] * (width + 1 - len(text))] for text in texts]
    states = lm.start(len(texts))
    contexts = [("<s>",) for _ in texts]
    for column in range(width + 1):
        words = [row[column] for row in padded]
        expected = []
        for row, word in enumerate(words):
            known = word if word in model.vocabulary else "<unk>"
            expected.append(plain_log10(model, contexts[row][-2:], known) * np.log(10))
            contexts[row] = (*contexts[row], known)
        ends = [plain_log10(model, context[:-1][-2:], "</s>") * np.log(10) for context in contexts]
        assert lm.end(states) == pytest.approx(ends, abs=1e-5)
        log_probs, states = lm.score(states, np.array([SYMBOLS.index(word) for word in words]))
        assert log_probs == pytest.approx(expected, abs=1e-5)


def test_states_are_as_short_as_they_may_be(arpa: Path) -> None:
    """What follows ß or d does not depend on what stood before: one state for all, so that prefixes share look-ups."""
    lm = NgramLm.from_file(arpa, SYMBOLS)
    _, after_a = lm.score(lm.start(1), np.array([4]))
    _, forgotten = lm.score(np.array([lm.start(1)[0], after_a[0]]), np.array([6, 6]))
    assert forgotten.tolist() == [0, 0]
    assert after_a[0] != 0


def test_the_npz_form_scores_alike(arpa: Path, tmp_path: Path) -> None:
    lm = NgramLm.from_file(arpa, SYMBOLS)
    with (tmp_path / "lm.npz").open("wb") as stream:
        write_arrays(stream, lm)
    loaded = NgramLm.from_file(tmp_path / "lm.npz", SYMBOLS)
    assert loaded.order == 3
    for name in ARRAYS:
        assert (getattr(loaded, name) == getattr(lm, name)).all()


def test_the_order_of_the_dictionary_does_not_matter(arpa: Path) -> None:
    other = [*SYMBOLS[:4], *reversed(SYMBOLS[4:]), "more"]
    text = ["▁a", "b", "▁a", "ß", "b", "<unk>", "ß", "</s>"]
    totals = []
    for symbols in (SYMBOLS, other):
        lm, total = NgramLm.from_file(arpa, symbols), 0.0
        state = lm.start(1)
        for word in text:
            log_prob, state = lm.score(state, np.array([symbols.index(word)]))
            total += float(log_prob[0])
        totals.append(total)
    assert totals[0] == totals[1] < 0


def test_without_unk_the_least_probable_unigram_stands_in(
    arpa: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = MODEL.replace("-1.5 <unk> -0.05\n", "").replace("-0.25 b <unk> -0.02\n", "").replace("-0.13 b <unk> ß\n", "")
    text = text.replace("1=6", "1=5").replace("2=5", "2=4").replace("3=3", "3=2")
    arpa.write_text(text, encoding="utf-8")
    lm = NgramLm.from_file(arpa, SYMBOLS)
    assert lm.score(np.zeros(2, dtype=np.int64), np.array([7, 3]))[0] == pytest.approx(-1.0 * np.log(10), abs=1e-5)
    assert "has no <unk>" in caplog.text


def test_words_outside_the_dictionary_are_left_out_and_counted(arpa: Path, caplog: pytest.LogCaptureFixture) -> None:
    symbols = [symbol for symbol in SYMBOLS if symbol != "b"]
    with caplog.at_level(logging.INFO):
        lm = NgramLm.from_file(arpa, symbols)
    assert "left out 1 of 6 words" in caplog.text
    assert "left out 7 n-grams with words outside the dictionary" in caplog.text
    assert "2 of the dictionary's 7 symbols score as <unk>" in caplog.text  # <pad> and d
    log_probs, _ = lm.score(lm.start(1), np.array([symbols.index("▁a")]))
    assert log_probs == pytest.approx([-0.2 * np.log(10)], abs=1e-6)


def test_a_model_over_words_is_refused(arpa: Path) -> None:
    with pytest.raises(UserError) as caught:
        NgramLm.from_file(arpa, ["<s>", "<pad>", "</s>", "<unk>", "b", "x", "y"])
    assert f"{arpa}: 2 of its 3 words are not in the dictionary ('▁a', 'ß', …)" in str(caught.value)
    assert "expected a model over the dictionary's pieces" in str(caught.value)


def test_upper_case_special_words_are_understood(arpa: Path) -> None:
    expected = NgramLm.from_file(arpa, SYMBOLS)
    arpa.write_text(MODEL.replace("<unk>", "<UNK>").replace("<s>", "<S>").replace("</s>", "</S>"), encoding="utf-8")
    found = NgramLm.from_file(arpa, SYMBOLS)
    for name in ARRAYS:
        assert (getattr(found, name) == getattr(expected, name)).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.2 <s> ▁a -0.15", "-0.2 ß ß -0.15", "has the 3-gram '<s> ▁a b' but not what it extends"),
        ("-0.5 b ▁a", "-0.5 b </s>", "has the 2-gram 'b </s>' twice"),
        ("-1.0 </s>", "-1.0 x", "'</s>' is not among the unigrams"),
    ],
)
def test_incomplete_models_are_refused(arpa: Path, old: str, new: str, message: str) -> None:
    assert old in MODEL
    arpa.write_text(MODEL.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        NgramLm.from_file(arpa, SYMBOLS)
    assert message in str(caught.value) and str(arpa) in str(caught.value)


def test_a_model_without_ends_of_sentences_is_refused(arpa: Path) -> None:
    arpa.write_text("\\data\\\nngram 1=2\n\\1-grams:\n-0.3 b\n-0.4 <unk>\n\\end\\\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no unigram </s>"):
        NgramLm.from_file(arpa, SYMBOLS)


def test_an_order_1_model_needs_no_contexts(arpa: Path) -> None:
    arpa.write_text("\\data\\\nngram 1=3\n\\1-grams:\n-0.3 b -0.7\n-0.4 <unk>\n-1 </s>\n\\end\\\n", encoding="utf-8")
    lm = NgramLm.from_file(arpa, SYMBOLS)
    states = lm.start(2)
    log_probs, states = lm.score(states, np.array([5, 4]))
    assert log_probs == pytest.approx(np.array([-0.3, -0.4]) * np.log(10), abs=1e-6)
    assert lm.end(states) == pytest.approx(np.array([-1.0, -1.0]) * np.log(10), abs=1e-6)  # no back-off to pay


def saved(arpa: Path, tmp_path: Path) -> Path:
    path = tmp_path / "lm.npz"
    with path.open("wb") as stream:
        write_arrays(stream, NgramLm.from_file(arpa, SYMBOLS))
    return path


def test_npz_files_for_another_dictionary_damaged_or_foreign_are_refused(arpa: Path, tmp_path: Path) -> None:
    path = saved(arpa, tmp_path)
    swapped = [*SYMBOLS[:4], SYMBOLS[5], SYMBOLS[4], *SYMBOLS[6:]]
    with pytest.raises(
        UserError, match=r"was made for another dictionary \(8 symbols, this one has 8; symbol 4 is '▁a', not"
    ):
        NgramLm.from_file(path, swapped)
    with pytest.raises(UserError, match="8 symbols, this one has 9"):
        NgramLm.from_file(path, [*SYMBOLS, "more"])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text", whole[:200] + bytes([whole[200] ^ 255]) + whole[201:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"lm.npz: .*make it again with `nat ngram-lm"):
            NgramLm.from_file(path, SYMBOLS)
    np.savez(path, other=np.arange(3))
    with pytest.raises(UserError, match="no model of `nat ngram-lm`"):
        NgramLm.from_file(path, SYMBOLS)
    np.savez(path, head=np.array([object()]), allow_pickle=True)
    with pytest.raises(UserError, match="no model of `nat ngram-lm`"):
        NgramLm.from_file(path, SYMBOLS)
    with pytest.raises(UserError, match="no such file"):
        NgramLm.from_file(tmp_path / "none.npz", SYMBOLS)


@pytest.mark.parametrize("name", ARRAYS)
def test_npz_files_whose_numbers_lead_nowhere_are_refused(arpa: Path, tmp_path: Path, name: str) -> None:
    path = saved(arpa, tmp_path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[name][-1] = -(10**6) if arrays[name].dtype.kind == "i" else np.nan
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="its arrays do not fit each other"):
        NgramLm.from_file(path, SYMBOLS)


def test_npz_files_with_positive_log_probabilities_are_refused(arpa: Path, tmp_path: Path) -> None:
    path = saved(arpa, tmp_path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["log_probs"][-2:] = 0.25
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"lm.npz: 2 log-probabilities are positive, the first 0.25; .*make it again"):
        NgramLm.from_file(path, SYMBOLS)


def test_a_dictionary_without_special_symbols_is_refused(arpa: Path) -> None:
    with pytest.raises(UserError, match=r"2 problems:[^$]*has no symbol </s>[^$]*has no symbol <unk>"):
        NgramLm.from_file(arpa, ["▁a", "b"])
    with pytest.raises(UserError, match="1 symbols are there twice"):
        NgramLm.from_file(arpa, [*SYMBOLS, "b"])


def test_random_models_round_trip_and_score_as_defined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vocabulary = ["<s>", "</s>", "<unk>", *"abcdefgh"]
    orders = [NgramTable(np.arange(11, dtype=np.int32)[:, None], *random_logs(rng, 11))]
    for n in (2, 3, 4):
        contexts = orders[-1].words[rng.permutation(len(orders[-1]))[: 4 * n]]
        words = np.array([[*context, word] for context in contexts for word in rng.permutation(11)[:3]], dtype=np.int32)
        orders.append(NgramTable(words, *random_logs(rng, len(words))))
    model = NgramTables(vocabulary, orders)
    with (tmp_path / "lm.arpa.gz").open("wb") as stream:
        write_arpa(stream, model, compress=True)
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *"hgfedcba"]
    lm = NgramLm.from_file(tmp_path / "lm.arpa.gz", symbols)
    seen = rng.integers(3, 11, size=(40, 8))
    states = lm.start(40)
    for column in range(8):
        words = [vocabulary[i] for i in seen[:, column]]
        log_probs, states = lm.score(states, np.array([symbols.index(word) for word in words]))
        for row, word in enumerate(words):
            context = ("<s>", *(vocabulary[i] for i in seen[row, :column]))[-3:]
            expected = min(plain_log10(model, context, word), 0.0) * np.log(10)
            assert log_probs[row] == pytest.approx(expected, abs=1e-4)


def random_logs(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    return -rng.random(rows).astype(np.float32) * 3, rng.normal(size=rows).astype(np.float32) / 3
