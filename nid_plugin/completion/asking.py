"""Ask many requests at once, each until it has its one result: the run behind ``nid complete`` and the judge."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import tenacity

from nid_plugin.completion.backoff import seconds_to_wait
from nid_plugin.completion.garbage import rare_garbage_collection
from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.limits import RateLimits
from nid_plugin.completion.outcome import Outcome
from nid_plugin.completion.prices import Price
from nid_plugin.completion.results import Failure, Result, Status
from nid_plugin.completion.saving import Saver, cannot_be_written
from nid_plugin.completion.settings import Connection, Request, RequestSettings, body_of, prompt_token_bound
from nid_plugin.completion.signals import first_signal_calls
from nid_plugin.completion.spending import Spending, SpendingLimit, spending_of
from nid_plugin.completion.teacher import Again, Answer, Refused, Teacher, Unusable
from plugin_common.errors import UserError

WAITING_PER_SLOT = 4
"""Requests that wait for another attempt, for each in flight; more are not begun."""

FAILURES_IN_A_ROW = 50
"""So many requests given up without a single answer in between end the run."""

UNHEARD = ("unreachable", "timeout", "connection broken")
ATTEMPTS_UNHEARD = 4


class Asking:
    """One run over requests.

    Args:
        settings: of all requests.
        connection: how to reach the teacher.
        ledger: gets the results.
        spending: counts what is paid.
        price: None where it is unknown: then nothing is counted.
        progress: called after each result that is on the disk, with it or the failure.
    """

    def __init__(
        self,
        settings: RequestSettings,
        connection: Connection,
        ledger: Ledger,
        spending: Spending,
        price: Price | None,
        progress: Any = None,
    ) -> None:
        self.settings, self.connection, self.price = settings, connection, price
        self.spending, self._ledger = spending, ledger
        self.outcome = Outcome()
        self._slots = asyncio.Semaphore(connection.concurrency)
        self._limits = RateLimits(connection)
        self._stop = asyncio.Event()
        self._saver = Saver(ledger, spending, self._stop_because)
        self._progress = progress or (lambda record: None)
        self._failures_in_a_row = 0

    async def run(self, requests: Iterable[Request]) -> Outcome:
        """Ask them all; returns when each has a result or a failure on the disk, or the run had to stop.

        The first request goes alone: a wrong key or a wrong address shows after one request, not after thousands.
        """
        pending = iter(requests)
        async with Teacher(self.connection, self.settings.api, self.settings.model) as teacher, self._saver:
            with first_signal_calls(self._interrupt):
                for first in pending:
                    await self._one(teacher, first)
                    break
                await self._all(teacher, pending)
        return self.outcome

    async def _all(self, teacher: Teacher, pending: Iterator[Request]) -> None:
        begun = asyncio.Semaphore(self.connection.concurrency * (1 + WAITING_PER_SLOT))
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            begun.release()
            if not task.cancelled() and task.exception() is not None:
                self._stop_because(f"{task.exception()!r}")
                failures.append(task.exception())

        failures: list[BaseException | None] = []
        try:
            while not self._stop.is_set():
                await begun.acquire()
                request = None if self._stop.is_set() else next(pending, None)
                if request is None:
                    break
                task = asyncio.create_task(self._one(teacher, request))
                tasks.add(task)
                task.add_done_callback(ended)
        except Exception as error:  # of whoever gives the requests: what is in flight is saved all the same
            self._stop_because(f"{error!r}")
            raise
        finally:
            while tasks:
                await asyncio.wait(tasks)
        if failures and failures[0] is not None:
            raise failures[0]

    async def _one(self, teacher: Teacher, request: Request) -> None:
        begun, counter = monotonic(), _Attempts()
        try:
            answered = await self._answer(teacher, request, counter)
        except (Again, Refused) as error:
            permanent = isinstance(error, Refused)
            failure = Failure(request.id, error.reason, str(error), permanent, counter.sent, _now())
            await self._saver.save(failure)
            self._given_up(failure)
        except (Unusable, SpendingLimit) as error:
            self._stop_because(str(error))
        except _Stopped:
            pass
        else:
            seconds = round(monotonic() - begun, 3)
            result = replace(answered, seconds=seconds, attempts=counter.sent, at=_now())
            await self._saver.save(result)
            self._failures_in_a_row = 0
            self.outcome.answered[result.status] += 1
            self._progress(result)

    async def _answer(self, teacher: Teacher, request: Request, counter: "_Attempts") -> Result:
        text, usage, answers, costs = "", Counter[str](), 0, 0.0
        while True:
            body = body_of(self.settings, request, text)
            try:
                answer, cost = await self._until_answered(teacher, body, counter)
            except (Again, Refused, Unusable, SpendingLimit, _Stopped) as error:
                if not answers:
                    raise
                self._leave_cut(error)  # the part that was paid for stays
                break
            text, answers, costs = text + answer.text, answers + 1, costs + cost
            usage.update(answer.usage)
            cut = answer.finish_reason == "length" and answer.text and not answer.refusal
            if not cut or answers > self.settings.continue_length:
                break
        status: Status = "refused" if answer.refusal else "done" if text.strip() else "empty"
        return Result(
            id=request.id,
            status=status,
            completion=text,
            finish_reason=answer.finish_reason,
            usage=dict(usage),
            model=answer.model,
            requests=answers,
            cost=None if self.price is None else round(costs, 9),
        )

    async def _until_answered(self, teacher: Teacher, body: dict[str, Any], counter: "_Attempts") -> "_Answered":
        try:  # nearly always enough, and then tenacity's preparations would be a tenth of the processor time
            return await self._attempt(teacher, body, counter)
        except Again as error:
            failed = [error]

        async def attempt() -> _Answered:
            if failed:
                raise failed.pop()
            return await self._attempt(teacher, body, counter)

        attempts = tenacity.AsyncRetrying(
            stop=self._enough,
            wait=seconds_to_wait,
            retry=tenacity.retry_if_exception_type(Again),
            sleep=self._sleep,
            before_sleep=self._retried,
            reraise=True,
        )
        return await attempts(attempt)

    async def _attempt(self, teacher: Teacher, body: dict[str, Any], counter: "_Attempts") -> "_Answered":
        bound = prompt_token_bound(body)
        async with self._slots:
            if self._stop.is_set():
                raise _Stopped
            if not await self._limits.wait_unless(self._stop, bound // 3 + self.settings.max_tokens):
                raise _Stopped
            most = 0.0 if self.price is None else self.price.of(bound, self.settings.max_tokens)
            name = await self.spending.reserve(most)
            if self._stop.is_set():
                self._settle(name, 0.0)
                raise _Stopped
            billed: float | None = None
            counter.sent += 1
            try:
                answer = await teacher.ask(body)
                billed = self._cost(answer, most)
                return answer, billed
            except (Refused, Unusable):
                billed = 0.0
                raise
            except Again as error:
                billed = None if error.billed else 0.0
                self._too_long(error)
                raise
            finally:
                self._settle(name, billed)

    def _settle(self, name: str, billed: float | None) -> None:
        try:
            self.spending.settle(name, billed)
        except OSError as error:  # the answer in hand must not be lost for its line in the journal
            self._stop_because(cannot_be_written(error, self._ledger.folder))

    def _leave_cut(self, error: Exception) -> None:
        self.outcome.left_cut[getattr(error, "reason", "the run stopped")] += 1
        if isinstance(error, Unusable | SpendingLimit):
            self._stop_because(str(error))

    def _cost(self, answer: Answer, most: float) -> float:
        if self.price is None:
            return 0.0
        if not answer.usage:
            return most  # the endpoint does not count: the most that it can be
        return self.price.of(answer.usage["prompt_tokens"], answer.usage["completion_tokens"])

    def _too_long(self, error: Again) -> None:
        if error.retry_after is not None and error.retry_after > self.connection.longest_wait:
            raise Unusable(
                f"the endpoint asks to wait {error.retry_after:,.0f} seconds ({error}); run the same command again then"
            ) from error

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        if self._stop.is_set():
            raise _Stopped

    def _enough(self, state: tenacity.RetryCallState) -> bool:
        """Whether to give up; sooner where the endpoint was never heard of, for then the address is wrong as a rule."""
        error = state.outcome.exception() if state.outcome else None
        unheard = not self.outcome.answered and isinstance(error, Again) and error.reason in UNHEARD
        attempts = self.connection.attempts
        return state.attempt_number >= (min(attempts, ATTEMPTS_UNHEARD) if unheard else attempts)

    def _retried(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Again):
            self.outcome.retried[error.reason] += 1

    def _given_up(self, failure: Failure) -> None:
        self.outcome.failed[failure.reason] += 1
        self._failures_in_a_row += 1
        self._progress(failure)
        answered = sum(self.outcome.answered.values())
        if not answered and failure.reason in UNHEARD:
            self._stop_because(
                f"the endpoint does not answer ({failure.message}); check --base-url and that the server runs"
            )
        elif self._failures_in_a_row >= FAILURES_IN_A_ROW:
            self._stop_because(
                f"{self._failures_in_a_row} requests in a row were given up, the last one for: {failure.message}"
                + ("; --retry-failed asks them again" if failure.permanent else "")
            )

    def _stop_because(self, why: str) -> None:
        if self.outcome.stopped is None:
            self.outcome.stopped = why
        self._stop.set()

    def _interrupt(self) -> None:
        self.outcome.interrupted = True
        self._stop_because("interrupted")


_Answered = tuple[Answer, float]
"""An answer and what it cost."""


@dataclass
class _Attempts:
    sent: int = 0


class _Stopped(Exception):
    """The run ends before this request was answered."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def reserve_bytes(settings: RequestSettings, connection: Connection) -> int:
    """Space for all answers in flight: at most 16 bytes a token and 2 KiB for the rest, and as much again."""
    flight = connection.concurrency * (1 + WAITING_PER_SLOT)
    tokens = settings.max_tokens * (1 + settings.continue_length)
    return min(2**28, 2 * flight * math.ceil(16 * tokens + 2048))


