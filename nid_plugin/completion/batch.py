"""The Batch API as a second way to ask: write a file, upload it, create a batch, look until it has ended, collect.

A run that is killed at any moment and started again finds its batches and goes on with them; no request is in two
batches at a time. What a batch leaves unanswered (it expired, failed, was cancelled) goes into a further one.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from nid_plugin.completion.asking import Outcome
from nid_plugin.completion.batch_answers import Found, read_lines
from nid_plugin.completion.batch_client import BatchClient, Passing
from nid_plugin.completion.batch_input import ENDPOINTS, Packer, most_of
from nid_plugin.completion.batch_options import BatchOptions
from nid_plugin.completion.batch_parts import BATCH, Part, Parts
from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.results import Failure, Result
from nid_plugin.completion.running import outcome_lines
from nid_plugin.completion.settings import Request
from nid_plugin.completion.spending import Spending, spending_of
from nid_plugin.completion.teacher import Unusable
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

ENDED = {"completed", "failed", "expired", "cancelled"}
ROUNDS = 3
"""How often what came to nothing is put into a further batch in one run."""

FRUITLESS_LOOKS = 20
"""So many times in a row that the endpoint could not be asked for a batch end the run."""

CREATIONS = 3
LISTINGS = 3
"""How often a batch that may or may not have come into being is looked for before it is created again."""

SAVED_AT_A_TIME = 1000


def complete_in_batches(
    pending: Callable[[], Iterator[Request]],
    teacher: TeacherSettings,
    ledger: Ledger,
    *,
    total: int,
    options: BatchOptions = BatchOptions(),  # noqa: B008 (frozen)
) -> Outcome:
    """Ask in batches what the ledger lacks; return when all has come, or (``options.wait`` false) is under way.

    Args:
        pending: gives the requests that need an answer; called anew for each round.
        teacher: whom and how to ask.
        ledger: an open one.
        total: how many requests are pending, those under way included.
        options: sizes and waiting.

    Raises:
        UserError: the ledger cannot be written.
    """
    outcome = Outcome()
    with progress_bar(total=total, unit=" requests", description="in batches") as bar:
        parts = Parts(ledger.folder)
        spending = spending_of(ledger, teacher.price, teacher.max_cost)
        client = BatchClient(teacher.connection)
        try:
            _Batches(teacher, ledger, parts, spending, client, options, bar, outcome).run(pending)
        except Unusable as error:
            outcome.stopped = str(error)
        except KeyboardInterrupt:
            outcome.interrupted = True
        except OSError as error:
            raise UserError(
                f"{error.filename or ledger.folder}: cannot be written ({error.strerror or error}); "
                "free some space and run the same command again: what is there stays"
            ) from error
        finally:
            client.close()
            spending.close()
            parts.close()
    for line in outcome_lines(outcome):
        _tell(line)
    return outcome


class _Batches:
    """One run."""

    def __init__(
        self,
        teacher: TeacherSettings,
        ledger: Ledger,
        parts: Parts,
        spending: Spending,
        client: BatchClient,
        options: BatchOptions,
        bar: Any,
        outcome: Outcome,
    ) -> None:
        self.teacher, self.price, self.ledger, self.parts = teacher, teacher.price, ledger, parts
        self.spending, self.client, self.options, self.outcome = spending, client, options, outcome
        self._bar = bar
        self._taken = parts.open_ids()
        self._counted: dict[str, int] = {}
        self._final = 0
        self._submitted = 0
        self._fruitless = 0
        self._trouble = ""
        self._waiting: list[Result] = []

    def run(self, pending: Callable[[], Iterator[Request]]) -> None:
        """Rounds, until all has come or a round brings nothing."""
        self._resume()
        answered = 0
        for number in range(ROUNDS):
            requests = (request for request in pending() if int(request.id, 16) not in self._taken)
            first = next(requests, None)
            if first is None and not self.parts.open:
                return
            if number and self._submitted and self._final == answered:
                raise Unusable(f"the last batches brought no answer ({self._trouble or 'they hold none'})")
            if number:
                _tell("what came to nothing goes into a further batch")
            answered, self._submitted = self._final, 0
            self._round(itertools.chain([] if first is None else [first], requests))
            if not self.options.wait:
                return

    def _resume(self) -> None:
        for part in list(self.parts.open.values()):
            if self.options.forget:
                if self.spending.holds(_name(part)):
                    self.spending.settle(_name(part), None)
                self._give_back(part)
                _tell(f"given up: {part.batch_id or part.name}, {part.requests:,} requests")
            elif not part.batch_id:
                self._create(part, unsure=True)
        if self.parts.open:
            count = sum(part.requests for part in self.parts.open.values())
            _tell(f"{count:,} requests are in {len(self.parts.open):,} batches of an earlier run")

    def _round(self, requests: Iterator[Request]) -> None:
        packer = Packer(requests, self.teacher.request, self.price, self.spending, self.options, self._put_aside)
        self._look()
        while True:
            self._submit(packer)
            if packer.no_money and not (self.parts.open and self.options.wait):
                bound = self.spending.total - self.spending.spent
                raise Unusable(
                    f"the limit of {self.spending.limit:,.2f} dollars (--max-cost) leaves no room for a further batch: "
                    f"{self.spending.spent:,.2f} are spent, up to {bound:,.2f} are bound"
                )
            if not self.parts.open or not self.options.wait:
                return
            time.sleep(self.options.poll)
            self._look()

    # -- submitting --------------------------------------------------------------------------------------------------

    def _submit(self, packer: Packer) -> None:
        """Create batches as far as their number and money allow."""
        while len(self.parts.open) < self.options.at_once and packer.more():
            part = replace(self.parts.write(packer.lines()), most=packer.most)
            part = replace(part, file_id=self._upload(part))
            self.parts.note(part, "creating")
            self._taken.update(int(line["custom_id"], 16) for line in self.parts.requests(part))
            self._create(part)
            self._submitted += 1

    def _put_aside(self, request: Request, size: int) -> None:
        message = f"{size:,} bytes, at most {self.options.size:,} fit into a batch"
        self._save([], [Failure(request.id, "too long for a batch", message, True, 0, _now())])

    def _upload(self, part: Part) -> str:
        for attempt in itertools.count(1):
            try:
                with self.parts.input(part).open("rb") as stream:
                    return self.client.upload(self.parts.input(part).name, stream)
            except Passing as error:
                self._try_again("upload", attempt, error)
        raise AssertionError  # the loop has no other end

    def _create(self, part: Part, *, unsure: bool = False) -> None:
        """Create a part's batch, or find it where it may be there already (``unsure``)."""
        if not self.spending.holds(_name(part)):
            self.spending.reserve_now(part.most, _name(part))
        self.spending.sync()
        endpoint = ENDPOINTS[self.teacher.request.api]
        for attempt in itertools.count(1):
            batch_id = self._find(part) if unsure else ""
            if not batch_id:
                try:
                    batch_id = self.client.create(part.file_id, endpoint, part.name).id
                except Unusable:  # it said no: there is no batch
                    self.spending.settle(_name(part), 0.0)
                    self._give_back(part)
                    raise
                except Passing as error:
                    unsure = True
                    self._try_again("batch", attempt, error)
                    continue
            self.parts.note(replace(part, batch_id=batch_id), "created")
            return

    def _find(self, part: Part) -> str:
        """The id of a part's batch, empty where there is none; asked several times, for lists may lag behind."""
        for number in range(LISTINGS):
            if number:
                time.sleep(min(self.options.poll, 10.0))
            for attempt in itertools.count(1):
                try:
                    batch = self.client.find(part.file_id, part.name)
                except Passing as error:
                    self._try_again("list of batches", attempt, error)
                else:
                    break
            if batch is not None:
                return batch.id
        return ""

    def _try_again(self, what: str, attempt: int, error: Passing) -> None:
        self.outcome.retried[what] += 1
        if attempt >= CREATIONS:
            raise Unusable(f"{self.client.address}: {what}: {error}; the same command goes on from here") from error
        time.sleep(min(self.options.poll, 5.0 * attempt))

    # -- collecting --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask for each open batch, collect those that have ended."""
        for part in list(self.parts.open.values()):
            try:
                batch = self.client.look(part.batch_id)
                counts = batch.request_counts
                if counts is not None:
                    self._counted[part.name] = counts.completed + counts.failed
                if batch.status in ENDED:
                    self._collect(part, batch)
                self._fruitless = 0
            except Passing as error:
                self.outcome.retried["look"] += 1
                self._fruitless += 1
                if self._fruitless >= FRUITLESS_LOOKS:
                    raise Unusable(f"{self.client.address}: {error}; the same command goes on from here") from error
        self._bar.update(max(0, self._final + sum(self._counted.values()) - self._bar.n))

    def _collect(self, part: Part, batch: Any) -> None:
        """Put what came of a batch into the ledger, then forget the part."""
        settings = self.teacher.request
        lines = self.parts.requests(part)
        most = {line["custom_id"]: most_of(line["body"], settings, self.price) for line in lines}
        found = Found(most)
        for what, file_id in (("output", batch.output_file_id), ("errors", batch.error_file_id)):
            if file_id:
                path = self.parts.download(part, what)
                self.client.download(file_id, path)
                for line in read_lines(path, batch.id, self.price, _now()):
                    if result := found.add(line):
                        self._keep(result)
        self._keep(None)
        whole = batch.status == "completed"
        failures = [failure for name, failure in found.failures.items() if name not in self.ledger]
        if whole or found.unreadable:
            missing = [name for name in most if name not in found.seen and name not in self.ledger]
            failures += [
                Failure(name, "missing in the batch", "no line of its own", False, at=_now()) for name in missing
            ]
            found.uncounted.update(missing)
        self._save([], failures)
        if self.spending.holds(_name(part)):
            self.spending.settle(_name(part), found.cost())
            self.spending.sync()
        self._report(part, batch, found)
        self._give_back(part)

    def _keep(self, result: Result | None) -> None:
        """Save results in groups; None saves what is left."""
        if result is not None:
            self._waiting.append(result)
        if self._waiting and (result is None or len(self._waiting) >= SAVED_AT_A_TIME):
            self._save(self._waiting, [])
            self._waiting = []

    def _save(self, results: list[Result], failures: list[Failure]) -> None:
        new = [result for result in results if result.id not in self.ledger]
        full = self.ledger.append(new, failures)
        self.outcome.answered.update(result.status for result in new)
        self.outcome.failed.update(failure.reason for failure in failures if failure.permanent)
        self.outcome.retried.update(failure.reason for failure in failures if not failure.permanent)
        self._final += len(new) + sum(failure.permanent for failure in failures)
        if failures:
            self._trouble = f"{failures[-1].reason}: {failures[-1].message}"
        if full:
            raise Unusable(
                f"{self.ledger.folder}: the disk is full; what is not saved yet stays at the endpoint. "
                "Free some space and run the same command again"
            )

    def _report(self, part: Part, batch: Any, found: Found) -> None:
        if batch.status != "completed":
            errors = [f"{error.code}: {error.message}" for error in (batch.errors and batch.errors.data) or []]
            self._trouble = "; ".join([batch.status, *errors[:3]]) if errors else self._trouble or batch.status
            _tell(f"batch {batch.id}: {batch.status}" + "".join(f"\n  {error}" for error in errors[:10]))
        for count, what in ((found.unreadable, "unreadable lines"), (found.strange, "lines of no request of ours")):
            if count:
                _tell(f"batch {batch.id}: {count:,} {what} passed over")

    def _give_back(self, part: Part) -> None:
        self._taken -= {int(line["custom_id"], 16) for line in self.parts.requests(part)}
        self._counted.pop(part.name, None)
        self.parts.note(part, "collected")


def _name(part: Part) -> str:
    return BATCH + part.name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
