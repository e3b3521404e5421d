"""What a ledger holds: done, failed, left, spent."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nid_plugin.completion.ledger import Ledger, read_ledger, read_settings
from nid_plugin.completion.running import counted
from nid_plugin.completion.selection import Selection, read_selection
from nid_plugin.completion.settings import Request, RequestIds, RequestSettings
from nid_plugin.completion.spending import Spending
from nid_plugin.halving import Half
from nid_plugin.pairs import Pair


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


def status_lines(folder: str) -> Iterator[str]:
    """What a ledger holds, for a reader; another run may be working on it.

    Raises:
        UserError: the folder is no ledger.
    """
    settings = RequestSettings(**read_settings(Path(folder))["request"])
    selection = read_selection(Path(folder))
    yield f"model: {settings.model}"
    with read_ledger(folder) as ledger:
        if selection is None:
            yield "documents: not yet chosen"
        else:
            yield from _progress(ledger, selection, settings)
        if len(ledger):
            yield f"finish reasons: {counted(ledger.finish_reasons)}"
            prompts, answers = ledger.usage["prompt_tokens"], ledger.usage["completion_tokens"]
            yield f"tokens: {prompts:,} in prompts, {answers:,} in answers"
        yield from ledger.notes
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
    uncertain = spending.uncertain + spending.reserved
    more = f", and at most {uncertain:,.2f} for requests whose answer never came" if uncertain else ""
    yield f"spent: {spending.spent:,.2f} dollars{more}"
    spending.close()
