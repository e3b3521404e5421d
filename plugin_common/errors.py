"""Errors that a user can act on, and how a command line shows them."""

import sys
from collections.abc import Callable, Iterable
from types import TracebackType


class UserError(ValueError):
    """Bad input: the message names the file, line or option, what was expected and what to do next.

    Raised anywhere below a command line; the command prints the message alone, without a traceback.
    """


def raise_all(problems: Iterable[str]) -> None:
    """Raise one ``UserError`` that lists every problem; do nothing if there is none."""
    listed = list(problems)
    if len(listed) == 1:
        raise UserError(listed[0])
    if listed:
        raise UserError("\n".join([f"{len(listed)} problems:", *(f"  - {p}" for p in listed)]))


def show_user_errors_plainly() -> None:
    """Let uncaught ``UserError``s end the process with their message alone (other exceptions keep their traceback).

    fairseq's commands let exceptions through to the interpreter; that is where this hooks in. Idempotent.
    """
    previous = sys.excepthook
    if getattr(previous, "shows_user_errors_plainly", False):
        return
    sys.excepthook = _plain_hook(previous)


def _plain_hook(
    previous: Callable[[type[BaseException], BaseException, TracebackType | None], object],
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UserError):
            sys.stdout.flush()
            print(f"error: {error}", file=sys.stderr)
        else:
            previous(kind, error, traceback)

    hook.shows_user_errors_plainly = True  # type: ignore[attr-defined]
    return hook
