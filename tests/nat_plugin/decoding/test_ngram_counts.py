"""Counting n-grams, against a Counter."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.decoding.ngram_counts import NgramCounts, count_ngrams
from plugin_common.errors import UserError


def counted(lines: list[str], order: int) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        words = ["<s>", *line.split(), "</s>"]
        for n in range(1, order + 1):
            found.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return found


def as_counter(counts: NgramCounts) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    before: list[tuple[str, ...]] = [()]
    for order in counts.orders:
        ngrams = [
            (*before[context], counts.vocabulary[word]) for context, word in zip(order.context, order.word, strict=True)
        ]
        found.update({ngram: int(count) for ngram, count in zip(ngrams, order.count, strict=True) if count})
        before = ngrams
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "ß", "<unk>", "▁d"]), max_size=7).map(" ".join), min_size=1, max_size=12
    ),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_counts_are_those_of_a_counter(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], order: int, chunk_words: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "counts.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if not "".join(lines):
        with pytest.raises(UserError, match="no words"):
            count_ngrams([str(path)], order)
        return
    counts = count_ngrams([str(path)], order, chunk_words=chunk_words)
    assert as_counter(counts) == counted(lines, order)
    assert counts.sentences == len(lines) and counts.words == sum(len(line.split()) for line in lines)


def test_several_files_and_many_chunks_give_the_sum(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(map(str, rng.integers(0, 30, rng.integers(0, 12)))) for _ in range(600)]
    paths = [tmp_path / "one", tmp_path / "two"]
    paths[0].write_text("\n".join(lines[:250]) + "\n")
    paths[1].write_text("\n".join(lines[250:]))  # without a last newline
    reported: list[int] = []
    counts = count_ngrams(list(map(str, paths)), 3, on_lines=reported.append, chunk_words=100)
    assert as_counter(counts) == counted(lines, 3)
    assert sum(reported) == 600


@pytest.mark.parametrize("line", ["a <s> b", "</s>", "a </s>"])
def test_reserved_words_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "text"
    path.write_text(f"a<s>b </s>x is a word\n{line}\n")
    with pytest.raises(UserError, match=r"text, line 2: holds <s> or </s>"):
        count_ngrams([str(path)], 2)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a b\n\xff\n")
    with pytest.raises(UserError, match="text, line 2, byte offset 4: not valid UTF-8"):
        count_ngrams([str(path)], 2)
