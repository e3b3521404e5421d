"""What a control reads and writes: folders are not overwritten unasked, inputs never; an id stands for one pair."""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from nid_plugin.pairs import Pair
from plugin_common.errors import UserError, raise_all
from plugin_common.whole_folder import whole_folder

T = TypeVar("T")
REPORT = "report.json"
"""A folder that was written by a control is complete where it holds this file."""


def refuse_overwriting(out: str, inputs: Mapping[str, str | None]) -> None:
    """Raise a ``UserError`` if ``out`` is one of the inputs (option → file), or if there is no folder for it."""
    problems = [
        f"--out {out}: is also {option}, which would be lost; give another name"
        for option, path in inputs.items()
        if path and Path(path).exists() and Path(out).exists() and Path(path).samefile(out)
    ]
    if not folder_of(out).is_dir():
        problems.append(f"--out {out}: there is no folder {folder_of(out)}; make it first")
    raise_all(problems)


def folder_of(out: str) -> Path:
    """The folder in which ``out`` stands; the one for temporary files if it is standard output."""
    if out == "-":
        return Path(tempfile.gettempdir())
    return Path(out).resolve().parent


def report_folder(
    out: str, names: Iterable[str], inputs: Iterable[str], *, overwrite: bool
) -> AbstractContextManager[Path]:
    """A folder to write these files and ``report.json`` into, made whole at the end (see ``whole_folder``).

    Args:
        out: may exist if it is empty; with ``overwrite`` also if it is of an earlier run.
        names: glob patterns of the files that belong to such a folder.
        inputs: files that are read; they must not be in the way.
        overwrite: replace an earlier run's files.

    Raises:
        UserError: ``out`` is a file, holds other files, or holds an earlier run and ``overwrite`` is not asked for.
    """
    target = Path(out)
    if target.exists() and not target.is_dir():
        raise UserError(f"--out {out}: is a file; give a folder")
    there = sorted(target.iterdir()) if target.is_dir() else []
    own = [path for path in there if path.name == REPORT or any(path.match(name) for name in names)]
    if strange := [path.name for path in there if path not in own]:
        raise UserError(f"--out {out}: holds {', '.join(strange[:3])}, not made by this command; give another folder")
    if own and not overwrite:
        raise UserError(f"--out {out}: holds the files of an earlier run; give another folder, or --overwrite")
    read = {Path(path).resolve() for path in inputs}
    if lost := [path for path in own if path.resolve() in read]:
        raise UserError(f"--out {out}: holds the input {lost[0].name}, which would be lost; give another folder")
    return whole_folder(out, marker=REPORT, replaces=(lambda _: [path.name for path in own]) if own else None)


def read_only_once(path: str) -> str | None:
    """Says so if ``path`` is standard input, a pipe or the like: read again, it would be empty."""
    if path == "-":
        return "standard input can be read only once"
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        return f"{path}: is no regular file and can be read only once"
    return None


def tell(line: str, out: str) -> None:
    """Print a line about what was written to ``out``; not among it where that is standard output."""
    print(line, file=sys.stderr if out == "-" else sys.stdout)


def at_least_one(records: Iterable[T], message: str) -> Iterator[T]:
    """The records; a ``UserError`` with ``message`` in the end if there is none."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise UserError(message)


def ids_once(pairs: Iterable[Pair], path: str) -> Iterator[Pair]:
    """The pairs; some 100 bytes of memory each.

    Raises:
        UserError: an id occurs twice: the file was joined from several that overlap.
    """
    seen: set[int] = set()
    for number, pair in enumerate(pairs, start=1):
        key = hash(pair.id)
        if key in seen:
            raise UserError(
                f"{path}: the id {pair.id} occurs twice, again in pair {number:,}; was the file joined from several "
                "that overlap? `nid merge` joins ledgers without that"
            )
        seen.add(key)
        yield pair
