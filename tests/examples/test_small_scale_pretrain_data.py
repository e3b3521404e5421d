"""Texts as blocks for a masked LM: held-out lines, shares, order and masks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.ctc_nat_small_scale.pretrain_data import (
    BOS,
    EOS,
    Blocks,
    MaskBySeed,
    blocks_of,
    draw_blocks,
    hold_out,
    smoothed_shares,
    tokenised_lines,
)
from tests.toy_pretraining import BLOCK, make_inputs, read

from transformers import AutoTokenizer, DataCollatorForLanguageModeling  # isort: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("pretraining-data"))


def lines_in(blocks: np.ndarray) -> list[bytes]:
    """The lines that blocks without their ``<s>`` hold, the last one perhaps cut off."""
    stream = blocks[:, 1:].reshape(-1)
    return [part.tobytes() for part in np.split(stream, np.flatnonzero(stream == EOS) + 1) if len(part)]


@pytest.mark.parametrize("seed", [1, 2])
def test_held_out_lines_are_in_no_training_block(home: Path, seed: int) -> None:
    language = read(home, "en", seed=seed)
    train, valid = lines_in(language.train), lines_in(language.valid)
    assert not set(train[:-1]) & set(valid[:-1])
    assert language.report["lines_repeating_validation_dropped"] > 0  # the text has repeated lines
    whole = tokenised_lines(home / "en.txt", home / "shape", home / ".tokens")
    assert set(train[:-1]) | set(valid[:-1]) <= set(lines_in(np.insert(whole, 0, BOS)[None]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.data())
def test_held_out_repeated_and_training_lines_are_all_lines(values: list[int], data: st.DataObject) -> None:
    count, seed = data.draw(st.integers(1, len(values))), data.draw(st.integers(0, 9))
    train, valid, repeated = hold_out([np.array([n, EOS]) for n in values], count, np.random.default_rng(seed))
    trained, held_out = [int(line[0]) for line in train], [int(line[0]) for line in valid]
    assert len(held_out) == count
    assert sorted(trained) == sorted(n for n in values if n not in held_out)
    assert not Counter(held_out) - Counter(values)
    assert len(trained) + count + repeated == len(values)


def test_blocks_begin_with_bos_and_the_report_counts(home: Path) -> None:
    language = read(home, "en")
    for blocks in (language.train, language.valid):
        assert blocks.shape[1] == BLOCK
        assert (blocks[:, 0] == BOS).all()
        assert not (blocks[:, 1:] == BOS).any()
    report = language.report
    assert report["lines"] == len((home / "en.txt").read_text().splitlines()) == 400
    assert report["tokens"] == len(tokenised_lines(home / "en.txt", home / "shape", home / ".tokens"))
    assert (report["train_blocks"], report["valid_blocks"]) == (len(language.train), len(language.valid))
    assert 0 <= report["tokens_after_last_block_dropped"] <= 2 * (BLOCK - 2)


def test_another_seed_holds_out_others_and_the_same_seed_the_same(home: Path) -> None:
    first, again, other = read(home, "en"), read(home, "en"), read(home, "en", seed=2)
    assert np.array_equal(first.train, again.train) and np.array_equal(first.valid, again.valid)
    assert lines_in(first.valid)[:-1] != lines_in(other.valid)[:-1]


def test_token_ids_are_those_of_the_tokenizer_and_made_once(home: Path, tmp_path: Path) -> None:
    text = tmp_path / "xx.txt"
    text.write_text("the house\n\n<mask> </s> green\nnot\n", encoding="utf-8")
    ids = tokenised_lines(text, home / "shape", tmp_path / "kept")
    tokenizer = AutoTokenizer.from_pretrained(str(home / "shape"))
    assert np.count_nonzero(ids == EOS) == 3  # the empty line is skipped
    assert ids.dtype == np.int32
    assert list(ids[: list(ids).index(EOS)]) == tokenizer("the house", add_special_tokens=False).input_ids
    assert tokenizer.mask_token_id not in ids
    (kept,) = (tmp_path / "kept").iterdir()
    made = kept.stat().st_mtime_ns
    assert np.array_equal(tokenised_lines(text, home / "shape", tmp_path / "kept"), ids)
    assert kept.stat().st_mtime_ns == made
    text.write_text("the houses\n", encoding="utf-8")
    assert not np.array_equal(tokenised_lines(text, home / "shape", tmp_path / "kept"), ids)


@given(st.lists(st.lists(st.integers(4, 50), max_size=9), max_size=12), st.integers(3, 9))
def test_blocks_hold_the_lines_in_order(lines: list[list[int]], block: int) -> None:
    arrays = [np.array([*line, EOS], np.int32) for line in lines]
    blocks, left = blocks_of(arrays, block)
    stream = [token for line in arrays for token in line]
    assert blocks.shape == (len(stream) // (block - 1), block)
    assert blocks[:, 1:].reshape(-1).tolist() == stream[: len(stream) - left]
    assert left < block - 1


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), st.floats(0, 1))
def test_shares_by_brute_force(sizes: list[int], exponent: float) -> None:
    powers = [(size / sum(sizes)) ** exponent for size in sizes]
    assert smoothed_shares(sizes, exponent).tolist() == pytest.approx([power / sum(powers) for power in powers])


def test_shares_at_both_ends() -> None:
    assert smoothed_shares([10, 30], 1).tolist() == pytest.approx([0.25, 0.75])
    assert smoothed_shares([10, 30], 0).tolist() == pytest.approx([0.5, 0.5])


@settings(max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.floats(0, 1), st.integers(1, 200), st.integers(0, 9))
def test_blocks_are_drawn_by_shares_each_once_before_any_twice(
    sizes: list[int], exponent: float, total: int, seed: int
) -> None:
    shares = smoothed_shares(sizes, exponent)
    order = draw_blocks(sizes, shares, total, np.random.default_rng(seed))
    assert order.shape == (total, 2)
    for language, size in enumerate(sizes):
        drawn = order[order[:, 0] == language, 1]
        assert abs(len(drawn) - shares[language] * total) <= 1
        times = np.bincount(drawn, minlength=size)
        assert len(times) == size
        assert times.max() - times.min() <= 1


def test_masks_are_only_on_ordinary_tokens(home: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(home / "shape"))
    language = read(home, "de")
    order = np.array([[0, i] for i in range(len(language.train))])
    items = Blocks([language.train], order)
    for share in (0.15, 1.0):
        collate = MaskBySeed(DataCollatorForLanguageModeling(tokenizer, mlm_probability=share), 5)
        batch = collate([items[i] for i in range(len(items))])
        ids, labels = torch.from_numpy(language.train).long(), batch["labels"]
        masked, ordinary = labels != -100, (ids != BOS) & (ids != EOS)
        assert not (masked & ~ordinary).any()
        assert torch.equal(labels[masked], ids[masked])
        assert torch.equal(batch["input_ids"][~masked], ids[~masked])
        assert masked.sum().item() / ordinary.sum().item() == pytest.approx(share, abs=0.04)
        replaced = (batch["input_ids"] == tokenizer.mask_token_id)[masked].float().mean().item()
        assert replaced == pytest.approx(0.8, abs=0.1)


def test_masks_hang_on_seed_and_place_alone(home: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(home / "shape"))
    language = read(home, "de")
    items = Blocks([language.train], np.zeros((40, 2), int))  # one block again and again
    collate = MaskBySeed(DataCollatorForLanguageModeling(tokenizer), 5)

    def masks(at: int, by: MaskBySeed) -> list[list[int]]:
        return by([items[i] for i in range(at, at + 10)])["labels"].tolist()

    first = masks(0, collate)
    assert masks(10, collate) != first
    assert masks(0, collate) == first
    assert masks(0, MaskBySeed(collate.collator, 6)) != first
