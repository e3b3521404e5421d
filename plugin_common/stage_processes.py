"""Commands as child processes: with files for their output, stopped together with all that they started."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from plugin_common.errors import UserError
from plugin_common.stages import Command

SECONDS_TO_STOP = 10.0


class _NamedAtTheEnd:
    """A file that is written under a hidden name until it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.stream = self.partial.open("wb")

    def name(self) -> None:
        """Give it its name."""
        self.stream.close()
        self.partial.replace(self.path)

    def drop(self) -> None:
        """Delete it."""
        self.stream.close()
        self.partial.unlink(missing_ok=True)


class Child:
    """A running command: the head of a process group of its own, so that what it starts can be stopped with it."""

    def __init__(
        self,
        command: Command,
        words: Sequence[str],
        log: IO[bytes],
        *,
        environment: Mapping[str, str],
        inherited: Sequence[int],
    ) -> None:
        """Start it.

        Args:
            command: what it is, and which files get its output.
            words: the program's path and all its arguments.
            log: gets the command's line, and its output if no file does.
            environment: variables beside those of this process.
            inherited: file descriptors that it keeps open.

        Raises:
            UserError: there is no such program.
        """
        self.command, self._log = command, log
        log.write(f"$ {command.line()}\n".encode())
        log.flush()
        self._files = [_NamedAtTheEnd(path) for path in (command.output, command.errors) if path is not None]
        streams = {file.path: file.stream for file in self._files}
        try:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=streams[command.output] if command.output else log,
                stderr=streams[command.errors] if command.errors else log,
                env={**os.environ, **environment},
                pass_fds=inherited,
                process_group=0,
            )
        except OSError as error:
            for file in self._files:
                file.drop()
            raise UserError(f"{words[0]}: cannot be started ({error.strerror}); is everything installed?") from error

    def end(self) -> int:
        """After the process has ended: name its files if all went well, else log what it complained of; the status."""
        status = self.process.wait()
        if status != 0:
            self.signal(signal.SIGTERM)  # a program that failed may leave workers behind
        for file in self._files:
            if status == 0:
                file.name()
            else:
                if file.path == self.command.errors:
                    self._log.write(file.partial.read_bytes())
                    self._log.flush()
                file.drop()
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the process and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def stop(children: Collection[Child]) -> None:
    """End what still runs: first kindly, then not."""
    try:
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_STOP
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also when Ctrl-C is pressed again
        for child in children:
            child.signal(signal.SIGKILL)
            child.end()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP end the process like an exception, so that children are stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # An ignored SIGHUP stays ignored: that is what nohup does.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
