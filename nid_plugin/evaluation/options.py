"""Options that ``nid answer`` and ``nid judge`` share."""

from typing import Any

from nid_plugin.evaluation.questions import BENCHES


def add_questions(group: Any) -> None:
    """Which benchmark, and its questions."""
    group.add_argument("--bench", required=True, choices=BENCHES, help="whose questions")
    group.add_argument("--questions", required=True, metavar="FILE", help="question.jsonl of the benchmark")


def add_run_options(group: Any, *, kept: str, default: str) -> None:
    """Where a run keeps what it got, and how much of it is asked again.

    Args:
        group: gets the options.
        kept: what the ledger keeps.
        default: where, in words.
    """
    group.add_argument(
        "--ledger", metavar="FOLDER", help=f"keeps every {kept}, so that a run goes on (default: {default})"
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="ask again what the endpoint refused for good (HTTP 400)"
    )
    group.add_argument("--dry-run", action="store_true", help="tell what would be asked, and its cost; ask nothing")
