"""Tokenise whole files on several processes: constant memory, lines in = lines out, files that appear when complete."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common.atomic_file import atomic_output
from plugin_common.dictionary_file import UNK
from plugin_common.errors import UserError, raise_all
from plugin_common.ordered_pool import ordered_pool
from plugin_common.progress import progress_bar
from plugin_common.text_lines import (
    ControlCharacters,
    LineBlock,
    TextCounts,
    count_block,
    decode_block,
    read_blocks,
    shown_name,
)

LISTED_LINES = 5


@dataclass
class PieceCounts:
    """What a tokenised text holds; line numbers count from 1.

    ``too_long`` counts the lines of more pieces than the limit, ``too_long_lines`` holds the first few of them;
    ``emptied`` counts the lines that hold more than whitespace and yet gave no piece.
    """

    text: TextCounts = field(default_factory=TextCounts)
    lines: int = 0
    words: int = 0
    pieces: int = 0
    unknown: int = 0
    emptied: int = 0
    longest: int = 0
    longest_line: int = 0
    too_long: int = 0
    too_long_lines: list[int] = field(default_factory=list)

    def count_line(self, number: int, text: str, token_text: str, limit: int | None) -> None:
        """Take in line ``number``, of which ``text`` became ``token_text``; ``limit`` in pieces."""
        pieces = token_text.count(" ") + 1 if token_text else 0
        words = len(text.split())
        self.lines += 1
        self.words += words
        self.pieces += pieces
        if UNK in token_text:
            self.unknown += token_text.split(" ").count(UNK)
        if words and not pieces:
            self.emptied += 1
        if pieces > self.longest:
            self.longest, self.longest_line = pieces, number
        if limit is not None and pieces > limit:
            self.too_long += 1
            self.too_long_lines = [*self.too_long_lines, number][:LISTED_LINES]

    def add(self, later: "PieceCounts") -> None:
        """Add the counts of a later part of the same file."""
        self.text.add(later.text)
        self.lines += later.lines
        self.words += later.words
        self.pieces += later.pieces
        self.unknown += later.unknown
        self.emptied += later.emptied
        if later.longest > self.longest:
            self.longest, self.longest_line = later.longest, later.longest_line
        self.too_long += later.too_long
        self.too_long_lines = [*self.too_long_lines, *later.too_long_lines][:LISTED_LINES]


@dataclass(frozen=True)
class TokenizeJob:
    """One text file and the token text file to make of it; ``-`` is standard input or output."""

    source: str
    destination: str


@dataclass(frozen=True)
class Settings:
    """What is the same for all files: ``piece_limit`` is the longest line that the model can take, in pieces."""

    control_characters: ControlCharacters = "error"
    piece_limit: int | None = None


def tokenize_files(
    tokenizer: PieceTokenizer,
    jobs: Sequence[TokenizeJob],
    *,
    parallel: Sequence[tuple[str, str]] = (),
    settings: Settings | None = None,
    workers: int = 1,
) -> list[PieceCounts]:
    """Make every job's token text: line k of the destination belongs to line k of the source.

    All sources but standard input are read and checked as a whole before any work is done. The destinations appear
    together at the end, or not at all.

    Args:
        parallel: pairs of sources that must have the same number of lines.
        workers: processes that tokenise; 1 works in this process.

    Returns:
        The counts of each job.

    Raises:
        UserError: see :mod:`plugin_common.text_lines`; line counts of a parallel pair differ; a worker was killed.
    """
    settings = settings if settings is not None else Settings()
    bytes_in_all = sum(os.path.getsize(job.source) for job in jobs if os.path.isfile(job.source))  # noqa: PTH202, PTH113
    if not any(job.source == "-" for job in jobs):
        workers = min(workers, 1 + bytes_in_all // 2**18)
    with _pool(tokenizer, settings, workers) as run_in_order:
        expected = _check_sources(run_in_order, jobs, parallel)
        total = None if "-" in [job.source for job in jobs] else sum(expected.values())
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(atomic_output(job.destination)) for job in jobs]
            bar = stack.enter_context(progress_bar(total=total, unit=" lines", description="tokenize"))
            reports = []
            for job, stream in zip(jobs, streams, strict=True):
                counts, lines_out = PieceCounts(), 0
                for token_text, block_counts in run_in_order(_tokenize_block, job.source):
                    stream.write(token_text)
                    counts.add(block_counts)
                    lines_out += token_text.count(b"\n")
                    bar.update(block_counts.lines)
                _check_line_count(job, expected.get(job.source, counts.text.lines), lines_out)
                reports.append(counts)
    return reports


def _check_line_count(job: TokenizeJob, lines_in: int, lines_out: int) -> None:
    if lines_in != lines_out:
        raise UserError(
            f"{shown_name(job.source)}: {lines_in} lines in, but {lines_out} lines out; nothing was written. Was the "
            "file changed meanwhile? Run the command again once it is complete"
        )


def _check_sources(
    run_in_order: Callable[..., Iterator[TextCounts]], jobs: Sequence[TokenizeJob], parallel: Sequence[tuple[str, str]]
) -> dict[str, int]:
    """Lines of each source (standard input left out, it can be read only once), or one error with every problem."""
    lines: dict[str, int] = {}
    problems = []
    for source in dict.fromkeys(job.source for job in jobs if job.source != "-"):
        try:
            lines[source] = sum(counts.lines for counts in run_in_order(_count_block, source))
        except UserError as error:
            problems.append(str(error))
    for first, second in parallel:
        if first in lines and second in lines and lines[first] != lines[second]:
            problems.append(
                f"{first} has {lines[first]} lines, {second} has {lines[second]}: expected the same number, line k of "
                "one being the translation of line k of the other; make them anew from one source"
            )
    raise_all(problems)
    return lines


# What a worker process holds; set once when it starts.
_worker_state: tuple[PieceTokenizer, Settings] | None = None


def _tokenize_block(source: str, block: LineBlock) -> tuple[bytes, PieceCounts]:
    """The block's token text, a newline after each line, and its counts."""
    assert _worker_state is not None
    tokenizer, settings = _worker_state
    lines, text_counts = decode_block(block, source, settings.control_characters)
    token_texts = tokenizer.encode_lines(lines)
    counts = PieceCounts(text=text_counts)
    for number, (line, token_text) in enumerate(zip(lines, token_texts, strict=True), start=block.first_line):
        counts.count_line(number, line, token_text, settings.piece_limit)
    return "".join([f"{token_text}\n" for token_text in token_texts]).encode(), counts


