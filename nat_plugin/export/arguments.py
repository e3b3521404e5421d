"""What a caller gives to the translator, checked before anything is loaded or run."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from math import inf, isfinite, nan
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from nat_plugin.export.folder import MODEL_FILES
from plugin_common.errors import UserError, raise_all

CANDIDATES = 20
"""Labels at each position that the beam search considers, unless told otherwise."""
MOST_BEAM = 1000
THREADS_PER_CORE = 4
"""More only wait for each other; thousands of them bring a machine to a halt."""

_LARGEST = 2**31 - 1
_SHOWN = 10


def cores() -> int:
    """Of this machine."""
    return os.cpu_count() or 1


def argument_problems(
    folder: object, precision: object, threads: object, max_positions_per_run: object
) -> Iterator[str]:
    """What is wrong with the arguments of a translator other than those of the beam search."""
    if not isinstance(folder, str | os.PathLike):
        yield f"folder {folder!r}: expected the path of a folder that `nat export` made"
    if precision is not None and not (isinstance(precision, str) and precision in MODEL_FILES):
        yield f"precision {precision}: expected one of {', '.join(MODEL_FILES)}"
    given = {"max positions per run": max_positions_per_run} | ({} if threads is None else {"threads": threads})
    problems = [problem for name, count in given.items() for problem in count_problems(name, count)]
    yield from problems
    most = THREADS_PER_CORE * cores()
    if not problems and isinstance(threads, Integral) and int(threads) > most:
        yield f"threads {threads}: expected at most {most}, {THREADS_PER_CORE} for each of this machine's cores"


def count_problems(name: str, count: object, most: int = _LARGEST) -> Iterator[str]:
    """What is wrong with a count of at least 1."""
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        yield f"{name} {count!r}: expected a whole number of at least 1"
    elif int(count) > most:
        yield f"{name} {count}: expected at most {most:,}"


def search_problems(
    beam: object, candidates: object, lm: object, lm_weight: object, token_bonus: object
) -> Iterator[str]:
    """What is wrong with the arguments of the beam search."""
    yield from count_problems("beam", beam, MOST_BEAM)
    yield from count_problems("candidates", candidates)
    if lm is not None:
        yield from _lm_problems(lm)
    if not 0 <= _number(lm_weight) < inf:
        yield f"lm weight {lm_weight}: expected a number of 0 or more"
    elif lm is not None and lm_weight == 0:
        yield "lm: has no effect without a weight; give one, e.g. lm_weight=0.3 (--lm-weight 0.3)"
    elif lm is None and lm_weight:
        yield f"lm weight {lm_weight}: needs a language model; give lm=FILE (--lm FILE), or leave it out"
    if not isfinite(_number(token_bonus)):
        yield f"token bonus {token_bonus}: expected a finite number"
    if beam == 1:
        given = {"lm": lm is not None, "token bonus": token_bonus != 0, "candidates": candidates != CANDIDATES}
        yield from (
            f"{name}: has no effect without a beam; give one, e.g. beam=5 (--ctc-beam 5), or leave it out"
            for name, is_given in given.items()
            if is_given
        )


def _lm_problems(lm: object) -> Iterator[str]:
    if not isinstance(lm, str | os.PathLike):
        yield f"lm {lm!r}: expected the path of a file that `nat ngram-lm` made"
    elif not Path(lm).is_file():
        yield f"lm {lm}: no such file; make one with `nat ngram-lm`"


def _number(value: object) -> float:
    """NaN for what is none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return nan
    try:
        return float(value)
    except OverflowError:
        return inf


def check_is_list(items: Any, of: str) -> None:
    """Refuse what holds no items, and a single text, whose items are characters.

    Raises:
        UserError: names what was expected.
    """
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise UserError(f"expected a list of {of}, found a single {type(items).__name__}; give [it]")


def checked_lines(lines: Iterable[Any], first: int = 0) -> list[str]:
    """The lines as a list.

    Args:
        first: place of the first line, for messages.

    Raises:
        UserError: no list, or an item that is no ``str``: names the first few places.
    """
    check_is_list(lines, "lines")
    taken = list(lines)
    problems = (
        f"lines[{place}]: expected a str, found {type(line).__name__}"
        for place, line in enumerate(taken, start=first)
        if not isinstance(line, str)
    )
    raise_all(islice(problems, _SHOWN))
    return taken


def checked_sources(sources: Iterable[Any], symbols: int) -> list[np.ndarray]:
    """Rows of ids as int64 arrays.

    Args:
        symbols: of the model; ids are less.

    Raises:
        UserError: no list, or an item that is no row of such ids: names the first few places.
    """
    check_is_list(sources, "rows of ids")
    rows = [_row(source) for source in sources]
    problems = (
        f"sources[{place}]: expected a row of whole numbers from 0 to {symbols - 1}"
        for place, row in enumerate(rows)
        if row is None or (row.size and (row.min() < 0 or row.max() >= symbols))
    )
    raise_all(islice(problems, _SHOWN))
    return [row.astype(np.int64, copy=False) for row in rows if row is not None]


def _row(source: Any) -> np.ndarray | None:
    """One axis of whole numbers, or None; numpy takes an empty list for numbers that are not whole."""
    try:
        row = np.asarray(source)
    except (ValueError, TypeError):
        return None
    if row.ndim != 1 or not (np.issubdtype(row.dtype, np.integer) or row.size == 0):
        return None
    return row
