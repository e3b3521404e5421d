"""Keep a library's notices out of a command's output."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def warnings_only(*names: str) -> Iterator[None]:
    """Within the block the loggers of these names, and those below them, say nothing milder than a warning."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