def _count_block(source: str, block: LineBlock) -> TextCounts:
    assert _worker_state is not None
    return count_block(block, source, _worker_state[1].control_characters)


@contextlib.contextmanager
def _pool(tokenizer: PieceTokenizer, settings: Settings, workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A function ``run_in_order(work, source)`` that gives ``work(source, block)`` for each block of ``source``.

    At most three blocks a worker are in memory at a time. Each process tokenises on one core.
    """
    global _worker_state
    if workers == 1:
        previous = _worker_state, os.environ.get("TOKENIZERS_PARALLELISM")
        try:
            _start_worker(tokenizer, settings)
            yield lambda work, source: map(functools.partial(work, source), read_blocks(source))
        finally:
            _worker_state = previous[0]
            if previous[1] is None:
                os.environ.pop("TOKENIZERS_PARALLELISM", None)
            else:
                os.environ["TOKENIZERS_PARALLELISM"] = previous[1]
        return
    with ordered_pool(workers, _start_worker, (tokenizer, settings)) as map_in_order:
        yield lambda work, source: map_in_order(functools.partial(work, source), read_blocks(source))


def _start_worker(tokenizer: PieceTokenizer, settings: Settings) -> None:
    global _worker_state
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process; the library reads this at each call
    _worker_state = tokenizer, settings
