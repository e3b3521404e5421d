"""Read a corpus in constant memory and count which pieces it is segmented into."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plugin_common.errors import UserError, raise_all
from plugin_common.progress import progress_bar
from plugin_common.text_lines import ControlCharacters, TextCounts, decode_block, read_blocks

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class CorpusFile:
    """A file that was read to its end."""

    path: str
    lines: int
    sha256: str
    """Of the text, decompressed."""
    changes: tuple[str, ...]
    """What was changed on reading, such as control characters replaced."""


@dataclass
class Corpus:
    """Text files, one sentence a line; each iteration reads them anew, afterwards ``files`` tells what was read.

    Args:
        paths: files of UTF-8 text; a name in ``.gz`` is decompressed.
        control_characters: ``error`` or ``space``, see :func:`plugin_common.text_lines.decode_block`.
    """

    paths: Sequence[Path]
    control_characters: ControlCharacters = "error"
    files: tuple[CorpusFile, ...] = field(default=(), init=False)

    def check(self) -> None:
        """All files must be there before a long run starts.

        Raises:
            UserError: names every file that is missing or is no file.
        """
        raise_all(f"--corpus {path}: no such file" for path in self.paths if not path.is_file())

    def batches(self, description: str) -> Iterator[list[str]]:
        """All lines in lists of bounded size, without line ends, under a progress bar that counts bytes.

        Raises:
            UserError: bytes that are no UTF-8 or a control character (file and line are named); or no text at all.
        """
        compressed = any(path.suffix == ".gz" for path in self.paths)
        total = None if compressed else sum(path.stat().st_size for path in self.paths)
        files: list[CorpusFile] = []
        any_text = False
        with progress_bar(total=total, unit="B", description=description) as bar:
            for path in self.paths:
                for lines in self._batches_of(path, bar, files):
                    any_text = any_text or any(map(str.strip, lines))
                    yield lines
        if not any_text:
            names = ", ".join(map(str, self.paths))
            raise UserError(f"--corpus {names}: no text in it; give files with one sentence a line")
        self.files = tuple(files)

    def _batches_of(self, path: Path, bar: Any, files: list[CorpusFile]) -> Iterator[list[str]]:
        digest, counts = hashlib.sha256(), TextCounts()
        for block in read_blocks(str(path)):
            lines, block_counts = decode_block(block, str(path), self.control_characters)
            counts.add(block_counts)
            digest.update(block.data)
            bar.update(len(block.data))
            yield lines
        files.append(CorpusFile(str(path), counts.lines, digest.hexdigest(), tuple(counts.changes())))

    def lines(self, description: str) -> Iterator[str]:
        """All lines; see :meth:`batches`."""
        for batch in self.batches(description):
            yield from batch


@dataclass(frozen=True)
class PieceCounts:
    """What a corpus consists of."""

    counts: np.ndarray
    """Occurrences by piece id, int64 ``[number of pieces]``."""
    characters: frozenset[str]
    """Characters of the raw text, before normalisation."""


def count_pieces(tokenizer: "Tokenizer", corpus: Corpus) -> PieceCounts:
    """Segment a corpus line by line; control symbols such as ``<mask>`` in the text count as plain text.

    Args:
        tokenizer: changed: truncation and padding are switched off in it, control symbols in text too.
        corpus: what to read.

    Raises:
        UserError: see :meth:`Corpus.batches`.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    ids_end = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    counts = np.zeros(ids_end, dtype=np.int64)
    characters: set[str] = set()
    for lines in corpus.batches("counting pieces"):
        for line in lines:
            characters.update(line)
        encodings = tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        ids = np.fromiter((i for encoding in encodings for i in encoding.ids), dtype=np.int64)
        counts += np.bincount(ids, minlength=ids_end)
    return PieceCounts(counts, frozenset(characters))
