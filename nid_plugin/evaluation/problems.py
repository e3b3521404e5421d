"""Gather what several checks complain of, so that a user hears of everything at once."""

from collections.abc import Callable
from typing import TypeVar

from plugin_common.errors import UserError

Value = TypeVar("Value")


def collected(problems: list[str], check: Callable[[], Value]) -> Value | None:
    """What a check gives, or None after its complaints were added to ``problems``, one entry each."""
    try:
        return check()
    except UserError as error:
        head, *rest = str(error).split("\n")
        own = [line.removeprefix("  - ") for line in rest] if head.endswith(" problems:") else [str(error)]
        problems.extend(own)
        return None
