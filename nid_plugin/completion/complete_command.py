"""``nid complete``: let a teacher LLM complete the first halves of documents."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nid_plugin.documents.options import add_document_options
from plugin_common.errors import UserError, raise_all
from plugin_common.progress import progress_bar

SUMMARY = "Let a teacher LLM complete the first halves of documents; an answer that has come is never paid for again."
EXAMPLE = (
    "nid complete openwebtext/ --sample 80000 --seed 1 --model gpt-4-turbo --max-tokens 1024 \\\n"
    "      --ledger ledger --pairs pairs.jsonl --max-cost 2000 --dry-run"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from nid_plugin.completion.batch_options import add_batch_options
    from nid_plugin.completion.options import add_teacher_options

    what = parser.add_argument_group("what to do")
    what.add_argument("--model", metavar="NAME", help="the teacher, as the endpoint names it")
    what.add_argument(
        "--ledger", required=True, metavar="FOLDER", help="keeps every answer; a run started again goes on from it"
    )
    what.add_argument("--pairs", metavar="FILE", help="where the pairs go (default: pairs.jsonl in the ledger)")
    what.add_argument("--halves", metavar="FILE", help="halves that `nid halve` wrote, instead of documents")
    what.add_argument(
        "--new-selection",
        action="store_true",
        help="go on with other documents than the ledger was made for; answers that are there are kept",
    )
    what.add_argument(
        "--dry-run",
        action="store_true",
        help="read the documents, tell the number of requests, tokens and cost, show the first request; send nothing",
    )
    what.add_argument(
        "--status",
        action="store_true",
        help="tell what is done, failed, left and spent (a run may be going on), and do nothing",
    )
    what.add_argument(
        "--retry-failed", action="store_true", help="ask again what the endpoint refused for good (HTTP 400)"
    )
    what.add_argument(
        "--instruction",
        default="",
        metavar="TEXT",
        help="put before each first half as it stands (default: nothing, the paper's way)",
    )
    what.add_argument(
        "--continue-length",
        type=int,
        default=0,
        metavar="N",
        help="continue an answer that --max-tokens cut with up to N further requests, each with the first half "
        "and the answer so far (default: %(default)s)",
    )
    what.add_argument(
        "--tokenizer", metavar="FOLDER", help="counts the tokens of the estimate (default: 4 bytes are a token)"
    )
    add_document_options(parser, inputs="*")
    add_batch_options(parser)
    add_teacher_options(parser)


def run(args: argparse.Namespace) -> None:
    """Do what the options say."""
    from nid_plugin.completion.asking import reserve_bytes
    from nid_plugin.completion.batch_options import batch_options
    from nid_plugin.completion.ledger import open_ledger
    from nid_plugin.completion.options import teacher_settings
    from nid_plugin.completion.selection import select

    if args.status:
        _status(args)
        return
    batches, teacher, documents = _all_of(
        lambda: batch_options(args),
        lambda: teacher_settings(args, args.model, needs_key=not args.dry_run) if args.model else None,
        lambda: _documents(args) if bool(args.inputs) != bool(args.halves) else None,
        problems=_missing(args),
    )
    settings = {"request": teacher.request.as_dict()}
    if args.dry_run:
        _estimate(args, teacher, settings, documents)
        return
    with open_ledger(args.ledger, settings, reserve_bytes=reserve_bytes(teacher.request, teacher.connection)) as ledger:
        for note in ledger.notes:
            _tell(note)
        selection = select(Path(args.ledger), *documents, anew=args.new_selection)
        for line in selection.report:
            _tell(line)
        _complete(args, teacher, batches, selection, ledger)


def _missing(args: argparse.Namespace) -> Iterator[str]:
    from nid_plugin.completion.pairs_file import pairs_problems

    if not args.model:
        yield "--model NAME is missing: the teacher, as the endpoint names it"
    if bool(args.inputs) == bool(args.halves):
        yield "give documents (INPUT …) or --halves FILE, one of the two"
    yield from pairs_problems(args.pairs, [args.ledger], [*args.inputs, *filter(None, [args.halves])])


def _all_of(*checks: Callable[[], Any], problems: Iterator[str]) -> list[Any]:
    """What each check gives; what all of them and ``problems`` complain of, in one error."""
    given, listed = [], list(problems)
    for check in checks:
        try:
            given.append(check())
        except UserError as error:
            head, *rest = str(error).split("\n")
            listed += [line.removeprefix("  - ") for line in rest] if head.endswith(" problems:") else [str(error)]
    raise_all(listed)
    return given


def _documents(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], Iterator[Any]], Callable[[], list[str]]]:
    """How the documents are chosen, what reads their halves, what reports on that."""
    from nid_plugin.completion.selection import digest
    from nid_plugin.halving import read_halves

    if args.halves:
        path = Path(args.halves)
        if not path.is_file():
            raise UserError(f"--halves {args.halves}: no such file; `nid halve … --out {args.halves}` writes it")
        return {"halves": digest(path)}, lambda: read_halves(args.halves), list
    from nid_plugin.documents.options import document_settings
    from nid_plugin.halving import DocumentCounts, halves

    settings, counts = document_settings(args), DocumentCounts()

    def read() -> Iterator[Any]:
        with progress_bar(total=None, unit=" documents", description="reading") as bar:
            yield from halves(settings, counts, progress=bar.update)

    return settings.as_dict(), read, counts.lines


def _complete(args: argparse.Namespace, teacher: Any, batches: Any, selection: Any, ledger: Any) -> None:
    from nid_plugin.completion.batch_parts import open_requests
    from nid_plugin.completion.running import ask_with_progress, raise_if_stopped
    from nid_plugin.completion.status import pairs_of, requests_of, status_lines
    from nid_plugin.pairs import write_pairs

    skipped = {"done", "empty", "refused"} | (set() if args.retry_failed else {"failed for good"})

    def pending() -> Iterator[Any]:
        for request, _ in requests_of(selection, teacher.request):
            if ledger.state(request.id) not in skipped:
                yield request

    def outside_batches() -> Iterator[Any]:
        under_way = open_requests(ledger.folder)[1]
        return (request for request in pending() if int(request.id, 16) not in under_way)

    total = sum(1 for _ in pending())
    _tell(f"{selection.size.documents:,} documents; {selection.size.documents - total:,} need no request any more")
    if args.batch:
        from nid_plugin.completion.batch import complete_in_batches

        outcome = complete_in_batches(pending, teacher, ledger, total=total, options=batches)
    else:
        alone = sum(1 for _ in outside_batches()) if open_requests(ledger.folder)[0] else total
        if alone < total:
            _tell(f"{total - alone:,} requests are in batches under way and are not asked; --batch collects them")
        outcome = ask_with_progress(outside_batches(), teacher, ledger, total=alone, description="completing")
    path = args.pairs or str(Path(args.ledger) / "pairs.jsonl")
    try:
        written = write_pairs(path, pairs_of(selection, teacher.request, ledger))
        _tell(f"{written:,} pairs written to {path}")
    except UserError as error:
        if outcome.stopped is None:
            raise
        _tell(str(error))  # why the run stopped comes first: on a full disk both fail
    for line in status_lines(args.ledger, ledger):
        _tell(line)
    raise_if_stopped(outcome, sum(1 for _ in outside_batches()) if total else 0)
    if (under_way := len(open_requests(ledger.folder)[1])) and not args.batch:
        raise UserError(f"{under_way:,} requests are in batches under way; the same command with --batch collects them")


def _estimate(args: argparse.Namespace, teacher: Any, settings: dict[str, Any], documents: Any) -> None:
    """Tell what a run would ask; the ledger stays as it is, or is not made."""
    from nid_plugin.completion.estimate import BYTES_PER_TOKEN, estimate, tokens_of_bytes
    from nid_plugin.completion.ledger import open_ledger
    from nid_plugin.completion.selection import select
    from nid_plugin.completion.settings import request_body
    from nid_plugin.completion.status import requests_of

    count = _token_counter(args.tokenizer) if args.tokenizer else tokens_of_bytes
    overhead = teacher.request.instruction + (teacher.request.system or "")
    fixed = count(overhead) if overhead else 0
    answered = _answered(args.ledger, settings)
    with tempfile.TemporaryDirectory() as scratch, open_ledger(scratch, settings):
        selection = select(Path(scratch), *documents)
        for line in selection.report:
            _tell(line)
        left = (
            (count(half.prompt) + fixed, count(half.second_half))
            for request, half in requests_of(selection, teacher.request)
            if request.id not in answered
        )
        how = args.tokenizer or f"no tokenizer named: {BYTES_PER_TOKEN:g} bytes taken as a token"
        print(f"tokens counted by: {how}")
        for line in estimate(left, teacher.request).lines(teacher.price, teacher.connection, batch=args.batch):
            print(line)
        first, _ = next(requests_of(selection, teacher.request))
    body = json.dumps(request_body(teacher.request, first.text), ensure_ascii=False)
    print(f"the first request: {body if len(body) <= 1000 else body[:1000] + '…'}")
    print("nothing was sent")


def _answered(ledger: str, settings: dict[str, Any]) -> set[str]:
    """Ids of the requests that a ledger has results for; the same complaint as a run's where its settings differ."""
    from nid_plugin.completion.ledger import check_settings, read_ledger

    if not (Path(ledger) / "settings.json").exists():
        return set()
    check_settings(Path(ledger), settings)
    with read_ledger(ledger) as there:
        return {result.id for result in there.results()}


def _token_counter(name: str) -> Callable[[str], int]:
    from nid_plugin.halving import load_tokenizer

    tokenizer = load_tokenizer(name)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _status(args: argparse.Namespace) -> None:
    from nid_plugin.completion.status import status_lines

    for line in status_lines(args.ledger):
        print(line)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
