"""Ask with a progress line, and say what came of it."""

import sys
from collections import Counter
from collections.abc import Iterable

from nid_plugin.completion.asking import ask
from nid_plugin.completion.ledger import Ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.outcome import Outcome
from nid_plugin.completion.results import Failure, Result
from nid_plugin.completion.settings import Request
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar


def ask_with_progress(
    requests: Iterable[Request], teacher: TeacherSettings, ledger: Ledger, *, total: int, description: str
) -> Outcome:
    """Ask what the ledger lacks; progress with rate, cost so far and time left goes to standard error.

    Args:
        requests: those with a result are passed over.
        teacher: whom and how to ask.
        ledger: an open one.
        total: how many of the requests have no result.
        description: what the progress line begins with.

    Raises:
        UserError: the ledger cannot be written.
    """
    spent = 0.0
    with progress_bar(total=total, unit=" requests", description=description) as bar:

        def advance(record: Result | Failure) -> None:
            nonlocal spent
            if isinstance(record, Result) and record.cost:
                spent += record.cost
                bar.set_postfix_str(f"{spent:,.2f} dollars", refresh=False)
            bar.update(1)

        outcome = ask(
            requests,
            teacher.request,
            teacher.connection,
            ledger,
            price=teacher.price,
            max_cost=teacher.max_cost,
            progress=advance,
        )
    for line in outcome_lines(outcome):
        print(line, file=sys.stderr)
    return outcome


def outcome_lines(outcome: Outcome) -> list[str]:
    """What a run did, for a reader."""
    lines = [f"answered in this run: {counted(outcome.answered) or '0'}"]
    if outcome.retried:
        lines.append(f"attempts repeated: {counted(outcome.retried)}")
    if outcome.left_cut:
        lines.append(f"answers left as --max-tokens cut them, not continued for: {counted(outcome.left_cut)}")
    if outcome.failed:
        lines.append(f"given up: {counted(outcome.failed)}")
    return lines


def counted(counts: Counter[str]) -> str:
    """``12 done, 3 empty``: the most frequent first."""
    return ", ".join(f"{count:,} {name or '(none)'}" for name, count in counts.most_common())


def raise_if_stopped(outcome: Outcome, left: int) -> None:
    """End the command with an error where requests are left that another run would ask.

    Raises:
        KeyboardInterrupt: a signal stopped the run.
        UserError: something else did, or requests failed in a way that may pass.
    """
    if outcome.interrupted:
        print(f"{left:,} requests are left; the same command goes on with them", file=sys.stderr)
        raise KeyboardInterrupt
    if outcome.stopped is not None:
        raise UserError(f"{outcome.stopped} ({left:,} requests are left)")
    if left:
        raise UserError(f"{left:,} requests were given up for now; the same command asks them again")
