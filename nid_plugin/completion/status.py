"""What a ledger holds: done, failed, left, spent."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nid_plugin.completion.batch_parts import BATCH, open_requests
from nid_plugin.completion.ledger import Ledger, read_ledger, read_settings
from nid_plugin.completion.running import counted
from nid_plugin.completion.selection import Selection, read_selection
from nid_plugin.completion.settings import Request, RequestIds, RequestSettings
from nid_plugin.completion.spending import Spending
from nid_plugin.halving import Half
from nid_plugin.pairs import Pair
from plugin_common.errors import UserError


def requests_of(selection: Selection, settings: RequestSettings) -> Iterator[tuple[Request, Half]]:
    """The request for each half of a selection, in order."""
    ids = RequestIds(settings)
    for half in selection.halves():
        yield Request(ids(half.document, half.prompt), half.prompt), half


def pairs_of(selection: Selection, settings: RequestSettings, ledger: Ledger) -> Iterator[Pair]:
    """The pairs that a ledger holds of a selection, in its order; refused and empty answers make none."""
    for request, half in requests_of(selection, settings):
        result = ledger.result(request.id)
        if result is not None and result.status == "done":
            yield Pair(
                id=result.id,
                prompt=half.prompt,
                completion=result.completion,
                source=half.source,
                teacher=settings.model,
                finish_reason=result.finish_reason,
                usage=result.usage,
            )


def request_settings(settings: dict[str, Any], folder: str) -> RequestSettings:
    """The settings of the requests of a ledger, from its own.

    Raises:
        UserError: it is another command's.
    """
    try:
        return RequestSettings(**settings["request"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}: is no ledger of `nid complete` ({error})") from error


def status_lines(folder: str, opened: Ledger | None = None) -> Iterator[str]:
    """What a ledger holds, for a reader; another run may be working on it.

    Args:
        folder: of the ledger.
        opened: the ledger, where it is open already: read again, a large one takes its memory twice.

    Raises:
        UserError: the folder is no ledger.
    """
    settings = request_settings(read_settings(Path(folder)), folder)
    selection = read_selection(Path(folder))
    yield f"model: {settings.model}"
    with read_ledger(folder) if opened is None else contextlib.nullcontext(opened) as ledger:
        if selection is None:
            yield "documents: not yet chosen"
        else:
            yield from _progress(ledger, selection, settings)
        if len(ledger):
            yield f"finish reasons: {counted(ledger.finish_reasons)}"
            prompts, answers = ledger.usage["prompt_tokens"], ledger.usage["completion_tokens"]
            yield f"tokens: {prompts:,} in prompts, {answers:,} in answers"
            if ledger.uncounted and (Path(folder) / "spending.log").exists():
                prompts, answers = ledger.uncounted["prompt_tokens"], ledger.uncounted["completion_tokens"]
                yield f"tokens without a known price: {prompts:,} and {answers:,}; not in what follows"
        yield from ledger.notes if opened is None else ()
    batches, under_way = open_requests(Path(folder))
    if batches:
        yield f"in batches under way: {len(under_way):,} requests in {batches:,} batches"
    yield from spent_lines(Path(folder))


def _progress(ledger: Ledger, selection: Selection, settings: RequestSettings) -> Iterator[str]:
    states, reasons, ids = Counter[str](), Counter[str](), 0
    for request, _ in requests_of(selection, settings):
        ids += 1
        state = ledger.state(request.id)
        states[state] += 1
        if state.startswith("failed"):
            reasons[ledger.failure_reason(request.id)] += 1
    yield f"documents: {ids:,}"
    yield f"done: {states['done']:,}; empty: {states['empty']:,}; refused: {states['refused']:,}"
    failed, again = states["failed for good"], states["failed for now"]
    listed = f" ({counted(reasons)})" if reasons else ""
    yield f"failed: {failed:,} for good, {again:,} that are asked again{listed}"
    yield f"left: {states['left'] + again:,}"
    if others := len(ledger) - sum(states[name] for name in ("done", "empty", "refused")):
        yield f"results for documents that are not in the selection now: {others:,}"


def spent_lines(folder: Path) -> Iterator[str]:
    """What a ledger's requests cost, one line; none where nothing was counted."""
    journal = folder / "spending.log"
    if not journal.exists():
        return
    spending = Spending(journal, read_only=True)
    in_batches = sum(most for name, most in spending.unsettled.items() if name.startswith(BATCH))
    never_came = spending.uncertain - in_batches
    more = f", at most {in_batches:,.2f} for batches under way" if in_batches else ""
    more += f", and at most {never_came:,.2f} for requests whose answer never came" if never_came > 1e-9 else ""
    yield f"spent: {spending.spent:,.2f} dollars{more}"
    spending.close()
