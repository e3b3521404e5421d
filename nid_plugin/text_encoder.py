"""Text to token ids and back, for text that begins a sequence and for text that goes on from one.

Tokenizers like LLaMA-2's put a space in front of what they are given, so that a completion tokenized by itself would
begin with a space that is not there. Here such a tokenizer gets a copy that does not.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugin_common.errors import UserError

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Code points that Unicode leaves to a program's own use and no text should hold."""


_PARALLEL = "TOKENIZERS_PARALLELISM"
_kept: list[str | None] = []


def _before_fork() -> None:
    _kept.append(os.environ.get(_PARALLEL))
    os.environ.setdefault(_PARALLEL, "false")


def _after_fork_in_parent() -> None:
    if _kept.pop() is None:
        del os.environ[_PARALLEL]


def _after_fork_in_child() -> None:
    _kept.clear()
    os.environ[_PARALLEL] = "false"


# The library's threads do not live on in a forked process (a data loader's worker), which would wait for them for ever.
# By itself it takes care of that, with a warning for each worker; told beforehand, it is silent.
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@dataclass(frozen=True, slots=True)
class Marks:
    """Two characters that stand around a stretch of text that must not be read as a special token."""

    start: str
    end: str

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """The text's stretches, in order, each with whether it stood between marks; marks themselves are left out."""
        found = re.split(f"{self.start}([^{self.start}{self.end}]*){self.end}", text)
        stretches = [(re.sub(f"[{self.start}{self.end}]", "", piece), i % 2 == 1) for i, piece in enumerate(found)]
        return [stretch for stretch in stretches if stretch[0]]

    def removed(self, text: str) -> str:
        """The text without marks."""
        return text.replace(self.start, "").replace(self.end, "")


class TextEncoder:
    """A fast tokenizer's ids; the tokenizer that is handed in stays as it is.

    Attributes:
        bos_ids: what the tokenizer itself puts in front of a text: BOS, or nothing.
        eos_id: its end token, or None.
        size: the largest id and 1.
        fingerprint: changes with anything that changes ids.

    Raises:
        UserError: it is no fast tokenizer.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        """``name`` says in messages which tokenizer it is."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"{name}: its tokenizer has no tokenizer.json (a fast tokenizer), which is needed; save the folder "
                "with a version of transformers that converts it"
            )
        self.name = name
        spec = json.loads(backend.to_str())
        spec.update(truncation=None, padding=None)
        self.fingerprint = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        self.eos_id: int | None = tokenizer.eos_token_id
        self.bos_ids = _ids_in_front(tokenizer)
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        special |= set(tokenizer.all_special_tokens)
        self._special_ids = {vocabulary[text] for text in special if text in vocabulary}
        longest_first = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._begins = _backend(spec)
        later = _without_prefix(spec)
        self._goes_on = self._begins if later == spec else _backend(later)

    def looks_special(self, text: str) -> bool:
        """Whether text holds what a special token is written as, such as ``</s>``."""
        return self._special.search(text) is not None

    def marked(self, texts: Sequence[str]) -> tuple[list[str], Marks | None]:
        """The texts with marks around all that looks like a special token, and the marks; None where nothing does."""
        if not any(map(self.looks_special, texts)):
            return list(texts), None
        free = [mark for mark in NONCHARACTERS if not any(mark in text for text in texts)]
        if len(free) < 2:
            raise UserError(f"{self.name}: a text holds nearly all of U+FDD0 to U+FDEF, which none should; remove it")
        marks = Marks(*free[:2])
        return [self._special.sub(f"{marks.start}\\g<0>{marks.end}", text) for text in texts], marks

    def ids(self, texts: Sequence[str], *, begins: bool, plain: bool) -> list[list[int]]:
        """The ids of each text, without BOS and EOS; in parallel.

        Args:
            begins: whether the texts begin a sequence, or go on from one.
            plain: what looks like a special token is plain text, not that token.
        """
        backend = self._begins if begins else self._goes_on
        backend.encode_special_tokens = plain
        return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def ids_with_marks(self, texts: Sequence[str], marks: Sequence[Marks | None], *, begins: bool) -> list[list[int]]:
        """As :meth:`ids`, with special tokens, except between a text's marks."""
        marked = {row: mark for row, mark in enumerate(marks) if mark is not None}
        unmarked = iter(
            self.ids([text for row, text in enumerate(texts) if row not in marked], begins=begins, plain=False)
        )
        return [
            self._ids_of_pieces(marked[row].pieces(text), begins) if row in marked else next(unmarked)
            for row, text in enumerate(texts)
        ]

    def _ids_of_pieces(self, pieces: Sequence[tuple[str, bool]], begins: bool) -> list[int]:
        return [
            token
            for number, (piece, plain) in enumerate(pieces)
            for token in self.ids([piece], begins=begins and number == 0, plain=plain)[0]
        ]

    def text_after(self, ids: Sequence[int]) -> str:
        """The text by which ids go on from a sequence, with special tokens and the space that it may begin with."""
        return str(self._goes_on.decode([int(token) for token in ids], skip_special_tokens=False))

    def without_special_end(self, ids: Sequence[int]) -> list[int]:
        """The ids without special tokens (and ids that no token has) at the end."""
        kept = len(ids)
        while kept and (ids[kept - 1] in self._special_ids or not 0 <= ids[kept - 1] < self.size):
            kept -= 1
        return [int(token) for token in ids[:kept]]

    def first_special_end(self, text: str) -> int | None:
        """Where the first special token in a text ends, or None."""
        found = self._special.search(text)
        return found.end() if found else None


def _backend(spec: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(spec))


def _ids_in_front(tokenizer: Any) -> list[int]:
    """What the tokenizer puts in front of a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return list(whole[:start])
    return []


_PARTS = ("normalizers", "pretokenizers", "decoders")


def _without_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's description without what puts a space in front of text, or takes it off in decoding."""
    changed = {part: _no_prefix(spec.get(part)) for part in ("normalizer", "pre_tokenizer", "decoder")}
    return {**spec, **changed}


def _no_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    if step is None or step["type"] == "Prepend":
        return None
    if step["type"] == "Sequence":
        inner = {part: [_no_prefix(one) for one in step[part]] for part in _PARTS if part in step}
        return {**step, **{part: [one for one in steps if one is not None] for part, steps in inner.items()}}
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if step["type"] == "ByteLevel" and step.get("add_prefix_space"):
        return {**step, "add_prefix_space": False}
    if step["type"] == "Strip":
        return {**step, **{side: type(step[side])(0) for side in ("start", "strip_left") if side in step}}
    return step
