"""A process that serves its parent through a pipe, one request after another."""

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class ChildProcess:
    """``with ChildProcess(serve, …) as child: child.ask(…)``.

    ``serve(pipe, *arguments)`` runs in a new process. It sends what it answers, and a text in place of that if it
    failed; it ends when its pipe is closed.

    Args:
        serve: a function of a module.
        arguments: of ``serve``, after its end of the pipe.
        patience: seconds it is given to end.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any, patience: float = 10) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._patience = patience
        self._process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, request: Any) -> Any:
        """Send a request and wait for its answer; raises as :meth:`answer`."""
        self._pipe.send(request)
        return self.answer()

    def answer(self) -> Any:
        """Wait for what the process sends next.

        Raises:
            RuntimeError: the process failed; with its error, or that it ended without one.
        """
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"the process ended with status {self._process.exitcode} (-9: memory was full)"
            ) from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=self._patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
