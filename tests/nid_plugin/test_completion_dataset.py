"""The datasets under fairseq's own iterators: packed batches, epochs, shards, resuming; prompts for generation."""

import itertools
import logging
import pickle
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import data_utils
from fairseq.data.iterators import EpochBatchIterator
from fairseq.tasks import FairseqTask

from nid_plugin.completion_dataset import CompletionDataset, PromptDataset
from nid_plugin.formatting import Formatter, PairFormat
from nid_plugin.tokenized_pairs import TokenizedPairs, tokenize_pairs
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_tokenizer, write_toy_pairs

TOKENIZER = make_tokenizer()
FORMATTER = Formatter(TOKENIZER, PairFormat(), "toy")
PAD = FORMATTER.vocabulary_size
BUDGET = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[TokenizedPairs]:
    """Two files, of 40 and 20 pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    written = [write_toy_pairs(folder / f"{n}.jsonl", n, seed=n) for n in (40, 20)]
    return [tokenize_pairs(str(file), FORMATTER, cache=folder / "cache") for file in written]


def _dataset(files: list[TokenizedPairs], *weights: float, limit: int | None = None, **how: Any) -> CompletionDataset:
    weights = weights or (1,) * len(files)
    return CompletionDataset(
        list(zip(files, weights, strict=True)), limit=limit, **{"shuffle": True, "name": "train", **how}
    )


def _iterator(dataset: Any, *, epoch: int = 1, **how: Any) -> EpochBatchIterator:
    """As ``trainer.get_train_iterator`` asks for it, with a new task each time, as in a new process."""
    how = {"max_tokens": BUDGET, "seed": 3, "required_batch_size_multiple": 8, **how}
    iterator = FairseqTask(Namespace()).get_batch_iterator(dataset, epoch=epoch, **how)
    iterator.persistent_workers = False  # they would wait some seconds for the garbage collector
    return iterator


def _joined(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def _ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() if batch else [] for batch in batches]


# ---- a packed batch ------------------------------------------------------------------------------------------------


def test_a_batch_is_its_documents_one_after_another(files: list[TokenizedPairs]) -> None:
    dataset = _dataset(files)
    chosen = [3, 41, 17]
    rows = [(files[0], 3), (files[1], 1), (files[0], 17)]
    batch = dataset.collater([dataset[index] for index in chosen])
    documents = [[*pairs.prompt(row), *pairs.completion(row)] for pairs, row in rows]
    tokens = batch["net_input"]["src_tokens"]
    assert tokens.tolist() == _joined(documents)
    assert batch["net_input"]["document_lengths"] == [len(document) for document in documents]
    assert batch["net_input"]["position_ids"].tolist() == [place for one in documents for place in range(len(one))]
    assert (batch["id"].tolist(), batch["nsentences"], batch["ntokens"]) == (chosen, 3, len(tokens))
    labels = [token for pairs, row in rows for token in pairs.completion(row)]
    assert batch["target"]["labels"].tolist() == labels
    # each position is the one before the token to predict, in the same document
    assert tokens[batch["target"]["positions"] + 1].tolist() == labels
    assert (batch["net_input"]["position_ids"][batch["target"]["positions"]] + 1).min() > 0
    masked = torch.full_like(tokens, -100)
    masked[batch["target"]["positions"] + 1] = batch["target"]["labels"]
    prompts = [[-100] * len(pairs.prompt(row)) + pairs.completion(row).tolist() for pairs, row in rows]
    assert masked.tolist() == _joined(prompts)
    for tensor in (tokens, batch["net_input"]["position_ids"], batch["id"], *batch["target"].values()):
        assert tensor.dtype == torch.int64
    assert all(type(length) is int for length in batch["net_input"]["document_lengths"])


def test_long_pairs_are_cut_and_counted(files: list[TokenizedPairs], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    dataset = _dataset(files, limit=40)
    whole = _dataset(files)
    assert f"train: {(whole.sizes > 40).sum()} of 60 pairs exceed 40 tokens" in caplog.text
    assert dataset.sizes.tolist() == np.minimum(whole.sizes, 40).tolist()
    seen = set()
    for index in range(60):
        short, long = dataset[index], whole[index]
        prompt, answer = np.split(short["tokens"], [short["prompt_length"]])
        whole_prompt, whole_answer = np.split(long["tokens"], [long["prompt_length"]])
        assert prompt[0] == TOKENIZER.bos_token_id
        assert prompt[1:].tolist() == whole_prompt[len(whole_prompt) - len(prompt) + 1 :].tolist()
        assert answer.tolist() == whole_answer[: len(answer)].tolist()
        assert len(answer) > 0
        assert len(prompt) >= min(10, len(whole_prompt))
        seen.add((len(prompt) < len(whole_prompt), len(answer) < len(whole_answer)))
    assert seen == {(False, False), (True, False), (True, True), (False, True)}


def test_a_limit_without_room(files: list[TokenizedPairs]) -> None:
    with pytest.raises(UserError, match="`--tokens-per-pair 2` leaves no room"):
        _dataset(files, limit=2)


def test_an_empty_batch(files: list[TokenizedPairs]) -> None:
    assert _dataset(files).collater([]) == {}


# ---- epochs --------------------------------------------------------------------------------------------------------


def test_every_pair_comes_once_an_epoch(files: list[TokenizedPairs]) -> None:
    dataset = _dataset(files)
    epochs = [_ids(_iterator(dataset, epoch=epoch).next_epoch_itr()) for epoch in (1, 2)]
    for batches in epochs:
        assert sorted(_joined(batches)) == list(range(60))
        assert all(dataset.sizes[batch].sum() <= BUDGET for batch in batches)
    assert sorted(map(sorted, epochs[0])) != sorted(map(sorted, epochs[1]))  # packed anew, not only in another order
    assert _ids(_iterator(_dataset(files), epoch=2).next_epoch_itr()) == epochs[1]
    assert _ids(_iterator(_dataset(files), epoch=2, seed=4).next_epoch_itr()) != epochs[1]


def test_validation_is_the_same_each_time(files: list[TokenizedPairs]) -> None:
    dataset = _dataset(files, shuffle=False)
    assert dataset.can_reuse_epoch_itr_across_epochs
    assert not _dataset(files).can_reuse_epoch_itr_across_epochs
    with data_utils.numpy_seed(1):
        assert dataset.ordered_indices().tolist() == list(range(60))
    seen = [_ids(_iterator(dataset, epoch=n, max_sentences=4).next_epoch_itr(shuffle=False)) for n in (1, 2)]
    assert seen[0] == seen[1]
    assert sorted(_joined(seen[0])) == list(range(60))
    assert max(map(len, seen[0])) <= 4


def test_weights_say_how_often_a_pair_comes(files: list[TokenizedPairs]) -> None:
    dataset = _dataset(files, 2.5, 0.25)
    extra = []
    for epoch in (1, 2):
        with data_utils.numpy_seed(epoch):
            times = Counter(dataset.ordered_indices().tolist())
        assert [times[index] for index in range(40)].count(3) == 20
        assert [times[index] for index in range(40)].count(2) == 20
        assert sum(times[index] for index in range(40, 60)) == 5
        extra.append({index for index, count in times.items() if count == 3 or index >= 40})
    assert extra[0] != extra[1]
    batches = _ids(_iterator(dataset).next_epoch_itr())
    assert len(_joined(batches)) == 105


def test_weights_too_small_for_any_pair(files: list[TokenizedPairs]) -> None:
    count = len(files[0])
    with pytest.raises(UserError, match=rf"train: with a weight of 0.001 a file of {count} pairs gives none"):
        _dataset(files, 0.001, 1)
    assert len(_dataset(files, 1 / count, 1).ordered_indices()) == 1 + len(files[1])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weights_that_mean_nothing(files: list[TokenizedPairs], weight: float) -> None:
    with pytest.raises(UserError, match=f"train: the weight of a file must be a number above 0, found {weight}"):
        _dataset(files, weight, 1)


@pytest.mark.parametrize(
    ("epoch", "shards", "workers"),
    [(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0), pytest.param(2, 2, 1, marks=pytest.mark.slow)],
)
def test_resuming_at_the_exact_batch(files: list[TokenizedPairs], epoch: int, shards: int, workers: int) -> None:
    how = {"num_shards": shards, "num_workers": workers}
    everything = []
    for shard in range(shards):
        whole = _iterator(_dataset(files, 1.5, 1), epoch=epoch, shard_id=shard, **how)
        batches = whole.next_epoch_itr()
        begun = [next(batches) for _ in range(3)]
        state = whole.state_dict()
        rest = list(batches)
        assert len(rest) > 3
        again = _iterator(_dataset(files, 1.5, 1), epoch=state["epoch"], shard_id=shard, **how)
        again.load_state_dict(state)
        resumed = list(again.next_epoch_itr())
        assert _ids(resumed) == _ids(rest)
        for one, other in zip(resumed, rest, strict=True):
            assert not one or torch.equal(one["net_input"]["src_tokens"], other["net_input"]["src_tokens"])
        everything += _joined(_ids([*begun, *rest]))
        next_epoch = [
            _ids(_iterator(_dataset(files, 1.5, 1), epoch=epoch + 1, shard_id=shard, **how).next_epoch_itr())
            for _ in range(2)
        ]
        assert next_epoch[0] == next_epoch[1]
        assert len(whole) == len(_iterator(_dataset(files, 1.5, 1), epoch=epoch, shard_id=0, **how))  # as many updates
    assert len(everything) == 80
    assert set(everything) == set(range(60))


def test_workers_get_the_data_by_name(files: list[TokenizedPairs]) -> None:
    dataset = _dataset(files)
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000
    copy = pickle.loads(sent)
    assert all((copy[index]["tokens"] == dataset[index]["tokens"]).all() for index in range(60))


def test_sizes_are_what_fairseq_asks_for(files: list[TokenizedPairs]) -> None:
    dataset = _dataset(files, limit=40)
    assert [dataset.num_tokens(i) for i in range(60)] == [dataset.size(i) for i in range(60)] == dataset.sizes.tolist()
    assert dataset.num_tokens_vec(np.array([5, 2])).tolist() == dataset.sizes[[5, 2]].tolist()
    kept, ignored = dataset.filter_indices_by_size(np.arange(60), 40)
    assert len(kept) == 60
    assert len(ignored) == 0
    assert dataset.supports_fetch_outside_dataloader
    assert not dataset.supports_prefetch


# ---- prompts -------------------------------------------------------------------------------------------------------


def test_prompts_are_padded_on_the_left(files: list[TokenizedPairs]) -> None:
    dataset = PromptDataset(files[0], pad=PAD, limit=None, name="test")
    batch = dataset.collater([dataset[index] for index in (5, 2, 9)])
    tokens, target = batch["net_input"]["src_tokens"], batch["target"]
    assert tokens.dtype == target.dtype == torch.int64
    for line, answer, length, row in zip(tokens, target, batch["net_input"]["src_lengths"], (5, 2, 9), strict=True):
        assert line.tolist() == [PAD] * (tokens.shape[1] - length) + files[0].prompt(row).tolist()
        completion = files[0].completion(row).tolist()
        assert answer.tolist() == completion + [PAD] * (target.shape[1] - len(completion))
    assert (batch["id"].tolist(), batch["nsentences"]) == ([5, 2, 9], 3)
    assert batch["ntokens"] == batch["net_input"]["src_lengths"].sum()
    assert dataset.collater([]) == {}


@pytest.mark.parametrize("how", [{"max_sentences": 7}, {"max_tokens": 100}, {}])
def test_every_prompt_comes_once_in_order(files: list[TokenizedPairs], how: dict[str, int]) -> None:
    dataset = PromptDataset(files[0], pad=PAD, limit=None, name="test")
    iterator = _iterator(dataset, **{"max_tokens": None, **how}).next_epoch_itr(shuffle=False)
    batches = list(iterator)
    assert _joined(_ids(batches)) == list(range(40))
    if "max_tokens" in how:
        assert max(batch["net_input"]["src_tokens"].numel() for batch in batches) <= 100


def test_long_prompts_lose_their_beginning(caplog: pytest.LogCaptureFixture) -> None:
    prompts = [[0, 1, 2, 3, 4, 5], [7, 8], [0, 1, 2, 3, 4, 5]]
    dataset = PromptDataset(prompts, pad=PAD, limit=4, name="input", heads=[1, 1, 3], first_line=11)
    assert [dataset[index]["source"].tolist() for index in range(3)] == [[0, 3, 4, 5], [7, 8], [0, 1, 2, 5]]
    assert dataset.sizes.tolist() == [4, 2, 4]
    assert "input: 2 of 3 prompts exceed 4 tokens and lose their beginning (4 tokens): lines 11, 13" in caplog.text
    assert dataset.collater([dataset[0], dataset[1]])["target"] is None


def test_prompts_of_pairs_keep_their_heads(files: list[TokenizedPairs]) -> None:
    dataset = PromptDataset(files[0], pad=PAD, limit=9, name="test")
    for index in range(40):
        prompt = files[0].prompt(index).tolist()
        expected = prompt if len(prompt) <= 9 else [prompt[0], *prompt[-8:]]
        assert dataset[index]["source"].tolist() == expected


def test_prompts_that_cannot_be_used(files: list[TokenizedPairs]) -> None:
    with pytest.raises(UserError, match="input, line 12: the prompt gives no token"):
        PromptDataset([[1], []], pad=PAD, limit=None, name="input", first_line=11)
    with pytest.raises(UserError, match="input: prompts may have 3 tokens, but what stands in front of one takes 3"):
        PromptDataset([[1, 2, 3, 4]], pad=PAD, limit=3, name="input", heads=[3])
    dataset = PromptDataset(files[0], pad=PAD, limit=None, name="test")
    with pytest.raises(UserError, match=f"a prompt of {dataset.sizes.max()} tokens does not fit into `--max-tokens 9`"):
        dataset.batch_by_size(dataset.ordered_indices(), max_tokens=9)


def test_nothing_to_complete() -> None:
    dataset = PromptDataset([], pad=PAD, limit=5, name="input")
    assert dataset.batch_by_size(dataset.ordered_indices(), max_tokens=9) == []


def test_a_pair_longer_than_a_batch(files: list[TokenizedPairs], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a pair of \d+ tokens does not fit into `--max-tokens 30`"):
        _iterator(_dataset(files), max_tokens=30)
