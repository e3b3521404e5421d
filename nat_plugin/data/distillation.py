"""Distilled data in shards: which sentence belongs where, and files that survive being killed. Knows no model.

Sentence i (from 0) of a data set belongs to shard ``i % shards``, so that shards have equally much to do. A shard's
file grows by blocks, one a batch: lines ``index<tab>kind<tab>tokens`` and at the end ``#<tab>seconds<tab>crc``, the
time that decoding took and the CRC-32 of all that stands before it in the block. A block without its end was cut off
while it was written; it is decoded again.
"""

import contextlib
import fcntl
import json
import os
import re
import shlex
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError, raise_all

KINDS = {
    "h": "decoded",
    "s": "kept_raw_empty_source",
    "l": "kept_raw_long_source",
    "n": "kept_raw_empty_hypothesis",
}
"""How a target line came about, by the letter that stands for it in a shard's file."""

SYNC_SECONDS = 5.0
SETTINGS_FILE = "settings.json"
_SETTINGS: dict[str, type] = {"source_lang": str, "target_lang": str, "subset": str, "sentences": int, "shards": int}
_WHERE: dict[str, type] = {"command": list, "checkpoints": list}


@dataclass(frozen=True)
class Search:
    """Options of the beam search, as fairseq-generate names them."""

    beam: int = 5
    lenpen: float = 1.0
    max_len_a: float = 0.0
    max_len_b: int = 200

    @property
    def always_allows_a_token(self) -> bool:
        """Whether the limit of the hypotheses' length, ``A·x + B``, is at least 1 for the shortest source.

        That has two tokens, one of them ``</s>``; empty ones are not decoded.
        """
        return int(2 * self.max_len_a + self.max_len_b) >= 1


class Line(NamedTuple):
    """One target: sentence number (from 0), a key of ``KINDS``, tokens joined by spaces."""

    sentence: int
    kind: str
    tokens: str


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 0) of ``of`` parts of a data set of ``sentences`` sentences."""

    number: int
    of: int
    sentences: int

    def __len__(self) -> int:
        return len(range(self.number, self.sentences, self.of))

    def indices(self) -> NDArray[np.int64]:
        """The sentences of this shard, ascending."""
        return np.arange(self.number, self.sentences, self.of, dtype=np.int64)

    def file(self, folder: Path) -> Path:
        """Where the shard's lines are kept."""
        return folder / f"shard-{self.number}-of-{self.of}.tsv"


@dataclass
class ShardState:
    """What a shard's file holds.

    ``offsets`` ``[len(shard)]``: where in the file the line of the shard's n-th sentence starts (byte), -1 if it is not
    there; ``end``: length of the whole blocks in bytes; ``seconds``: decoding time of these.
    """

    offsets: NDArray[np.int64]
    end: int
    seconds: float

    def missing(self, shard: Shard) -> NDArray[np.int64]:
        """The sentences that are not there yet, ascending."""
        return shard.indices()[self.offsets < 0]


# ---- reading ---------------------------------------------------------------------------------------------------------


def scan(path: Path, shard: Shard) -> ShardState:
    """Read a shard's file; a missing one counts as empty, and an unfinished block at the end as not there.

    Raises:
        UserError: it cannot be read; a whole block that is not as it was written, or with a line that is none, of
            another shard, or there twice (file and line are named).
    """
    state = ShardState(np.full(len(shard), -1, dtype=np.int64), 0, 0.0)
    if not path.exists():
        return state
    try:
        with path.open("rb") as stream:
            _scan_stream(stream, path, shard, state)
    except OSError as error:
        raise _no_shard_file(path, error) from error
    return state


def _no_shard_file(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot be opened ({error.strerror}); expected a file of decoded sentences: check its rights, or move "
        "what stands there away to decode this shard again"
    )


def _scan_stream(stream: BinaryIO, path: Path, shard: Shard, state: ShardState) -> None:
    block: list[tuple[int, int]] = []  # (which of the shard's sentences, where its line starts)
    problem = ""
    offset = crc = 0
    first = 1  # line of the block
    for number, raw in enumerate(stream, start=1):
        if _is_block_end(raw):
            for position, start in block:
                if state.offsets[position] >= 0:
                    problem = problem or f"before line {number}: a sentence is there twice"
                state.offsets[position] = start
            if not problem and _end_line(_seconds(raw), crc) != raw:
                problem = f"lines {first} to {number}: not as they were written (their CRC differs)"
            if problem:
                raise UserError(
                    f"{path}: {problem}; the file was altered: `truncate -s {state.end} {shlex.quote(str(path))}` "
                    "keeps what stands before, and the shard's command decodes the rest again"
                )
            block, crc, first = [], 0, number + 1
            state.seconds += float(_seconds(raw))
            state.end = offset + len(raw)
        else:
            crc = zlib.crc32(raw, crc)
            if not problem:
                position, problem = _position(raw, shard)
                problem = problem and f"line {number}: {problem}"
                block.append((position, offset))
        offset += len(raw)


def _is_block_end(raw: bytes) -> bool:
    """Whether a whole line ends a block, be it a damaged one."""
    return raw.startswith(b"#\t") and raw.endswith(b"\n")


def _seconds(end: bytes) -> str:
    """The decoding time in a block's last line, "" if that is damaged."""
    found = re.fullmatch(rb"#\t(\d+\.\d+)\t[0-9a-f]{8}\n", end)
    return found[1].decode() if found else ""


def _end_line(seconds: str, crc: int) -> bytes:
    """A block's last line; ``crc`` is that of the lines before."""
    start = f"#\t{seconds}\t".encode()
    return start + f"{zlib.crc32(start, crc):08x}\n".encode()


