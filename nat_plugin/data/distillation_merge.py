"""Put the shards of distilled data together: order restored, line counts checked, raw pairs before them if wanted."""

import contextlib
import json
import mmap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nat_plugin.data.distillation import KINDS, Line, Shard, ShardState, parse_line
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

REPORT_FILE = "distill.json"
_UNKNOWN = "<unk>"


@dataclass
class MergeCounts:
    """Sentences by kind (a value of ``KINDS``), and the unknown tokens in hypotheses."""

    kinds: Counter[str] = field(default_factory=Counter)
    unk_tokens: int = 0
    unk_sentences: int = 0

    def add(self, line: Line) -> None:
        """Count one line."""
        self.kinds[KINDS[line.kind]] += 1
        if line.kind == "h" and (unknown := line.tokens.split(" ").count(_UNKNOWN)):
            self.unk_tokens += unknown
            self.unk_sentences += 1

    def as_dict(self) -> dict[str, int]:
        """All counts by name, those that are 0 included."""
        kinds = {name: self.kinds[name] for name in KINDS.values()}
        return {**kinds, "unk_tokens": self.unk_tokens, "unk_sentences": self.unk_sentences}


def lines_in_order(folder: Path, shards: Sequence[Shard], states: Sequence[ShardState]) -> Iterator[Line]:
    """The lines of all shards by rising sentence number.

    Args:
        states: what :func:`nat_plugin.data.distillation.scan` found; every sentence must be there.

    Raises:
        UserError: a file changed since it was scanned.
    """
    with contextlib.ExitStack() as stack:
        views = [_map(stack, shard.file(folder)) if len(shard) else b"" for shard in shards]
        for index in range(shards[0].sentences):
            number = index % len(shards)
            start = int(states[number].offsets[index // len(shards)])
            view = views[number]
            try:
                line = parse_line(view[start : view.find(b"\n", start) + 1])
            except ValueError:  # no UTF-8, or not three fields
                line = None
            if line is None or line.sentence != index:
                raise UserError(f"{shards[number].file(folder)} was changed while it was read; run the command again")
            yield line


def _map(stack: contextlib.ExitStack, path: Path) -> mmap.mmap:
    stream = stack.enter_context(path.open("rb"))
    return stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def write_corpus(
    files: tuple[Path, Path],
    sides: tuple[Callable[[int], str], Callable[[int], str]],
    lines: Iterator[Line],
    *,
    sentences: int,
    mix: bool,
    on_line: Callable[[], object] = lambda: None,
) -> MergeCounts:
    """Write source and target text, each complete or not at all.

    Args:
        files: the source's and the target's.
        sides: give the raw source and target text of a sentence.
        lines: the distilled targets in order, ``sentences`` of them.
        mix: put all raw pairs first.

    Raises:
        UserError: a file cannot be written.
    """
    counts = MergeCounts()
    source_text, target_text = sides
    with atomic_output(str(files[0])) as source, atomic_output(str(files[1])) as target:
        written = 0
        for index in range(sentences if mix else 0):
            written += _write_pair(source, target, source_text(index), target_text(index))
            on_line()
        for line in lines:
            written += _write_pair(source, target, source_text(line.sentence), line.tokens)
            counts.add(line)
            on_line()
        expected = 2 * sentences if mix else sentences
        if written != expected:
            raise RuntimeError(f"{written} pairs were written, expected {expected}")
    for file in files:
        _check_line_count(file, expected)
    return counts


def _write_pair(source: BinaryIO, target: BinaryIO, source_line: str, target_line: str) -> int:
    source.write(f"{source_line}\n".encode())
    target.write(f"{target_line}\n".encode())
    return 1


def _check_line_count(file: Path, expected: int) -> None:
    with file.open("rb") as stream:
        found = sum(block.count(b"\n") for block in iter(lambda: stream.read(2**20), b""))
    if found != expected:
        raise UserError(
            f"{file}: {found:,} lines, expected {expected:,}: a token of the dictionary holds a line end, or the file "
            "was changed meanwhile; check the dictionary and merge again"
        )


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write what the data were made with and how much of what they hold, as JSON."""
    with atomic_output(str(path)) as stream:
        stream.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def summary(counts: MergeCounts, seconds: float, sentences: int) -> list[str]:
    """What to tell the user: the figures, then every sentence that did not get a hypothesis."""
    decoded = counts.kinds[KINDS["h"]]
    rate = f", {decoded / seconds:,.1f} a second" if seconds else ""
    texts = {
        "s": "sources are empty: their raw target is kept",
        "l": "sources are longer than the teacher can read: their raw target is kept",
        "n": "hypotheses are empty: the raw target is kept",
    }
    lines = [f"{sentences:,} sentences: {decoded:,} decoded in {seconds:,.1f} s (all shards added up{rate})"]
    lines += [f"{counts.kinds[KINDS[kind]]:,} {text}" for kind, text in texts.items() if counts.kinds[KINDS[kind]]]
    if counts.unk_tokens:
        lines.append(f"{counts.unk_tokens:,} <unk> in {counts.unk_sentences:,} hypotheses")
    return lines
