"""ARPA files of n-gram models: plain or gzip, as KenLM, SRILM and IRSTLM write them."""

import gzip
import re
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nat_plugin.decoding.ngram_tables import NEVER, NgramTable, NgramTables
from plugin_common.errors import UserError
from plugin_common.text_lines import read_blocks

_BLOCK_BYTES = 2**22
_ROWS_WRITTEN_AT_ONCE = 2**16
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)")
_SECTION = re.compile(rb"\\(\d+)-grams:")
EXPECTED = "expected an n-gram model in ARPA format (`nat ngram-lm` makes one)"


def read_arpa(path: str) -> NgramTables:
    """Read a model.

    Fields are separated by tabs or spaces; a missing back-off weight is 0; what stands before ``\\data\\`` is skipped;
    ``-inf`` is read as -99. Words are anything without ASCII white space.

    Raises:
        UserError: the file cannot be read or is no complete ARPA file; the line is named.
    """
    reader = _Reader(path)
    for block in read_blocks(path, _BLOCK_BYTES):
        reader.feed(block.data.split(b"\n"), block.first_line)
    return reader.finish()


class _Reader:
    """Takes the lines of a file in blocks and keeps what they say as arrays."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.counts: list[int] = []
        self.section = -1  # -1 before \data\, 0 in it, n in \n-grams:, counts + 1 after \end\
        self.section_line = 0
        self.vocabulary: dict[bytes, int] = {}
        self.parts: list[tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]] = []
        self.tables: list[NgramTable] = []

    def feed(self, lines: list[bytes], first_line: int) -> None:
        """Read consecutive lines, the first of which is line ``first_line`` of the file."""
        marks = [i for i, line in enumerate(lines) if line.startswith(b"\\")]
        begin = 0
        for mark in [*marks, len(lines)]:
            self._read_rows(lines[begin:mark], first_line + begin)
            if mark < len(lines):
                self._read_mark(lines[mark].strip(), first_line + mark)
            begin = mark + 1

    def finish(self) -> NgramTables:
        """The model, once all lines are read."""
        if self.section < 0:
            raise UserError(f"{self.path}: no line \\data\\; {EXPECTED}")
        if self.section <= len(self.counts):
            raise UserError(f"{self.path}: ends without \\end\\; the file is incomplete, copy or make it again")
        return NgramTables([self._decoded(word, row) for word, row in self.vocabulary.items()], self.tables)

    def _decoded(self, word: bytes, row: int) -> str:
        try:
            return word.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.path}: unigram {row + 1} ({word!r}) is not UTF-8; convert the file first (iconv -t UTF-8)"
            ) from error

    def _read_mark(self, mark: bytes, line: int) -> None:
        expected = b"\\end\\" if self.section == len(self.counts) > 0 else b"\\%d-grams:" % (self.section + 1)
        if self.section < 0:
            if mark == b"\\data\\":
                self.section = 0
            return
        if mark != expected or self.section > len(self.counts):
            raise self._error(line, f"expected {expected.decode()}, found {mark.decode(errors='replace')!r}")
        if self.section == 0 and not self.counts:
            raise self._error(line, "expected lines `ngram 1=COUNT`, … before the n-grams")
        if self.section > 0:
            self._close_section(line)
        self.section += 1
        self.section_line = line

    def _read_rows(self, lines: list[bytes], first_line: int) -> None:
        if self.section < 0:
            return
        rows = [line.split() for line in lines]
        numbers = [first_line + i for i, row in enumerate(rows) if row]
        rows = [row for row in rows if row]
        if not rows:
            return
        if self.section == 0:
            for row, number in zip(rows, numbers, strict=True):
                self._read_count(b" ".join(row), number)
        elif self.section > len(self.counts):
            raise self._error(numbers[0], "found text after \\end\\; the file holds more than one model")
        else:
            self._read_ngrams(rows, numbers)

    def _read_count(self, text: bytes, line: int) -> None:
        found = _COUNT.fullmatch(text)
        if not found or int(found[1]) != len(self.counts) + 1:
            raise self._error(
                line, f"expected `ngram {len(self.counts) + 1}=COUNT`, found {text.decode(errors='replace')!r}"
            )
        self.counts.append(int(found[2]))

    def _read_ngrams(self, rows: list[list[bytes]], numbers: list[int]) -> None:
        n = self.section
        widths = (n + 1,) if n == len(self.counts) and n > 1 else (n + 1, n + 2)
        for row, number in zip(rows, numbers, strict=True):
            if len(row) not in widths:
                raise self._error(
                    number,
                    f"expected a log-probability, {n} words"
                    f"{' and perhaps a back-off weight' if len(widths) > 1 else ''}, found {len(row)} fields",
                )
        probs = self._numbers([row[0] for row in rows], numbers)
        backoffs = self._numbers([row[n + 1] if len(row) > n + 1 else b"0" for row in rows], numbers)
        for positive in np.flatnonzero(probs > 0)[:1]:
            raise self._error(
                numbers[positive],
                f"log-probability {probs[positive]:g} is positive; expected base-10 logarithms of probabilities",
            )
        if n == 1:
            words = self._new_words([row[1] for row in rows], numbers)
        else:
            words = np.array([self.vocabulary.get(word, -1) for row in rows for word in row[1 : n + 1]], dtype=np.int32)
        words = words.reshape(len(rows), n)
        for unknown in np.flatnonzero((words < 0).any(axis=1))[:1]:
            word = rows[unknown][1 + int(words[unknown].argmin())]
            raise self._error(numbers[unknown], f"{word.decode(errors='replace')!r} is not among the unigrams")
        self.parts.append((words, probs, backoffs))

    def _new_words(self, words: list[bytes], numbers: list[int]) -> NDArray[np.int32]:
        first = len(self.vocabulary)
        for word, number in zip(words, numbers, strict=True):
            next_id = len(self.vocabulary)
            if self.vocabulary.setdefault(word, next_id) != next_id:
                raise self._error(number, f"the unigram {word.decode(errors='replace')!r} stands there twice")
        return np.arange(first, len(self.vocabulary), dtype=np.int32)

    def _numbers(self, fields: list[bytes], numbers: list[int]) -> NDArray[np.float64]:
        try:
            values = np.array(fields).astype(np.float64)
        except ValueError:
            values = np.array([_number(field) for field in fields])
        values[np.isneginf(values)] = NEVER
        for bad in np.flatnonzero(~np.isfinite(values))[:1]:
            raise self._error(numbers[bad], f"expected a number, found {fields[bad].decode(errors='replace')!r}")
        return values

    def _close_section(self, line: int) -> None:
        n, announced = self.section, self.counts[self.section - 1]
        found = sum(len(words) for words, _, _ in self.parts)
        if found != announced:
            raise UserError(
                f"{self.path}, lines {self.section_line} to {line}: \\{n}-grams: has {found:,} n-grams, the header "
                f"says {announced:,}; the file is damaged or was edited, make it again"
            )
        empty = (np.zeros((0, n), dtype=np.int32), np.zeros(0), np.zeros(0))
        words, probs, backoffs = (np.concatenate(part) for part in zip(empty, *self.parts, strict=True))
        self.parts = []
        self.tables.append(NgramTable(words, probs.astype(np.float32), backoffs.astype(np.float32)))

    def _error(self, line: int, problem: str) -> UserError:
        return UserError(f"{self.path}, line {line}: {problem}")


def _number(field: bytes) -> float:
    try:
        return float(field)
    except ValueError:
        return float("nan")


def write_arpa(stream: BinaryIO, model: NgramTables, *, compress: bool) -> None:
    """Write a model as ARPA text, gzip-compressed if ``compress``; the same model gives the same bytes."""
    if compress:
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
            packed.writelines(_arpa_blocks(model))
    else:
        stream.writelines(_arpa_blocks(model))


def _arpa_blocks(model: NgramTables) -> Iterable[bytes]:
    counts = "".join(f"ngram {n}={len(table)}\n" for n, table in enumerate(model.orders, start=1))
    yield f"\\data\\\n{counts}".encode()
    for n, table in enumerate(model.orders, start=1):
        yield f"\n\\{n}-grams:\n".encode()
        for begin in range(0, len(table), _ROWS_WRITTEN_AT_ONCE):
            yield _arpa_rows(model, n, slice(begin, begin + _ROWS_WRITTEN_AT_ONCE)).encode()
    yield b"\n\\end\\\n"


def _arpa_rows(model: NgramTables, n: int, part: slice) -> str:
    table, word = model.orders[n - 1], model.vocabulary
    texts = [" ".join([word[i] for i in row]) for row in table.words[part].tolist()]
    probs = table.log10_probs[part].tolist()
    if n == model.order:
        return "".join([f"{prob:.7g}\t{text}\n" for prob, text in zip(probs, texts, strict=True)])
    rows = zip(probs, texts, table.log10_backoffs[part].tolist(), strict=True)
    return "".join([f"{prob:.7g}\t{text}\t{backoff:.7g}\n" for prob, text, backoff in rows])
