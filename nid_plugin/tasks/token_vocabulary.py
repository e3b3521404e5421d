"""What fairseq's commands ask a dictionary, answered by a model's own tokenizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"))


def escaped(text: str) -> str:
    r"""A text in one line: ``\`` as ``\\``, a line feed as ``\n``, a carriage return as ``\r``."""
    for plain, escape in _ESCAPES:
        text = text.replace(plain, escape)
    return text


def unescaped(line: str) -> str:
    r"""The inverse of :func:`escaped`; a backslash in front of anything else stands for itself."""
    parts = line.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)


class TokenVocabulary:
    """The tokenizer's ids as fairseq's symbols, and one more: ``pad``, which no tokenizer has to have.

    fairseq's commands ask for it before the model, whose tokenizer it is, is loaded: until :meth:`bind` it is empty.
    """

    def __init__(self) -> None:
        self.size = 0
        self.end = -1
        self._text_of: Callable[[list[int]], str] | None = None
        self._ids_of: Callable[[str], list[int]] | None = None

    def bind(
        self, size: int, end: int, *, text_of: Callable[[list[int]], str], ids_of: Callable[[str], list[int]]
    ) -> None:
        """Know a tokenizer.

        Args:
            size: ids that the model knows (rows of its embedding).
            end: the token that ends a completion.
            text_of: ids → text.
            ids_of: text → ids.
        """
        self.size, self.end = size, end
        self._text_of, self._ids_of = text_of, ids_of

    def __len__(self) -> int:
        return self.size + 1

    def pad(self) -> int:
        """The id that no token has."""
        return self.size

    def eos(self) -> int:
        """The token that ends a completion."""
        return self.end

    def bos(self) -> int:
        """None: prompts bring theirs."""
        return -1

    def unk(self) -> int:
        """None: the tokenizer knows all text."""
        return -1

    def string(
        self, tokens: Any, *unused: Any, extra_symbols_to_ignore: Iterable[int] | None = None, **more: Any
    ) -> str:
        """One line of text, see :func:`escaped`."""
        del unused, more
        assert self._text_of is not None
        left_out = {self.pad(), *(extra_symbols_to_ignore or ())}
        ids = [token for token in torch.as_tensor(tokens).tolist() if token not in left_out]
        return escaped(self._text_of(ids))

    def encode_line(self, line: str, *unused: Any, **more: Any) -> Tensor:
        """Token ids of a line, for token-based scores."""
        del unused, more
        assert self._ids_of is not None
        return torch.tensor(self._ids_of(unescaped(line)), dtype=torch.int32)
