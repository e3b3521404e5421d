"""Text to token text and back with the tokenizer of a PMLM folder; needs the library ``tokenizers`` alone.

Token text is what fairseq reads: a sentence's pieces joined by single spaces, each piece a word of ``dict.txt``.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, MASK, UNK, is_usable_symbol
from plugin_common.errors import UserError
from plugin_common.hf_folder import MAKE_IT, TOKENIZER_FILE

UNKNOWN_SHOWN = "⁇"

_LINE_BREAKERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class PieceTokenizer:
    """The tokenizer that a ``tokenizer.json`` describes, between plain text and token text.

    Text is only text: names of special tokens in it (``<mask>``, ``</s>``, ``[SEP]``) are segmented like any other
    characters, and the file's settings for truncation, padding and post-processing have no effect. An instance may be
    used by several threads and may be pickled.

    Args:
        definition: the contents of a ``tokenizer.json``.

    Raises:
        ValueError: ``definition`` does not describe a tokenizer.
    """

    def __init__(self, definition: str) -> None:
        self._definition = definition
        settings = json.loads(definition)
        special_pieces, unknown_piece = _hide_special_pieces(settings)
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(settings))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(str(error)) from error
        self._decoder = self._tokenizer.decoder
        prefix = settings["model"].get("continuing_subword_prefix")
        self._continuing_prefix = prefix if settings["model"].get("type") == "WordPiece" else None
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        hidden = {_hidden(piece) for piece in special_pieces}
        self._words = [UNK] * (max(vocabulary.values(), default=-1) + 1)
        for piece, index in vocabulary.items():
            if piece not in hidden and is_usable_symbol(piece):  # dict.txt holds no others
                self._words[index] = piece
        self._not_text = special_pieces - {UNK, unknown_piece}
        names = {vocabulary[_hidden(piece)]: piece for piece in special_pieces if _hidden(piece) in vocabulary}
        self._symbols = [names.get(index, word) for index, word in enumerate(self._words)]
        self._shown = [self._shown_as(*pair) for pair in zip(self._symbols, self._words, strict=True)]
        self._shown.append(UNKNOWN_SHOWN)  # for ids beyond
        unknown_id = vocabulary.get(_hidden(UNK), FAIRSEQ_SYMBOLS.index(UNK))
        self._rows = np.array([unknown_id if word == UNK else index for index, word in enumerate(self._words)])

    def _shown_as(self, symbol: str, word: str) -> str:
        """How :meth:`decode_ids` spells a symbol; empty for one that is left out."""
        if symbol in self._not_text:
            return ""
        return UNKNOWN_SHOWN if word == UNK else word

    @classmethod
    def from_folder(cls, folder: str | Path) -> "PieceTokenizer":
        """The tokenizer of a PMLM folder.

        Raises:
            UserError: the folder or its ``tokenizer.json`` is missing or broken.
        """
        file = Path(folder) / TOKENIZER_FILE
        if not file.is_file():
            raise UserError(f"{file}: no such file, expected the tokenizer of a PMLM folder; {MAKE_IT}")
        try:
            return cls(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: not a tokenizer that can be read ({error}); {MAKE_IT}") from error

    def __reduce__(self) -> tuple[type["PieceTokenizer"], tuple[str]]:
        return type(self), (self._definition,)

    @property
    def words(self) -> frozenset[str]:
        """Every word that :meth:`encode` can give: the dictionary must hold them."""
        return frozenset(self._words)

    def encode(self, line: str) -> str:
        """One line of text → token text, without any special token but ``<unk>``; an empty line → an empty text."""
        return self._text(self._tokenizer.encode(line, add_special_tokens=False).ids)

    def encode_lines(self, lines: Sequence[str]) -> list[str]:
        """:meth:`encode` of every line; on all cores unless ``TOKENIZERS_PARALLELISM=false`` is in the environment."""
        encodings = self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)
        return [self._text(encoding.ids) for encoding in encodings]

    @property
    def highest_id(self) -> int:
        """The highest id that :meth:`encode_ids` can give."""
        return int(self._rows.max(initial=0))

    @property
    def symbols(self) -> list[str]:
        """The symbol of each id, special ones by their names: in a PMLM folder, the rows of the dictionary."""
        return list(self._symbols)

    def encode_ids(self, lines: Sequence[str], *, parallel: bool = True) -> list[np.ndarray]:
        """The ids of the words that :meth:`encode` gives: an int64 array for each line.

        Args:
            parallel: as in :meth:`encode_lines`; otherwise one line after the other in this thread.
        """
        if parallel and len(lines) > 1:
            encodings = self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)
        else:
            encodings = [self._tokenizer.encode(line, add_special_tokens=False) for line in lines]
        return [self._rows[encoding.ids] for encoding in encodings]

    def decode_ids(self, ids: np.ndarray) -> str:
        """:meth:`decode` of the words with these ids; ids that the tokenizer lacks show as ``<unk>`` does."""
        shown = self._shown
        known = np.minimum(ids, len(shown) - 1)
        return self._join([shown[index] for index in known.tolist() if shown[index]])

    def _text(self, ids: list[int]) -> str:
        words = self._words
        return " ".join([words[index] for index in ids])

    def decode(self, token_text: str) -> str:
        """Token text → one line of plain text, for any sequence of words, whether or not :meth:`encode` could give it.

        Special tokens are left out, ``<unk>`` shows as ``⁇``, bytes that form no character as U+FFFD, and line breaks
        or other control characters that pieces spell as spaces; outer spaces are stripped.
        """
        words = [word for word in token_text.split() if word not in self._not_text]
        return self._join([UNKNOWN_SHOWN if word == UNK else word for word in words])

    def _join(self, pieces: list[str]) -> str:
        if not pieces:
            return ""
        if self._continuing_prefix:
            pieces[0] = pieces[0].removeprefix(self._continuing_prefix)
        text = self._decoder.decode(pieces) if self._decoder is not None else " ".join(pieces)
        return _LINE_BREAKERS.sub(" ", text).strip()

    def decode_lines(self, token_texts: Iterable[str]) -> list[str]:
        """:meth:`decode` of every token text."""
        return [self.decode(token_text) for token_text in token_texts]


def _hidden(piece: str) -> str:
    """A name that no text holds, for a special piece."""
    return f"\x00{piece}\x00"


def _hide_special_pieces(settings: dict[str, Any]) -> tuple[set[str], str | None]:
    """Rename the special pieces in place, so that text never matches them, and drop all that is not segmentation.

    A Unigram model would otherwise find ``<mask>`` in text by itself, even with the library's
    ``encode_special_tokens``: it is a piece like others, with the best score of all.

    Returns:
        The special pieces' names as they were (fairseq's and the unknown piece among them), and the unknown piece, if
        there is one.
    """
    model = settings["model"]
    special = {*FAIRSEQ_SYMBOLS, MASK}
    special |= {token["content"] for token in settings.get("added_tokens") or [] if token["special"]}
    unknown = model.get("unk_token")
    if isinstance(model["vocab"], list):  # Unigram: [piece, score] in the order of ids
        unknown = None if model.get("unk_id") is None else model["vocab"][model["unk_id"]][0]
        special |= set() if unknown is None else {unknown}
        model["vocab"] = [[_hidden(piece) if piece in special else piece, score] for piece, score in model["vocab"]]
    else:
        special |= set() if unknown is None else {unknown}
        model["vocab"] = {
            _hidden(piece) if piece in special else piece: index for piece, index in model["vocab"].items()
        }
        if unknown is not None:
            model["unk_token"] = _hidden(unknown)
    settings["added_tokens"] = [token for token in settings.get("added_tokens") or [] if not token["special"]]
    settings.update(truncation=None, padding=None, post_processor=None)
    return special, unknown
