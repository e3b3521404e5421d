"""Files of pairs as memory-mapped token ids, made once and found again."""

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nid_plugin.formatting import Formatter, TokenizedPair
from nid_plugin.pairs import Pair, read_pairs
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar
from plugin_common.whole_folder import whole_folder

logger = logging.getLogger(__name__)

VERSION = 1
META, IDS, OFFSETS, PROMPTS, HEADS = "meta.json", "ids.bin", "offsets.npy", "prompt_lengths.npy", "heads.npy"
_ARRAYS = (IDS, OFFSETS, PROMPTS, HEADS)
_BATCH_PAIRS, _BATCH_CHARACTERS = 2000, 8_000_000  # handed to the tokenizer at once: bounds the memory
_BLOCK = 2**20


class TokenizedPairs:
    """The token ids of a file's pairs, in the file's order; they stay on disk.

    Attributes:
        folder: where they are.
        prompt_lengths: int64 ``[len(self)]``, heads included.
        completion_lengths: int64 ``[len(self)]``, end tokens included.
        heads: int64 ``[len(self)]``: how many of a prompt's first tokens may never be cut.
        vocabulary_top: the largest id that occurs.
        looking_special: pairs that hold text which looks like a special token, tokenized as text.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is a complete one, as :func:`tokenize_pairs` makes it."""
        self.folder = folder
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        self.vocabulary_top = int(meta["vocabulary_top"])
        self.looking_special = int(meta["looking_special"])
        self._ids: NDArray[Any] = np.memmap(folder / IDS, dtype=meta["dtype"], mode="r")
        self._offsets: NDArray[np.int64] = np.load(folder / OFFSETS, mmap_mode="r")
        self.prompt_lengths: NDArray[np.int64] = np.load(folder / PROMPTS, mmap_mode="r")
        self.heads: NDArray[np.int64] = np.load(folder / HEADS, mmap_mode="r")
        self.completion_lengths: NDArray[np.int64] = np.diff(self._offsets) - self.prompt_lengths

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    def prompt(self, index: int) -> NDArray[np.int64]:
        """The ids of a prompt, head included."""
        start = self._offsets[index]
        return self._ids[start : start + self.prompt_lengths[index]].astype(np.int64)

    def completion(self, index: int) -> NDArray[np.int64]:
        """The ids of a completion, end token included."""
        start = self._offsets[index] + self.prompt_lengths[index]
        return self._ids[start : self._offsets[index + 1]].astype(np.int64)

    def head(self, index: int) -> int:
        """How many of a prompt's first tokens may never be cut."""
        return int(self.heads[index])

    def __reduce__(self) -> tuple[type["TokenizedPairs"], tuple[Path]]:
        return TokenizedPairs, (self.folder,)  # another process maps the files itself


def tokenize_pairs(file: str, formatter: Formatter, *, cache: Path | None) -> TokenizedPairs:
    """The tokenized pairs of a file, from the cache where they are there.

    The same file content, tokenizer and format give the same entry of the cache. Of several processes that want an
    entry one makes it, while the others wait where the file system has locks. A damaged entry is made again.

    Args:
        file: JSON Lines, as :func:`nid_plugin.pairs.read_pairs` reads them.
        cache: a folder, made if need be; None for a temporary one, which goes with the result.

    Raises:
        UserError: the file cannot be read or holds no pair, or a line is none; a pair whose prompt gives no token; the
            cache cannot be written.
    """
    digest, lines = _content(file)
    if cache is None:
        temporary = Path(tempfile.mkdtemp(prefix="tokenized-pairs-"))
        try:
            made = _make(file, lines, formatter, temporary / "entry")
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        weakref.finalize(made, _remove_by, os.getpid(), temporary)
        return _told(made, file)
    key = hashlib.sha256(f"{VERSION} {digest} {formatter.fingerprint}".encode()).hexdigest()[:32]
    entry = Path(cache) / key
    with _alone(entry):
        found = _opened(entry)
        if found is not None:
            logger.info("%s: tokenized before, %s", file, entry)
            return _told(found, file)
        _remove(entry)
        try:
            return _told(_make(file, lines, formatter, entry), file)
        except UserError:
            made_by_another = _opened(entry)  # on a file system without locks
            if made_by_another is None:
                raise
            return _told(made_by_another, file)


def _remove_by(process: int, folder: Path) -> None:
    if os.getpid() == process:  # forked workers leave it to their parent
        shutil.rmtree(folder, ignore_errors=True)


def _told(pairs: TokenizedPairs, file: str) -> TokenizedPairs:
    logger.info(
        "%s: %d pairs, %d prompt tokens, %d completion tokens",
        file, len(pairs), pairs.prompt_lengths.sum(), pairs.completion_lengths.sum(),
    )  # fmt: skip
    if pairs.looking_special:
        logger.info(
            "%s: %d pairs hold text that looks like a special token; it is tokenized as text",
            file, pairs.looking_special,
        )  # fmt: skip
    return pairs


