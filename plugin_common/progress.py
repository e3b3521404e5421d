"""A progress bar on a terminal, a plain line now and then elsewhere."""

import sys
from typing import Any, TextIO

from tqdm import tqdm


def progress_bar(*, total: int | None, unit: str, description: str, stream: TextIO | None = None) -> Any:
    """A ``tqdm`` bar (``update(n)``, context manager) on standard error.

    On a terminal it redraws ten times a second; elsewhere (a log file, CI) it prints a line of its own at most every
    30 seconds and one at the end.
    """
    out = stream if stream is not None else sys.stderr
    terminal = out.isatty()
    return tqdm(
        total=total,
        unit=unit,
        unit_scale=True,
        desc=description,
        file=out if terminal else _LinePerUpdate(out),
        mininterval=0.1 if terminal else 30.0,
        maxinterval=10.0 if terminal else 60.0,
        dynamic_ncols=terminal,
        ascii=not terminal,
    )


class _LinePerUpdate:
    """Turns tqdm's carriage returns into lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.strip("\r\n \x1b[A")
        if line:
            self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