def _position(raw: bytes, shard: Shard) -> tuple[int, str]:
    """``(which of the shard's sentences, "")`` or ``(-1, what is wrong)`` for a line of the file."""
    fields = raw.split(b"\t", 2)
    if len(fields) != 3 or not fields[0].isdigit() or fields[1].decode("latin-1") not in KINDS or raw[-1:] != b"\n":
        return -1, "expected index, kind and tokens"
    index = int(fields[0])
    if index >= shard.sentences or index % shard.of != shard.number:
        return -1, f"sentence {index} is not of this shard"
    return index // shard.of, ""


def parse_line(raw: bytes) -> Line:
    """A line of a shard's file that :func:`scan` found to be one."""
    index, kind, tokens = raw.decode("utf-8").rstrip("\n").split("\t", 2)
    return Line(int(index), kind, tokens)


# ---- writing ---------------------------------------------------------------------------------------------------------


class ShardWriter:
    """Appends blocks to a shard's file, which no other process can do meanwhile; use :func:`open_shard`."""

    def __init__(self, stream: BinaryIO, state: ShardState) -> None:
        self.state = state
        self._stream = stream
        self._synced = time.monotonic()

    def append(self, lines: Sequence[Line], seconds: float) -> None:
        """Add a batch that took ``seconds`` to decode; on disk within ``SYNC_SECONDS`` or when the file is closed."""
        block = "".join(f"{line.sentence}\t{line.kind}\t{line.tokens}\n" for line in lines).encode("utf-8")
        self._stream.write(block + _end_line(f"{seconds:.3f}", zlib.crc32(block)))
        self._stream.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()


@contextlib.contextmanager
def open_shard(path: Path, shard: Shard) -> Iterator[ShardWriter]:
    """Open or continue a shard's file; what stands behind its last whole block is cut off.

    Raises:
        UserError: another process writes this shard, or the file is damaged or cannot be opened.
    """
    try:
        opened = path.open("ab")
    except OSError as error:
        raise _no_shard_file(path, error) from error
    with opened as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{path}: another process decodes this shard; wait for it or stop it (`fuser {path}` shows it)"
            ) from None
        state = scan(path, shard)
        stream.truncate(state.end)
        try:
            yield ShardWriter(stream, state)
        finally:
            stream.flush()
            os.fsync(stream.fileno())


# ---- settings --------------------------------------------------------------------------------------------------------


def claim_settings(folder: Path, settings: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Write the settings that all shards share, or make sure that they are those of the run that is continued.

    Args:
        folder: the folder of the shards' files.
        settings: what decides the result; compared.
        where: paths and the like, for messages; not compared.

    Raises:
        UserError: a setting differs; all that do are named, with both values.
    """
    path = folder / SETTINGS_FILE
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several shards that start together one writes, the others compare
        if not path.exists():
            text = json.dumps({"settings": settings, "where": where}, indent=2, ensure_ascii=False) + "\n"
            with atomic_output(str(path)) as stream:
                stream.write(text.encode("utf-8"))
    refuse_other_settings(folder, settings)


def has_settings(folder: Path) -> bool:
    """Whether a run has claimed ``folder``."""
    return (folder / SETTINGS_FILE).is_file()


def refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise ``UserError`` unless the shards in ``folder`` were made with ``settings`` (those that are given)."""
    known = read_settings(folder)["settings"]
    changed = [
        f"{name.replace('_', ' ')} was {shown(known.get(name))}, now it is {shown(value)}"
        for name, value in settings.items()
        if known.get(name) != value
    ]
    if changed:
        raise UserError(
            f"{folder} holds sentences decoded with other settings: {'; '.join(changed)}. Give the same settings to "
            "continue, another --output to start anew, or delete this folder"
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """``{"settings": …, "where": …}`` of the shards in ``folder``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / SETTINGS_FILE
    if not has_settings(folder):
        raise UserError(f"{folder}: no shard was decoded here; run nat distill without --merge first")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); delete {folder} to start anew") from error
    if lacking := _lacking(content):
        raise UserError(
            f"{path}: not the settings of a nat distill run (lacks {', '.join(lacking)}); delete {folder} to start anew"
        )
    return content


def _lacking(content: Any) -> list[str]:
    """The settings that every run writes and ``content`` does not have as they should be."""
    sections = {"settings": _SETTINGS, "where": _WHERE}
    known = content if isinstance(content, dict) else {}
    lacking = [
        f"{section}.{name}"
        for section, names in sections.items()
        for name, kind in names.items()
        if not isinstance(known.get(section), dict) or not isinstance(known[section].get(name), kind)
    ]
    if not lacking:
        lacking += ["settings.shards of at least 1"] if known["settings"]["shards"] < 1 else []
        lacking += [
            f"where.{name} of texts"
            for name in _WHERE
            if not all(isinstance(word, str) for word in known["where"][name])
        ]
    return lacking


def shown(value: Any) -> str:
    """A setting in a message: hashes shortened."""
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def refuse_missing_sentences(states: Sequence[ShardState], shards: Sequence[Shard], commands: Sequence[str]) -> None:
    """Raise one ``UserError`` that names each incomplete shard: how many sentences lack, the first, what to run."""
    problems = []
    for state, shard, command in zip(states, shards, commands, strict=True):
        missing = state.missing(shard)
        if len(missing):
            first = ", ".join(map(str, missing[:5].tolist())) + (", …" if len(missing) > 5 else "")
            problems.append(
                f"shard {shard.number} of {shard.of} lacks {len(missing):,} of {len(shard):,} sentences "
                f"(counted from 0: {first}); run\n    {command}"
            )
    raise_all(problems)
