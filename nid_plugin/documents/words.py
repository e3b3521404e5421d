"""Words, counted and listed alike in scripts with and without spaces between them; and tokens of a named tokenizer."""

from pathlib import Path
from typing import Any

import regex

from plugin_common.errors import UserError

WORDS = "words"
"""Stands in place of a tokenizer's name for counting words."""

# Scripts that put no spaces between words: each of their letters counts as a word.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
WHITE = r"\s\x1c-\x1f"
"""What ``str.isspace`` and ``str.split`` take for white space, in a class of a regular expression."""
_WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*|[^{WHITE}{UNSPACED}]+", regex.V1)
_ANY_UNSPACED = regex.compile(rf"[{UNSPACED}]", regex.V1)


def words(text: str) -> list[str]:
    """Runs of characters other than white space; a letter of a script without spaces is a word of its own."""
    if text.isascii() or not _ANY_UNSPACED.search(text):
        return text.split()
    return _WORD.findall(text)


def has_words(text: str, count: int) -> bool:
    """Whether the text has at least ``count`` words; looks no further than needed in most cases."""
    if count <= 0 or len(text[: 16 * count].split(None, count)) > count or len(text.split(None, count - 1)) >= count:
        return True
    return not text.isascii() and len(words(text)) >= count


def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of a folder or ``tokenizer.json`` file, or of a model's name on the Hugging Face hub.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer

    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain `Exception`
            raise UserError(f"{file}: no tokenizer of the library tokenizers ({error})") from error
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(
            f"{name}: no tokenizer.json there; save one with "
            "`AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER)`, or give `words`"
        )
    try:
        return Tokenizer.from_pretrained(name)
    except Exception as error:
        raise UserError(
            f"{name}: neither a folder with a tokenizer.json nor a model whose tokenizer the Hugging Face hub gives "
            f"({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def token_count(tokenizer: Any, text: str) -> int:
    """Tokens of the text, without special tokens."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