def _content(file: str) -> tuple[str, int]:
    """The hash of a file's bytes, and how many lines they have (compressed ones: not known, 0)."""
    digest, lines = hashlib.sha256(), 0
    try:
        if not Path(file).is_file():
            raise UserError(f"{file}: no such file; give a file of pairs, as `nid complete` writes it")
        with Path(file).open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                lines += block.count(b"\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check rights") from error
    return digest.hexdigest(), 0 if file.endswith((".gz", ".zst")) else lines


@contextlib.contextmanager
def _alone(entry: Path) -> Iterator[None]:
    """Hold the entry's lock; go on without one where the file system has none."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = entry.with_name(f".{entry.name}.lock").open("wb")
    except OSError as error:
        raise UserError(f"{entry.parent}: cannot be written ({error.strerror}); give another cache folder") from error
    with lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(entry: Path) -> TokenizedPairs | None:
    """The entry, or None where there is none or it is damaged."""
    if not entry.exists():
        return None
    try:
        meta = json.loads((entry / META).read_text(encoding="utf-8"))
        for name in _ARRAYS:
            if _checksum(entry / name) != meta["checksums"][name]:
                raise ValueError(f"{name} is not as it was written")
        return TokenizedPairs(entry)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: damaged (%s); tokenizing again", entry, error)
        return None


def _remove(entry: Path) -> None:
    if entry.exists():
        away = entry.with_name(f".{entry.name}.damaged-{os.getpid()}")
        entry.replace(away)  # in one step: who reads from it keeps its files
        shutil.rmtree(away, ignore_errors=True)


def _checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


@dataclass
class _Lists:
    """What is known of each pair besides its ids."""

    lengths: list[int]
    prompts: list[int]
    heads: list[int]
    top: int = 0
    looking_special: int = 0

    def add(self, pair: TokenizedPair) -> None:
        self.lengths.append(len(pair.prompt) + len(pair.completion))
        self.prompts.append(len(pair.prompt))
        self.heads.append(pair.head)
        self.looking_special += pair.looks_special


def _make(file: str, lines: int, formatter: Formatter, entry: Path) -> TokenizedPairs:
    dtype: type[np.unsignedinteger[Any]] = np.uint16 if formatter.vocabulary_size <= 2**16 else np.uint32
    with whole_folder(entry, marker=META) as folder:
        with (folder / IDS).open("wb") as stream:
            lists = _write_ids(file, lines, formatter, stream, dtype)
        if not lists.lengths:
            raise UserError(f"{file}: holds no pair; give a file of pairs, as `nid complete` writes it")
        np.save(folder / OFFSETS, np.concatenate([[0], np.cumsum(lists.lengths, dtype=np.int64)]).astype(np.int64))
        np.save(folder / PROMPTS, np.asarray(lists.prompts, dtype=np.int64))
        np.save(folder / HEADS, np.asarray(lists.heads, dtype=np.int64))
        meta = {
            "version": VERSION,
            "file": file,
            "pairs": len(lists.lengths),
            "dtype": np.dtype(dtype).name,
            "vocabulary_top": lists.top,
            "looking_special": lists.looking_special,
            "pair_format": json.loads(formatter.pair_format.to_json()),
            "checksums": {name: _checksum(folder / name) for name in _ARRAYS},
        }
        (folder / META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return TokenizedPairs(entry)


def _write_ids(
    file: str, lines: int, formatter: Formatter, stream: BinaryIO, dtype: type[np.unsignedinteger[Any]]
) -> _Lists:
    lists = _Lists([], [], [])
    with progress_bar(total=lines or None, unit=" pairs", description=f"tokenize {Path(file).name}") as bar:
        for batch in _batches(read_pairs(file, unicode=True)):
            tokenized = formatter.pair_ids([pair.prompt for pair in batch], [pair.completion for pair in batch])
            for pair in tokenized:
                lists.add(pair)
                if not pair.prompt:
                    raise UserError(f"pair {len(lists.heads)} of {file}: its prompt gives no token; remove it")
            parts = (part for pair in tokenized for part in (pair.prompt, pair.completion))
            ids = np.fromiter(itertools.chain.from_iterable(parts), dtype)
            lists.top = max(lists.top, int(ids.max()))
            stream.write(ids.tobytes())
            bar.update(len(batch))
    return lists


def _batches(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    characters = 0
    for pair in pairs:
        batch.append(pair)
        characters += len(pair.prompt) + len(pair.completion)
        if len(batch) == _BATCH_PAIRS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
