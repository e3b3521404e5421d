"""Replace a function of a library at run time, once."""

from collections.abc import Callable
from typing import Any


def replace_once(target: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace ``target.name`` by ``make(original)`` unless the function that defines ``make`` did so before.

    The replacement's ``__wrapped__`` is what it replaces.
    """
    original = getattr(target, name)
    done: frozenset[str] = getattr(original, "cures", frozenset())
    if make.__qualname__ in done:
        return
    replacement = make(original)
    replacement.__wrapped__ = original
    replacement.cures = done | {make.__qualname__}
    setattr(target, name, replacement)
