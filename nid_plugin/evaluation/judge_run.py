"""Ask the judge what a ledger lacks, and write the judgments from it."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from nid_plugin.completion.estimate import BYTES_PER_TOKEN, Estimate, tokens_of_bytes
from nid_plugin.completion.ledger import Ledger, check_settings, open_ledger, read_ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.settings import Request, body_of
from nid_plugin.evaluation.answers import valid_text
from nid_plugin.evaluation.conversations import ASKABLE
from nid_plugin.evaluation.games import Match, MatchMaker
from nid_plugin.evaluation.judge_checks import JudgeTask, judge_temperature
from nid_plugin.evaluation.judge_prompts import ArenaPrompts, MtBenchPrompts
from nid_plugin.evaluation.judgment_files import Key, Record, read_judgments, write_judgments
from nid_plugin.evaluation.judgments import arena_record, pair_record, single_record
from plugin_common.errors import UserError

LEDGER_OPTION = "--ledger FOLDER"
EXPECTED_TOKENS = {"mt-bench": 250, "arena-hard": 700}
"""Of a judgment; guesses, for estimates of cost."""


def matches(task: JudgeTask) -> Iterator[Match]:
    """All matches of a task, model by model."""
    maker = MatchMaker(
        _teacher(task).request,
        task.answers,
        own_temperature=judge_temperature(task),
        system_role=not task.args.no_system_role,
    )
    if isinstance(task.prompts, ArenaPrompts):
        yield from maker.arena_hard(task.questions, task.models, task.prompts, task.baselines)
    elif isinstance(task.prompts, MtBenchPrompts):
        baseline = task.args.baseline or ""
        yield from maker.mt_bench(task.questions, task.models, task.prompts, task.references or {}, baseline=baseline)


def judge(task: JudgeTask) -> Callable[[], None] | None:
    """Ask what is missing and write the judgments.

    Returns:
        None when everything is judged; else what raises the reason (``UserError`` or ``KeyboardInterrupt``), for when
        the scores of what there is are written.
    """
    from nid_plugin.completion.asking import reserve_bytes
    from nid_plugin.completion.running import ask_with_progress, counted, raise_if_stopped

    teacher = _teacher(task)
    for path in dict.fromkeys(map(task.judgment_file, task.models)):
        if path.is_file():
            read_judgments(path, task.kind)  # a file that cannot be read again shows before anything is paid
    Path(task.args.out).mkdir(parents=True, exist_ok=True)
    every = list(matches(task))
    reserve = reserve_bytes(teacher.request, teacher.connection)
    with open_ledger(task.ledger_folder, _ledger_settings(task), reserve_bytes=reserve, option=LEDGER_OPTION) as ledger:
        for note in ledger.notes:
            print(f"{task.ledger_folder}: {note}", file=sys.stderr)
        pending = list(_pending(every, ledger, retry_failed=task.args.retry_failed))
        outcome = None
        if pending:
            outcome = ask_with_progress(pending, teacher, ledger, total=len(pending), description="judging")
        _write(task, every, ledger)
        left = sum(1 for _ in _pending(every, ledger, retry_failed=False))
        refused = _refused(every, ledger)
    if not left and not refused and (outcome is None or (outcome.stopped is None and not outcome.interrupted)):
        return None

    def complain() -> None:
        if outcome is not None:
            raise_if_stopped(outcome, left)
        if refused:
            raise UserError(
                f"{refused.total():,} judgments are missing, for the endpoint refused them for good "
                f"({counted(refused)}; {task.ledger_folder}/failures.jsonl has its words); --retry-failed asks again"
            )

    return complain


def estimate(task: JudgeTask) -> Iterator[str]:
    """What :func:`judge` would still ask, in requests, tokens and dollars; nothing is sent or written."""
    teacher = _teacher(task)
    with contextlib.ExitStack() as stack:
        ledger = None
        if (Path(task.ledger_folder) / "settings.json").exists():
            check_settings(Path(task.ledger_folder), _ledger_settings(task), LEDGER_OPTION)
            ledger = stack.enter_context(read_ledger(task.ledger_folder))
        left = list(_pending(list(matches(task)), ledger, retry_failed=task.args.retry_failed))
    prompts = sum(tokens_of_bytes(content) for request in left for _, content in request.messages)
    longest = teacher.request.max_tokens
    expected = min(EXPECTED_TOKENS[task.bench], longest)
    found = Estimate(len(left), prompts, len(left) * expected, prompts, len(left) * longest, f"{expected} tokens each")
    about = f"{', '.join(task.models)} on {len(task.questions):,} questions of {task.bench}"
    yield f"{task.args.judge_model} judges {about}; {BYTES_PER_TOKEN:g} bytes taken as a token"
    yield from found.lines(teacher.price, teacher.connection)
    if left:
        body = json.dumps(body_of(teacher.request, left[0]), ensure_ascii=False)
        yield f"the first request: {body if len(body) <= 1000 else body[:1000] + '…'}"
    yield "nothing was sent, and nothing was written"


def _teacher(task: JudgeTask) -> TeacherSettings:
    assert task.teacher is not None  # asked only without --scores-only
    return task.teacher


def _ledger_settings(task: JudgeTask) -> dict[str, object]:
    return {
        "bench": task.bench,
        "mode": task.mode,
        "request": _teacher(task).request.as_dict(),
        "temperature": judge_temperature(task),
    }


def _pending(every: list[Match], ledger: Ledger | None, *, retry_failed: bool) -> Iterator[Request]:
    """Requests that are to be sent, each once."""
    met: set[str] = set()
    for match in every:
        for game in match.games:
            state = "left" if ledger is None else ledger.state(game.id)
            if game.id not in met and (state in ASKABLE or (retry_failed and state == "failed for good")):
                met.add(game.id)
                yield game


def _refused(every: list[Match], ledger: Ledger) -> Counter[str]:
    games = {game.id for match in every for game in match.games}
    return Counter(ledger.failure_reason(game) for game in games if ledger.state(game) == "failed for good")


def _mended(every: list[Match], ledger: Ledger) -> int:
    """How many judgments are no valid Unicode as they came."""
    games = {game.id for match in every for game in match.games}
    said = [result.completion for game in games if (result := ledger.result(game)) is not None]
    return sum(valid_text(text) != text for text in said)


def _write(task: JudgeTask, every: list[Match], ledger: Ledger) -> None:
    by_path: dict[Path, list[Match]] = {task.judgment_file(model): [] for model in task.models}
    for match in every:
        by_path[task.judgment_file(match.model)].append(match)
    for path, own in by_path.items():
        made = [record for match in own if (record := _record(task, match, ledger)) is not None]
        if not made and not path.is_file():
            continue
        asked = {_key(task, match): tuple(game.text for game in match.games) for match in own}
        count, kept = write_judgments(path, made, asked, task.kind, task.args.judge_model)
        more = f", and {kept:,} earlier ones kept" if kept else ""
        print(f"{path}: {count:,} judgments{more}", file=sys.stderr)
    if mended := _mended(every, ledger):
        print(f"judgments with half characters, replaced by U+FFFD: {mended:,}", file=sys.stderr)


def _key(task: JudgeTask, match: Match) -> Key:
    """As :func:`key_of` of the match's record."""
    if task.kind == "arena":
        return match.model, match.question.id
    who = (match.model,) if task.kind == "single" else (match.model, match.opponent)
    return *who, match.question.id, match.turn


def _record(task: JudgeTask, match: Match, ledger: Ledger) -> Record | None:
    results = [ledger.result(game.id) for game in match.games]
    if isinstance(task.prompts, ArenaPrompts):
        return arena_record(match, results, task.args.judge_model, task.prompts.patterns)
    make = single_record if task.mode == "single" else pair_record
    return make(match, results, task.args.judge_model)
