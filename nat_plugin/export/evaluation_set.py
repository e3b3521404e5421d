"""The sentences on which an export is checked: ids as fairseq reads them, and references in plain text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nat_plugin.data.binary_corpus import BinaryCorpus, open_corpus
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common.errors import UserError
from plugin_common.text_lines import read_lines

RANDOM_SENTENCES = 100
RANDOM_LENGTH = 40


@dataclass(frozen=True)
class EvaluationSet:
    """Sentences for a check.

    Attributes:
        name: what they are, for people.
        sources: token ids of each sentence, ``</s>`` not among them.
        references: plain text, or None where no translation is known.
    """

    name: str
    sources: list[np.ndarray]
    references: list[str] | None


def from_text(source: str, reference: str | None, tokenizer: PieceTokenizer, dictionary: Any) -> EvaluationSet:
    """Plain text, one sentence a line.

    Raises:
        UserError: a file that cannot be read, is empty, or files of different length.
    """
    lines = list(read_lines(source))
    references = None if reference is None else list(read_lines(reference))
    if not lines:
        raise UserError(f"--test-source {source}: has no line; give text with one sentence a line")
    if references is not None and len(references) != len(lines):
        raise UserError(
            f"--test-reference {reference} has {len(references):,} lines, --test-source {source} {len(lines):,}; line "
            "k of one must be the translation of line k of the other"
        )
    return EvaluationSet(Path(source).name, _ids(tokenizer.encode_lines(lines), dictionary), references)


def from_data_bin(corpus: BinaryCorpus, tokenizer: PieceTokenizer) -> EvaluationSet:
    """A subset of a data-bin; references are its targets, detokenised."""
    sources = [corpus.source.text(index) for index in range(len(corpus))]
    references = tokenizer.decode_lines(corpus.target.text(index) for index in range(len(corpus)))
    return EvaluationSet(
        f"{corpus.subset} of {corpus.folder.name}", _ids(sources, corpus.source.dictionary), references
    )


def find_subset(data_bin: str, languages: tuple[str, str], wanted: str | None) -> BinaryCorpus | None:
    """The subset of that name; without a name ``test``, else ``valid``, else None.

    Raises:
        UserError: the wanted subset is not there.
    """
    if wanted is not None:
        return open_corpus(data_bin, wanted, *languages)
    for name in ("test", "valid"):
        pairs = [f"{name}.{'-'.join(pair)}" for pair in (languages, languages[::-1])]
        if any((Path(data_bin) / f"{pair}.{languages[0]}.idx").is_file() for pair in pairs):
            return open_corpus(data_bin, name, *languages)
    return None


def random_sentences(dictionary: Any, seed: int = 1) -> EvaluationSet:
    """Sentences of random symbols, where there is no text."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, RANDOM_LENGTH, RANDOM_SENTENCES)
    sources = [generator.integers(dictionary.nspecial, len(dictionary) - 1, length) for length in lengths]
    return EvaluationSet("random symbols", sources, None)


def _ids(token_texts: Sequence[str], dictionary: Any) -> list[np.ndarray]:
    return [np.array([dictionary.index(word) for word in text.split()], dtype=np.int64) for text in token_texts]
