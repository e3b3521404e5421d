"""Tokenized pairs as fairseq's datasets: packed batches for training, padded prompts for generation."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray

from nid_plugin.packing import pack
from nid_plugin.tokenized_pairs import TokenizedPairs
from nid_plugin.truncation import Truncation
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)

Sample = dict[str, Any]
Indices = NDArray[np.int64]


class _Measured(FairseqDataset):
    """Tells fairseq how long its examples are, after truncation.

    Attributes:
        sizes: ``[N]`` tokens of each.
    """

    sizes: Indices

    def num_tokens(self, index: int) -> int:
        """Tokens of an example."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: Indices) -> Indices:
        """:meth:`num_tokens` of many."""
        return self.sizes[indices]

    def size(self, index: int) -> int:
        """:meth:`num_tokens`, by the name that fairseq filters by."""
        return self.num_tokens(index)


class CompletionDataset(_Measured):
    """Pairs of one or more files, whose loss is on the completions.

    A pair's index counts through the files in their order. A batch holds the tokens of its pairs ("documents") one
    after another, without padding.

    Attributes:
        sizes: int64 ``[len(self)]`` tokens of each pair, after truncation.
    """

    def __init__(
        self, sources: Sequence[tuple[TokenizedPairs, float]], *, limit: int | None, shuffle: bool, name: str
    ) -> None:
        """Read nothing but lengths.

        Args:
            sources: files, each with its weight: how often each of its pairs comes in an epoch. With 2.5 each comes
                twice, and a random half of them, drawn for each epoch, a third time.
            limit: tokens of a pair; None for no limit. See :func:`nid_plugin.truncation.truncated`.
            shuffle: whether each epoch has its own random order and its own batches.
            name: of the split, in messages.

        Raises:
            UserError: a weight that is not above 0 or too small for any pair, or a limit that leaves no room.
        """
        super().__init__()
        raise_all(
            f"{name}: the weight of a file must be a number above 0, found {weight}"
            for _, weight in sources
            if not (weight > 0 and math.isfinite(weight))
        )
        raise_all(
            f"{name}: with a weight of {weight:g} a file of {len(pairs)} pairs gives none to an epoch; give at least "
            f"{1 / len(pairs):.2g}, or leave the file out"
            for pairs, weight in sources
            if round(weight * len(pairs)) == 0
        )
        self._files = [pairs for pairs, _ in sources]
        self._weights = [weight for _, weight in sources]
        self._starts = np.cumsum([0, *map(len, self._files)])
        self._shuffle = shuffle
        self.epoch = 1
        prompts, completions, self._heads = (
            np.concatenate([np.asarray(getattr(pairs, what), dtype=np.int64) for pairs in self._files])
            for what in ("prompt_lengths", "completion_lengths", "heads")
        )
        self._prompts, self._completions = Truncation(limit).kept(prompts, completions, self._heads, name)
        self.sizes: Indices = self._prompts + self._completions

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        """``{"id": int, "tokens": int64 [size], "prompt_length": int}``, after truncation."""
        index = int(index)
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        pairs, row = self._files[file], index - int(self._starts[file])
        kept = int(self._prompts[index])
        prompt = without_beginning(pairs.prompt(row), int(self._heads[index]), kept)
        completion = pairs.completion(row)[: self._completions[index]]
        return {"id": index, "tokens": np.concatenate([prompt, completion]), "prompt_length": kept}

    def collater(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A packed batch; of no sample, an empty one.

        ``net_input``: ``src_tokens`` int64 ``[N]``, the documents one after another; ``position_ids`` int64 ``[N]``,
        from 0 in each document; ``document_lengths``, a list of ints. ``target``: ``positions`` int64 ``[K]``, where in
        ``src_tokens`` the state stands that predicts a completion's token, and ``labels`` int64 ``[K]``, that token.
        """
        if not samples:
            return {}
        tokens = np.concatenate([sample["tokens"] for sample in samples])
        lengths = [len(sample["tokens"]) for sample in samples]
        ends = np.cumsum(lengths)
        answers = np.concatenate(
            [
                np.arange(end - length + sample["prompt_length"], end)
                for sample, length, end in zip(samples, lengths, ends, strict=True)
            ]
        )
        return {
            "id": torch.tensor([sample["id"] for sample in samples], dtype=torch.int64),
            "nsentences": len(samples),
            "ntokens": len(tokens),
            "net_input": {
                "src_tokens": torch.from_numpy(tokens),
                "position_ids": torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
                "document_lengths": lengths,
            },
            "target": {
                "positions": torch.from_numpy(answers - 1),
                "labels": torch.from_numpy(tokens[answers]),
            },
        }

    def set_epoch(self, epoch: int) -> None:
        """What changes with the epoch is drawn in :meth:`ordered_indices`, from the generator fairseq seeds for it."""
        self.epoch = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """Whether all epochs have the same batches."""
        return not self._shuffle and all(weight == int(weight) for weight in self._weights)

    def ordered_indices(self) -> Indices:
        """The pairs of an epoch; uses numpy's global generator, which fairseq seeds with seed + epoch."""
        chosen = np.concatenate(
            [
                _drawn(np.arange(start, end), weight)
                for start, end, weight in zip(self._starts[:-1], self._starts[1:], self._weights, strict=True)
            ]
        )
        return np.random.permutation(chosen) if self._shuffle else np.sort(chosen)  # noqa: NPY002

    def batch_by_size(
        self,
        indices: Indices,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Indices]:
        """Pack: each of ``indices`` once, whatever the multiple; see :func:`nid_plugin.packing.pack`."""
        batches = pack(self.sizes, indices, max_tokens=max_tokens, max_sentences=max_sentences)
        if max_tokens is not None and batches:
            logger.info(
                "%d documents in %d batches, %.1f %% of --max-tokens %d on average",
                len(indices), len(batches), 100 * self.sizes[indices].sum() / (len(batches) * max_tokens), max_tokens,
            )  # fmt: skip
        return batches


def _drawn(indices: Indices, weight: float) -> Indices:
    """Each index ``floor(weight)`` times, and a random part of them once more."""
    often = int(weight)
    more = round((weight - often) * len(indices))
    return np.concatenate([np.tile(indices, often), np.random.permutation(indices)[:more]])  # noqa: NPY002


def without_beginning(prompt: Indices, head: int, kept: int) -> Indices:
    """A prompt's head and its last tokens, ``kept`` together (more than ``head``)."""
    if len(prompt) <= kept:
        return prompt
    return np.concatenate([prompt[:head], prompt[len(prompt) - (kept - head) :]])


class PromptDataset(_Measured):
    """Prompts to go on from, each once and in order, padded on the left.

    Attributes:
        sizes: int64 ``[len(self)]`` tokens of each prompt, after truncation.
    """

    def __init__(
        self,
        prompts: TokenizedPairs | Sequence[Sequence[int]],
        *,
        pad: int,
        limit: int | None,
        name: str,
        heads: Sequence[int] | None = None,
        first_line: int = 1,
    ) -> None:
        """Read nothing but lengths.

        Args:
            prompts: pairs, whose completions become targets, or ids alone.
            pad: an id that no token has.
            limit: tokens of a prompt; a longer one loses its beginning, after the head. None for no limit.
            name: in messages.
            heads: for ids alone, how many first tokens of each may not be cut; by default none.
            first_line: number of the first prompt in messages.

        Raises:
            UserError: a prompt of no token, or a limit that leaves no room after a head.
        """
        super().__init__()
        self._pad = pad
        self._source = prompts
        if isinstance(prompts, TokenizedPairs):
            lengths, self._heads = np.asarray(prompts.prompt_lengths), np.asarray(prompts.heads)
        else:
            lengths = np.asarray([len(prompt) for prompt in prompts], dtype=np.int64)
            self._heads = np.asarray([0] * len(prompts) if heads is None else heads, dtype=np.int64)
        raise_all(
            f"{name}, line {first_line + row}: the prompt gives no token; fill it in"
            for row in np.flatnonzero(lengths < 1)
        )
        _check_room(limit, self._heads, name)
        self.sizes: Indices = lengths if limit is None else np.minimum(lengths, limit)
        _log_cut(lengths - self.sizes, limit, name, first_line)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        """``{"id": int, "source": int64 [size], "target": int64 [L] or None}``."""
        index = int(index)
        if isinstance(self._source, TokenizedPairs):
            prompt, target = self._source.prompt(index), self._source.completion(index)
        else:
            prompt, target = np.asarray(self._source[index], dtype=np.int64), None
        source = without_beginning(prompt, int(self._heads[index]), int(self.sizes[index]))
        return {"id": index, "source": source, "target": target}

    def collater(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch of prompts; of none, an empty one.

        ``net_input``: ``src_tokens`` int64 ``[B, S]``, padded on the left; ``src_lengths`` int64 ``[B]``. ``target``:
        int64 ``[B, L]`` completions, padded on the right, or None.
        """
        if not samples:
            return {}
        sources = [sample["source"] for sample in samples]
        targets = [sample["target"] for sample in samples]
        known = all(target is not None for target in targets)
        return {
            "id": torch.tensor([sample["id"] for sample in samples], dtype=torch.int64),
            "nsentences": len(samples),
            "ntokens": sum(map(len, sources)),
            "net_input": {
                "src_tokens": _padded(sources, self._pad, left=True),
                "src_lengths": torch.tensor([len(source) for source in sources], dtype=torch.int64),
            },
            "target": _padded(targets, self._pad, left=False) if known else None,
        }

    def batch_by_size(
        self,
        indices: Indices,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        """As fairseq batches, in order, but for the multiple, for whose sake it would drop prompts.

        Raises:
            UserError: a prompt longer than ``max_tokens``.
        """
        longest = int(self.sizes[indices].max(initial=0))
        if max_tokens is not None and longest > max_tokens:
            raise UserError(f"a prompt of {longest} tokens does not fit into `--max-tokens {max_tokens}`; raise it")
        return list(super().batch_by_size(indices, max_tokens, max_sentences, 1)) if len(indices) else []


def _check_room(limit: int | None, heads: Indices, name: str) -> None:
    needed = int(heads.max(initial=0)) + 1
    if limit is not None and limit < needed:
        raise UserError(
            f"{name}: prompts may have {limit} tokens, but what stands in front of one takes {needed - 1}, and one "
            "more must fit; shorten what is generated or take a model with more positions"
        )


def _log_cut(lost: Indices, limit: int | None, name: str, first_line: int) -> None:
    rows = np.flatnonzero(lost)
    if len(rows):
        lines = ", ".join(str(first_line + row) for row in rows[:20]) + (", …" if len(rows) > 20 else "")
        logger.warning(
            "%s: %d of %d prompts exceed %s tokens and lose their beginning (%d tokens): lines %s",
            name, len(rows), len(lost), limit, lost.sum(), lines,
        )  # fmt: skip


def _padded(rows: Sequence[Indices], pad: int, *, left: bool) -> torch.Tensor:
    width = max(map(len, rows))
    batch = np.full((len(rows), width), pad, dtype=np.int64)
    for line, row in zip(batch, rows, strict=True):
        if left:
            line[width - len(row) :] = row
        else:
            line[: len(row)] = row
    return torch.from_numpy(batch)
