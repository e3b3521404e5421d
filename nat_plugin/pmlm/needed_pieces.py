"""Which pieces of a subword vocabulary must stay so that a corpus, and any text made of its characters, needs no other.

``model`` is the entry of that name in a tokenizer.json: Unigram, WordPiece or BPE.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, MASK
from plugin_common.errors import UserError

MODEL_TYPES = ("Unigram", "WordPiece", "BPE")
WORD_BOUNDARY = "▁"


def needed_pieces(
    tokenizer: Mapping[str, Any],
    vocabulary: Collection[str],
    occurring: Iterable[str],
    frequent: Iterable[str],
    characters: Iterable[str],
) -> set[str]:
    """The pieces to keep.

    These are the frequent ones; a piece for every single character met (WordPiece: at the beginning and inside of a
    word; byte-level BPE: all 256 bytes); and, for BPE, all pieces that lead by merges to a piece kept.

    Args:
        tokenizer: content of a tokenizer.json.
        vocabulary: all pieces there are.
        occurring: pieces that the corpus is segmented into.
        frequent: pieces to keep for their own sake, usually the occurring ones.
        characters: further characters that must stay, normalised.
    """
    model = tokenizer["model"]
    kept = {piece for piece in frequent if piece in vocabulary}
    if is_byte_level(tokenizer):
        from tokenizers.pre_tokenizers import ByteLevel

        wanted = set(ByteLevel.alphabet())
    else:
        prefix, suffix = affixes(model)
        wanted = {c for piece in occurring for c in characters_of(piece, prefix, suffix)}
        wanted.update(c for c in characters if not c.isspace())
        if model["type"] == "Unigram":
            wanted.update(WORD_BOUNDARY, *FAIRSEQ_SYMBOLS, MASK)
        wanted |= compositions(wanted, vocabulary)
    kept.update(form for c in wanted for form in forms(model, c) if form in vocabulary)
    if model.get("byte_fallback"):
        kept.update(piece for byte in range(256) if (piece := f"<0x{byte:02X}>") in vocabulary)
    if model["type"] == "BPE":
        kept = with_merge_parents(model, kept)
    return kept


def check_model_type(tokenizer: Mapping[str, Any], where: str) -> None:
    """Refuse subword models other than the three supported.

    Raises:
        UserError: names the model's type.
    """
    kind = tokenizer["model"].get("type")
    if kind not in MODEL_TYPES:
        raise UserError(f"{where}: its tokenizer is of type {kind!r}; supported are {', '.join(MODEL_TYPES)}")


def is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Whether pieces are spelled in the 256 stand-ins for bytes."""
    return tokenizer["model"]["type"] == "BPE" and any(
        step["type"] == "ByteLevel" for name in ("pre_tokenizer", "normalizer") for step in _steps(tokenizer.get(name))
    )


def _steps(component: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    if component is None:
        return []
    inner = component.get("pretokenizers", component.get("normalizers"))
    return [component] if inner is None else [step for part in inner for step in _steps(part)]


def affixes(model: Mapping[str, Any]) -> tuple[str, str]:
    """What marks a piece as continuing a word (WordPiece ``##``) and as ending one; empty where there is none."""
    return model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""


def characters_of(piece: str, prefix: str, suffix: str) -> str:
    """The text a piece stands for, without the marks of its place in the word."""
    if len(piece) > len(prefix):
        piece = piece.removeprefix(prefix)
    if len(piece) > len(suffix):
        piece = piece.removesuffix(suffix)
    return piece


def forms(model: Mapping[str, Any], character: str) -> set[str]:
    """All pieces that stand for one character, wherever it is in a word."""
    prefix, suffix = affixes(model)
    return {character, prefix + character, character + suffix, prefix + character + suffix}


def compositions(characters: Collection[str], vocabulary: Iterable[str]) -> set[str]:
    """Single-character pieces that normalisation may compose out of two of the characters (e + ´ → é; Hangul)."""
    parts = {}
    for piece in vocabulary:
        if len(piece) == 1 and len(decomposed := unicodedata.normalize("NFD", piece)) > 1:
            parts[piece] = (unicodedata.normalize("NFC", decomposed[:-1]), decomposed[-1])
    known = set(characters)
    while added := {piece for piece, (base, mark) in parts.items() if base in known and mark in known} - known:
        known |= added
    return known - set(characters)


def with_merge_parents(model: Mapping[str, Any], pieces: Iterable[str]) -> set[str]:
    """The pieces and, recursively, both parts of every merge that makes one of them.

    BPE reaches a piece only through its parts. With all of them kept, a word whose pieces are all kept goes through
    the same merges as before: each merge it went through is still there, none is new, and their order has not changed.
    """
    parents: dict[str, list[str]] = {}
    product = merge_product(model)
    for left, right in merges_of(model):
        parents.setdefault(product(left, right), []).extend((left, right))
    kept: set[str] = set()
    waiting = list(pieces)
    while waiting:
        piece = waiting.pop()
        if piece not in kept:
            kept.add(piece)
            waiting += parents.get(piece, [])
    return kept


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges in order of priority; older files write them as one string ``left right``."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def merge_product(model: Mapping[str, Any]) -> Callable[[str, str], str]:
    """How a BPE model spells what two pieces merge into."""
    prefix, _ = affixes(model)
    return lambda left, right: left + right.removeprefix(prefix)
