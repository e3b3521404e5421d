"""Let a run end in order when it is interrupted."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def first_signal_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM calls ``stop``; a second one does what it does elsewhere.

    Needs a running event loop; outside the main thread signals are left to whoever runs it.
    """
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for number in SIGNALS:
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)

    def first() -> None:
        leave()
        stop()

    with contextlib.suppress(ValueError, RuntimeError):
        for number in SIGNALS:
            loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        leave()
