"""Rewrite a tokenizer.json for a choice of its pieces, with ids in fairseq dictionary order."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nat_plugin.pmlm.needed_pieces import merge_product, merges_of
from plugin_common.dictionary_file import BOS, EOS, FAIRSEQ_SYMBOLS, MASK, PAD, UNK, is_usable_symbol


@dataclass(frozen=True)
class ControlSymbols:
    """A tokenizer's own names for the five symbols that every masked LM has."""

    bos: str
    pad: str
    eos: str
    unk: str
    mask: str

    def names(self) -> tuple[str, str, str, str, str]:
        """In the order of :data:`RENAMED`."""
        return self.bos, self.pad, self.eos, self.unk, self.mask


RENAMED = (BOS, PAD, EOS, UNK, MASK)


@dataclass(frozen=True)
class RowOrder:
    """Where each row of the new embedding comes from."""

    old_ids: list[int]
    """By new id: the old id."""
    symbols: list[str]
    """By new id: the symbol, as in fairseq's dictionary."""


@dataclass(frozen=True)
class UnusablePieces:
    """Pieces that cannot stand in a fairseq dictionary."""

    with_white_space: list[str]
    named_like_control_symbols: list[str]

    def __len__(self) -> int:
        return len(self.with_white_space) + len(self.named_like_control_symbols)


def find_unusable(vocabulary: Collection[str], control: ControlSymbols) -> UnusablePieces:
    """Pieces that token text would lose (white space, empty) or take for control symbols (a BERT piece ``<s>``)."""
    return UnusablePieces(
        [piece for piece in vocabulary if not is_usable_symbol(piece)],
        [piece for piece in vocabulary if piece in RENAMED and piece not in control.names()],
    )


def order_rows(ids: Mapping[str, int], kept: Collection[str], control: ControlSymbols) -> RowOrder:
    """``<s> <pad> </s> <unk>``, the kept pieces by their old ids, ``<mask>``.

    Args:
        ids: old id by piece.
        kept: pieces to keep; control symbols among them are passed over, they stay anyway.
    """
    special = set(control.names())
    pieces = sorted((piece for piece in kept if piece not in special), key=lambda piece: ids[piece])
    first, last = control.names()[:4], control.mask
    return RowOrder(
        old_ids=[ids[piece] for piece in (*first, *pieces, last)],
        symbols=[*FAIRSEQ_SYMBOLS, *pieces, MASK],
    )


def prune_tokenizer(source: Mapping[str, Any], order: RowOrder, control: ControlSymbols) -> dict[str, Any]:
    """A tokenizer.json whose ids are the new rows and whose control symbols are called ``<s>``, ``<pad>``, ….

    Normaliser, pre-tokeniser, decoder, scores and the priority of merges stay. Truncation and padding are switched
    off: sentences must arrive whole.
    """
    new_ids = {old: new for new, old in enumerate(order.old_ids)}
    names = dict(zip(control.names(), RENAMED, strict=True))
    rewrite_model = {"Unigram": _unigram, "WordPiece": _wordpiece, "BPE": _bpe}[source["model"]["type"]]
    return {
        **source,
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(source["added_tokens"], new_ids, names),
        "post_processor": _post_processor(source.get("post_processor"), new_ids, lambda name: names.get(name, name)),
        "model": rewrite_model(source["model"], order),
    }


def post_processor_symbols(step: Mapping[str, Any] | None) -> set[str]:
    """The symbols that a tokenizer puts around a sentence; they must stay whatever the corpus holds."""
    if step is None:
        return set()
    if step["type"] == "Sequence":
        return set().union(*(post_processor_symbols(part) for part in step["processors"]))
    if step["type"] in ("BertProcessing", "RobertaProcessing"):
        return {step["sep"][0], step["cls"][0]}
    tokens = step.get("special_tokens", {}).values()
    return {symbol for entry in tokens for symbol in entry["tokens"]}


def _unigram(model: Mapping[str, Any], order: RowOrder) -> dict[str, Any]:
    scores = dict(enumerate(score for _, score in model["vocab"]))
    ordinary = {
        symbol: scores[old]
        for symbol, old in zip(order.symbols, order.old_ids, strict=True)
        if symbol not in RENAMED and old in scores
    }
    vocabulary = [(symbol, ordinary.get(symbol)) for symbol in order.symbols]
    scored = [[symbol, unreachable_score(symbol, ordinary) if score is None else score] for symbol, score in vocabulary]
    return {**model, "unk_id": order.symbols.index(UNK), "vocab": scored}


def unreachable_score(symbol: str, scores: Mapping[str, float]) -> float:
    """A log-probability for ``symbol`` so low that no best segmentation of text contains it.

    Unigram models match control symbols in text like any piece, usually with score 0, the best of all: an HTML tag
    ``<s>`` would turn into the symbol that CTC uses as blank. Spelling the symbol with ordinary pieces always wins
    against this score; where they cannot spell it, it gets the lowest ordinary score.
    """
    best: list[float | None] = [0.0] + [None] * len(symbol)
    for end in range(1, len(symbol) + 1):
        ways = [
            before + scores[symbol[start:end]]
            for start in range(end)
            if (before := best[start]) is not None and symbol[start:end] in scores
        ]
        best[end] = max(ways, default=None)
    return min(scores.values(), default=0.0) if best[-1] is None else best[-1] - 1.0


def _wordpiece(model: Mapping[str, Any], order: RowOrder) -> dict[str, Any]:
    return {**model, "unk_token": UNK, "vocab": {symbol: row for row, symbol in enumerate(order.symbols)}}


def _bpe(model: Mapping[str, Any], order: RowOrder) -> dict[str, Any]:
    vocabulary = {symbol: row for row, symbol in enumerate(order.symbols)}
    product = merge_product(model)
    merges = [
        [left, right]
        for left, right in merges_of(model)
        if left in vocabulary and right in vocabulary and product(left, right) in vocabulary
    ]
    unknown = None if model.get("unk_token") is None else UNK
    return {**model, "unk_token": unknown, "vocab": vocabulary, "merges": merges}


def _added_tokens(
    tokens: list[dict[str, Any]], new_ids: Mapping[int, int], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    kept = [
        {**token, "id": new_ids[token["id"]], "content": names.get(token["content"], token["content"])}
        for token in tokens
        if token["id"] in new_ids
    ]
    return sorted(kept, key=lambda token: token["id"])


def _post_processor(
    step: Mapping[str, Any] | None, new_ids: Mapping[int, int], rename: Callable[[str], str]
) -> dict[str, Any] | None:
    """The step that puts ``<s> … </s>`` around a sentence, with new names and ids."""
    if step is None:
        return None
    new = dict(step)
    if step["type"] == "Sequence":
        new["processors"] = [_post_processor(part, new_ids, rename) for part in step["processors"]]
    elif step["type"] in ("BertProcessing", "RobertaProcessing"):
        for key in ("sep", "cls"):
            name, old = step[key]
            new[key] = [rename(name), new_ids[old]]
    elif step["type"] == "TemplateProcessing":
        for key in ("single", "pair"):
            new[key] = [_renamed_part(part, rename) for part in step[key]]
        new["special_tokens"] = {
            rename(name): {
                "id": rename(entry["id"]),
                "ids": [new_ids[old] for old in entry["ids"]],
                "tokens": [rename(token) for token in entry["tokens"]],
            }
            for name, entry in step["special_tokens"].items()
        }
    return new


def _renamed_part(part: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    if "SpecialToken" not in part:
        return dict(part)
    return {"SpecialToken": {**part["SpecialToken"], "id": rename(part["SpecialToken"]["id"])}}
