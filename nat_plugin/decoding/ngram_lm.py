"""An n-gram language model over the symbols of a dictionary, asked for many words at once; numpy alone.

An n-gram is a node, numbered by order and, within an order, by its context's number and its last word; node 0 is the
empty n-gram. So the keys ``context * symbols + word`` of all nodes form one sorted array, and to find "context + word"
is a binary search. A state is the node of the longest context that can still matter.

Memory: 16 bytes for an n-gram of the highest order, 24 for a shorter one.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nat_plugin.decoding.arpa import read_arpa
from nat_plugin.decoding.ngram_tables import BOS, EOS, UNK, NgramTables
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ARRAYS_SUFFIX = ".npz"
_ROOT = 0
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class NgramLm:
    """A back-off model. Nothing in it changes, so any number of threads may ask it.

    Attributes:
        order: length of the longest n-grams.
        symbols: the dictionary; token ids are places in it.
        words: [symbols] int32: the symbol as which each symbol is scored, itself or ``<unk>``.
        keys: [nodes] int64, sorted: context node * symbols + last word, of the nodes from 1.
        log_probs: [1 + nodes] float32, natural logarithm, of the last word after the context.
        next_states: [1 + nodes] int32: the state after the n-gram.
        backoffs: [contexts] float32, natural logarithm; the contexts are the first nodes.
        suffixes: [contexts] int32: the longest proper suffix that is a node.
    """

    order: int
    symbols: Sequence[str]
    words: NDArray[np.int32]
    keys: Ints
    log_probs: NDArray[np.float32]
    next_states: NDArray[np.int32]
    backoffs: NDArray[np.float32]
    suffixes: NDArray[np.int32]

    @classmethod
    def from_file(cls, path: str | Path, symbols: Sequence[str]) -> "NgramLm":
        """Read an ARPA file (also ``.gz``), or the ``.npz`` that ``nat ngram-lm`` makes for a dictionary.

        Args:
            path: the file.
            symbols: the dictionary's symbols in the order of their ids, with ``<s>``, ``</s>`` and ``<unk>``.

        Raises:
            UserError: the file is missing, damaged, no such model, or one over other symbols.
        """
        if str(path).endswith(ARRAYS_SUFFIX):
            from nat_plugin.decoding.ngram_lm_file import read_arrays

            return read_arrays(str(path), symbols)
        return cls.from_tables(read_arpa(str(path)), symbols, source=str(path))

    @classmethod
    def from_tables(cls, model: NgramTables, symbols: Sequence[str], *, source: str) -> "NgramLm":
        """Index a model for a dictionary; ``source`` names it in messages.

        Symbols that the model does not know are scored as its ``<unk>``; if it has none, like its least probable
        unigram. N-grams with words outside the dictionary can never be asked for and are left out. Both are logged.

        Raises:
            UserError: most of the model's words are not in the dictionary, ``</s>`` is missing, or an n-gram is there
                twice or without the shorter one that it extends.
        """
        return _Builder(model, symbols, source).build()

    def start(self, n: int) -> Ints:
        """[n] states at the start of a sentence."""
        begin = 1 + self.symbols.index(BOS) if BOS in self.symbols else _ROOT
        return np.full(n, self.next_states[begin], dtype=np.int64)

    def score(self, states: Ints, tokens: NDArray[np.integer]) -> tuple[Floats, Ints]:
        """``(log_probs [n], states [n])``: natural-log probability, at most 0, of each token; the states after it.

        Args:
            states: [n] from :meth:`start` or :meth:`score`.
            tokens: [n] ids of symbols.
        """
        nodes, backoffs = self._longest_match(states, self.words[tokens])
        return np.minimum(backoffs + self.log_probs[nodes], 0.0), self.next_states[nodes].astype(np.int64)

    def end(self, states: Ints) -> Floats:
        """[n] natural-log probability of ``</s>`` in each state."""
        return self.score(states, np.full(len(states), self.symbols.index(EOS)))[0]

    def _longest_match(self, contexts: Ints, words: NDArray[np.integer]) -> tuple[Ints, Floats]:
        """``(nodes, backoffs)``: context + word, the context shortened until that exists; the back-off paid for it."""
        nodes = np.zeros(len(contexts), dtype=np.int64)
        backoffs = np.zeros(len(contexts))
        pending = np.arange(len(contexts))
        context = np.asarray(contexts, dtype=np.int64)
        word = words.astype(np.int64)
        while len(pending):
            wanted = context * len(self.symbols) + word
            place = np.searchsorted(self.keys, wanted)
            missing = self.keys[np.minimum(place, len(self.keys) - 1)] != wanted
            nodes[pending] = place + 1  # those that are missing are searched again
            pending, context, word = pending[missing], context[missing], word[missing]
            backoffs[pending] += self.backoffs[context]
            context = self.suffixes[context].astype(np.int64)
        return nodes, backoffs


class _Builder:
    """Makes an :class:`NgramLm`."""

    def __init__(self, model: NgramTables, symbols: Sequence[str], source: str) -> None:
        self.model, self.symbols, self.source = model, symbols, source
        self.ids = {symbol: i for i, symbol in enumerate(symbols)}
        _check_symbols(self.ids, symbols)
        spelled = {word: i for i, word in enumerate(model.vocabulary)}
        known = [self.ids.get(self._spelling(word, spelled), -1) for word in model.vocabulary]
        self.symbol_of = np.array(known, dtype=np.int64)  # by word of the model; -1 for none
        self._check_vocabulary()

    def _spelling(self, word: str, spelled: dict[str, int]) -> str:
        lower = word.lower()  # some tools write <UNK> and <S>
        return lower if lower in (BOS, EOS, UNK) and lower not in spelled else word

    def _check_vocabulary(self) -> None:
        known = self.symbol_of >= 0
        foreign, total = int((~known).sum()), len(known)
        ordinary = total - sum(word.lower() in (BOS, EOS, UNK) for word in self.model.vocabulary)
        if foreign * 2 > ordinary:
            shown = ", ".join(repr(self.model.vocabulary[i]) for i in np.flatnonzero(~known)[:_SHOWN])
            raise UserError(
                f"{self.source}: {foreign:,} of its {ordinary:,} words are not in the dictionary ({shown}, …); "
                "expected a model over the dictionary's pieces, estimated from token text as `nat tokenize` writes it"
            )
        if self.ids[EOS] not in self.symbol_of:
            raise UserError(f"{self.source}: has no unigram {EOS}; expected a model with ends of sentences")
        if foreign:
            logger.warning("%s: left out %s of %s words, which are not in the dictionary", self.source, foreign, total)

    def build(self) -> NgramLm:
        log_probs, words = self._unigrams()
        backoffs = np.zeros(1 + len(self.symbols), dtype=np.float32)
        known = self.symbol_of >= 0
        backoffs[1 + self.symbol_of[known]] = self._backoffs(1)[known]
        size = 1 + len(self.symbols)
        lm = NgramLm(
            order=1,
            symbols=self.symbols,
            words=words,
            keys=np.arange(len(self.symbols), dtype=np.int64),
            log_probs=np.concatenate([np.zeros(1, dtype=np.float32), log_probs]),
            next_states=np.zeros(size, dtype=np.int32),
            backoffs=backoffs,
            suffixes=np.zeros(size, dtype=np.int32),
        )
        left_out = 0
        for n in range(2, self.model.order + 1):
            lm, count = self._with_order(lm, n)
            left_out += count
        if left_out:
            logger.warning("%s: left out %s n-grams with words outside the dictionary", self.source, left_out)
        return _with_next_states(lm)

    def _unigrams(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """``(log_probs [symbols], words [symbols])`` with what the model does not know mapped to ``<unk>``."""
        table = self.model.orders[0]
        known = self.symbol_of >= 0
        log_probs = np.zeros(len(self.symbols), dtype=np.float32)
        log_probs[self.symbol_of[known]] = _natural(table.log10_probs[known])
        is_known = np.zeros(len(self.symbols), dtype=bool)
        is_known[self.symbol_of[known]] = True
        unk = self.ids[UNK]
        if not is_known[unk]:
            predicted = table.log10_probs[known & (self.symbol_of != self.ids.get(BOS, -1))]
            log_probs[unk] = _natural(predicted).min()
            logger.warning("%s: has no %s; unknown words score like its least probable one", self.source, UNK)
        unknown = int((~is_known).sum()) - 1 + int(is_known[unk])
        logger.info("%s: %s of the dictionary's %s symbols score as %s", self.source, unknown, len(self.symbols), UNK)
        return log_probs, np.where(is_known, np.arange(len(self.symbols)), unk).astype(np.int32)

    def _backoffs(self, n: int) -> NDArray[np.float32]:
        """Natural logarithms; 0 at the highest order, whose n-grams are no contexts."""
        log10 = self.model.orders[n - 1].log10_backoffs
        return _natural(log10 if n < self.model.order else np.zeros_like(log10))

    def _with_order(self, lm: NgramLm, n: int) -> tuple[NgramLm, int]:
        """``(lm with the n-grams of order n, n-grams left out)``; ``lm`` has the shorter ones."""
        table = self.model.orders[n - 1]
        words = self.symbol_of[table.words]
        kept = np.flatnonzero((words >= 0).all(axis=1))
        words = words[kept]
        prefix = np.zeros(len(kept), dtype=np.int64)
        for column in range(n - 1):
            wanted = prefix * len(self.symbols) + words[:, column]
            place = np.searchsorted(lm.keys, wanted)
            found = lm.keys[np.minimum(place, len(lm.keys) - 1)] == wanted
            for orphan in np.flatnonzero(~found)[:1]:
                raise UserError(
                    f"{self.source}: has the {n}-gram {self.model.text(n, kept[orphan])!r} but not what it extends, "
                    "the same without its last word; the model is incomplete, estimate it again"
                )
            prefix = place + 1
        keys = prefix * len(self.symbols) + words[:, -1]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for twice in np.flatnonzero(keys[1:] == keys[:-1])[:1]:
            text = self.model.text(n, kept[order[twice]])
            raise UserError(f"{self.source}: has the {n}-gram {text!r} twice; expected each once, estimate it again")
        kept = kept[order]
        suffixes, _ = lm._longest_match(lm.suffixes[prefix[order]].astype(np.int64), words[order, -1])
        longer = replace(
            lm,
            order=n,
            keys=np.concatenate([lm.keys, keys]),
            log_probs=np.concatenate([lm.log_probs, _natural(table.log10_probs[kept])]),
            backoffs=np.concatenate([lm.backoffs, self._backoffs(n)[kept]]),
            suffixes=np.concatenate([lm.suffixes, suffixes.astype(np.int32)]),
        )
        return longer, len(table) - len(kept)


def _with_next_states(lm: NgramLm) -> NgramLm:
    """States as short as they may be: a node with no longer n-gram and no back-off tells no more than its suffix."""
    matters = lm.backoffs != 0
    matters[lm.keys // len(lm.symbols)] = True
    next_states = np.arange(len(matters), dtype=np.int32)
    while not (done := matters[next_states]).all():  # the root matters, and every chain of suffixes ends there
        next_states = np.where(done, next_states, lm.suffixes[next_states])
    contexts = int(np.flatnonzero(matters)[-1]) + 1
    return replace(
        lm, next_states=next_states, backoffs=lm.backoffs[:contexts].copy(), suffixes=lm.suffixes[:contexts].copy()
    )


def _natural(log10: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(np.log(10)) * log10


def _check_symbols(ids: dict[str, int], symbols: Sequence[str]) -> None:
    problems = [
        f"dictionary: has no symbol {symbol}; expected fairseq's {BOS} <pad> {EOS} {UNK} first"
        for symbol in (EOS, UNK)
        if symbol not in ids
    ]
    if len(ids) != len(symbols):
        problems.append(f"dictionary: {len(symbols) - len(ids):,} symbols are there twice; expected each once")
    raise_all(problems)
