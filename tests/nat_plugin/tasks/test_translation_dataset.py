from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.tasks.translation_dataset import TranslationDataset, line_list, truncate
from tests.toy import toy_dictionary

PAD, EOS = 1, 2


class Rows(torch.utils.data.Dataset):
    """Sentences in memory in the form that fairseq's dataset wrappers ask for."""

    def __init__(self, lengths: list[int]) -> None:
        self.rows = [torch.cat([torch.arange(4, 4 + length) % 60 + 4, torch.tensor([EOS])]) for length in lengths]
        self.sizes = np.array([len(row) for row in self.rows], dtype=np.int64)
        self.supports_prefetch = False

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


def dataset(source: list[int], target: list[int], max_source: int = 1000) -> TranslationDataset:
    dictionary = toy_dictionary()
    src, tgt = Rows(source), Rows(target)
    pairs = LanguagePairDataset(src, src.sizes, dictionary, tgt, tgt.sizes, dictionary, shuffle=False)
    return TranslationDataset.from_pairs(pairs, max_source=max_source)


def test_batches_are_right_padded_pairs() -> None:
    batch = dataset([3, 1], [1, 2]).collater([dataset([3, 1], [1, 2])[i] for i in (0, 1)])
    assert batch["net_input"]["src_tokens"].tolist() == [[8, 9, 10, EOS], [8, EOS, PAD, PAD]]
    assert batch["net_input"]["src_lengths"].tolist() == [4, 2]
    assert "prev_output_tokens" not in batch["net_input"]
    targets = dict(zip(batch["id"].tolist(), batch["target"].tolist(), strict=True))
    assert targets == {0: [8, EOS, PAD], 1: [8, 9, EOS]}


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    max_sentences=st.none() | st.integers(1, 20),
    multiple=st.integers(1, 16),
)
def test_every_sentence_is_in_one_batch(lengths: list[int], max_sentences: int | None, multiple: int) -> None:
    made = dataset(lengths, lengths)
    batches = made.batch_by_size(
        made.ordered_indices(), max_tokens=200, max_sentences=max_sentences, required_batch_size_multiple=multiple
    )
    assert sorted(int(index) for batch in batches for index in batch) == list(range(len(lengths)))


def test_over_long_sources_are_cut_and_still_end() -> None:
    made = dataset([2, 9, 5, 0], [1, 1, 1, 1], max_source=6)
    assert [made[i]["source"].tolist() for i in range(4)] == [
        [8, 9, EOS], [8, 9, 10, 11, 12, EOS], [8, 9, 10, 11, 12, EOS], [EOS]
    ]  # fmt: skip
    assert made.src_sizes.tolist() == [3, 6, 6, 1]


def test_nothing_to_cut_leaves_the_dataset_alone() -> None:
    rows = Rows([2, 3])
    assert truncate(rows, 4, EOS) is rows
    empty = Rows([])
    assert truncate(empty, 4, EOS) is empty


@pytest.mark.parametrize(
    ("indices", "shown"),
    [
        ([0], "line 1"),
        ([2, 16], "lines 3, 17"),
        (list(range(10)), "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
        (list(range(100, 115)), "lines 101, 102, 103, 104, 105, 106, 107, 108, 109, 110 and 5 more"),
    ],
)
def test_lists_of_lines_stay_short(indices: list[int], shown: str) -> None:
    assert line_list(np.array(indices)) == shown
    assert line_list(np.array(indices[:1]), first_line=6) == f"line {indices[0] + 6}"


def test_each_epoch_makes_its_batches_anew() -> None:
    made: Any = dataset([1], [1])
    assert made.can_reuse_epoch_itr_across_epochs is False
