"""Give memory that was freed back to the system."""

import contextlib
import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    with contextlib.suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
        return trim
    return None


def give_back_free_memory() -> None:
    """Let go of what the C library keeps for later (glibc's ``malloc_trim``); nothing where it cannot.

    Blocks that live long, between others that come and go in many sizes, leave holes that new blocks do not fit into:
    a process then holds far more than it uses. Pages given back come anew, zeroed, when they are used again.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)