def ask(
    requests: Iterable[Request],
    settings: RequestSettings,
    connection: Connection,
    ledger: Ledger,
    *,
    price: Price | None = None,
    max_cost: float | None = None,
    progress: Any = None,
) -> Outcome:
    """Ask every request that the ledger has no result for; return when each has one, was given up, or the run stopped.

    Args:
        requests: with ids that differ; those with a result are passed over.
        settings, connection: what is asked, and how.
        ledger: an open one; gets the results.
        price: of the model; None leaves costs uncounted, and ``max_cost`` is then an error.
        max_cost: US dollars that are never passed, earlier runs on the same ledger included.
        progress: called with each result or failure that is on the disk.

    Raises:
        UserError: the disk is full or the ledger cannot be written.
    """
    if max_cost is not None and price is None:
        raise UserError("--max-cost needs the model's price; give --price or --prices")
    missing = (request for request in requests if request.id not in ledger)

    async def run() -> Outcome:
        spending = spending_of(ledger, price, max_cost)
        try:
            return await Asking(settings, connection, ledger, spending, price, progress).run(missing)
        finally:
            spending.close()

    try:
        with rare_garbage_collection():
            return asyncio.run(run())
    except OSError as error:
        raise UserError(cannot_be_written(error, ledger.folder)) from error
