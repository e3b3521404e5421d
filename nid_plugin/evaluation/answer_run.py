"""One run of ``nid answer``: ask what a ledger lacks, turn by turn, then write the answer file from it."""

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nid_plugin.completion.estimate import Estimate, tokens_of_bytes
from nid_plugin.completion.ledger import Ledger, check_settings, open_ledger, read_ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.outcome import Outcome
from nid_plugin.completion.settings import RequestSettings, body_of
from nid_plugin.evaluation.answers import answer_file, write_answers
from nid_plugin.evaluation.conversations import Conversations
from nid_plugin.evaluation.questions import ARENA_HARD, Question
from nid_plugin.evaluation.style import COUNTED_BY_WORDS, TokenCounter, count_words
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

if TYPE_CHECKING:
    from nid_plugin.evaluation.local_model import LocalModel

LEDGER_OPTION = "--ledger FOLDER"
EXPECTED_TOKENS = 400
"""Of an answer; a guess, for estimates of cost."""


class AnswerRun:
    """Answers of one model to the questions of a benchmark.

    Args:
        args: of ``nid answer``.
        checked: the questions, and the endpoint (None: a model in a folder).

    Raises:
        UserError: the model's folder cannot be used.
    """

    def __init__(self, args: argparse.Namespace, checked: tuple[list[Question], TeacherSettings | None]) -> None:
        self._args = args
        questions, self._teacher = checked
        self._local = None if self._teacher is not None else _local_model(args)
        settings = self._teacher.request if self._teacher is not None else self._model().request_settings()
        self._talks = Conversations(args.bench, questions, settings, own_temperature=not args.no_temperature)
        self._ledger_folder = args.ledger or str(Path(args.out) / f"{args.model_id}.ledger")

    def run(self) -> Iterator[str]:
        """Ask what is missing and write the file; lines for a reader.

        Raises:
            UserError: not all questions could be answered; what is there is written.
        """
        from nid_plugin.completion.running import raise_if_stopped

        stopped: Outcome | None = None
        with open_ledger(
            self._ledger_folder, self._ledger_settings(), reserve_bytes=self._reserve(), option=LEDGER_OPTION
        ) as ledger:
            yield from (f"{self._ledger_folder}: {note}" for note in ledger.notes)
            turns = max(len(question.turns) for question in self._talks.questions)
            for turn in range(turns):
                outcome = self._ask(ledger, turn)
                if outcome is not None and (outcome.stopped is not None or outcome.interrupted):
                    stopped = outcome
                    break
            yield from self._write(ledger)
            unanswered, left = self._talks.unanswered(ledger), self._talks.turns_left(ledger)
        if stopped is not None:
            raise_if_stopped(stopped, left)
        if unanswered:
            shown = ", ".join(f"{question} ({why})" for question, why in list(unanswered.items())[:5])
            hint = "the same command goes on with them"
            if self._teacher is not None:
                hint += "; with --retry-failed also with those that the endpoint refused"
            raise UserError(f"{len(unanswered)} questions have no answer: {shown}; {hint}")

    def estimate(self) -> Iterator[str]:
        """What is left to ask, in requests, tokens and dollars; nothing is asked or written."""
        with contextlib.ExitStack() as stack:
            ledger = None
            if (Path(self._ledger_folder) / "settings.json").exists():
                check_settings(Path(self._ledger_folder), self._ledger_settings(), LEDGER_OPTION)
                ledger = stack.enter_context(read_ledger(self._ledger_folder))
            left = [(question, self._answered(question, ledger)) for question in self._talks.questions]
            yield f"{len(left):,} questions of {self._args.bench} for {self._args.model_id}"
            found = _estimate(left, self._talks.settings)
            if self._teacher is None:
                yield f"answers left: {found.requests:,}, of at most {self._args.max_tokens:,} tokens each"
            else:
                yield from found.lines(self._teacher.price, self._teacher.connection)
            first = next((question for question, answers in left if len(answers) < len(question.turns)), None)
            if first is not None and self._teacher is not None:
                body = json.dumps(body_of(self._talks.settings, self._talks.request(first, [])), ensure_ascii=False)
                yield f"the first request: {body if len(body) <= 1000 else body[:1000] + '…'}"
        yield "nothing was asked, and nothing was written"

    def _answered(self, question: Question, ledger: Ledger | None) -> list[str]:
        return [] if ledger is None else [result.completion for result in self._talks.state(question, ledger)[0]]

    def _ledger_settings(self) -> dict[str, Any]:
        return {
            "bench": self._args.bench,
            "request": self._talks.settings.as_dict(),
            "own_temperature": self._talks.own_temperature,
        }

    def _reserve(self) -> int:
        if self._teacher is None:
            return 0
        from nid_plugin.completion.asking import reserve_bytes

        return reserve_bytes(self._teacher.request, self._teacher.connection)

    def _ask(self, ledger: Ledger, turn: int) -> Outcome | None:
        """Ask all requests of a turn; what the endpoint's client says of it."""
        pending = [request for _, request in self._talks.pending(ledger, turn, retry_failed=self._args.retry_failed)]
        if not pending:
            return None
        description = f"turn {turn + 1}" if self._args.bench != ARENA_HARD else "answering"
        if self._teacher is not None:
            from nid_plugin.completion.running import ask_with_progress

            return ask_with_progress(pending, self._teacher, ledger, total=len(pending), description=description)
        with progress_bar(total=len(pending), unit=" answers", description=description) as bar:
            for results in self._model().answers(pending):
                if ledger.append(results):
                    raise UserError(
                        f"{ledger.folder}: the disk is full; free some space and run the same command again"
                    )
                bar.update(len(results))
        return None

    def _write(self, ledger: Ledger) -> Iterator[str]:
        count, how = self._counter()
        path = answer_file(self._args.out, self._args.model_id)
        records = [record for _, record in self._talks.records(ledger, self._args.model_id, count)]
        if records:
            write_answers(path, records)
        yield f"{path}: {len(records):,} of {len(self._talks.questions):,} questions answered"
        if self._args.bench == ARENA_HARD:
            yield f"token_len counts {how}"
        for name, number in self._talks.oddities(ledger).most_common():
            yield f"answers {name}: {number:,}"

    def _counter(self) -> tuple[TokenCounter, str]:
        if self._local is not None:
            return self._local.count_tokens, "the model's own tokens"
        if self._args.tokenizer:
            return tokenizer_counter(self._args.tokenizer), f"the tokens of {self._args.tokenizer}"
        return count_words, COUNTED_BY_WORDS

    def _model(self) -> "LocalModel":
        assert self._local is not None  # asked only where there is no endpoint
        return self._local


def tokenizer_counter(folder: str) -> Callable[[str], int]:
    """Counts the tokens of a tokenizer's folder.

    Raises:
        UserError: it holds no tokenizer.
    """
    from nid_plugin.halving import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _local_model(args: argparse.Namespace) -> "LocalModel":
    from nid_plugin.evaluation.local_model import LocalModel, LocalOptions

    options = LocalOptions(
        model=args.model,
        adapter=args.adapter,
        precision=args.precision,
        device=args.device,
        batch_size=args.batch_size,
        seed=args.seed,
        pair_format=args.pair_format,
        template=args.template,
    )
    given = {"temperature": args.temperature, "top_p": args.top_p, "stop": args.stop}
    sampling = {name: value for name, value in given.items() if value is not None}
    return LocalModel(options, max_tokens=args.max_tokens, sampling=sampling, system=args.system)


def _estimate(left: list[tuple[Question, list[str]]], settings: RequestSettings) -> Estimate:
    """Tokens of the turns that are left; answers that a later turn repeats count as expected and at most."""
    expected = min(EXPECTED_TOKENS, settings.max_tokens)
    requests = prompts = most = 0
    system = tokens_of_bytes(settings.system) if settings.system else 0
    for question, answers in left:
        for turn in range(len(answers), len(question.turns)):
            known = [*question.turns[: turn + 1], *answers[:turn]]
            fixed = system + sum(map(tokens_of_bytes, known))
            unknown = turn - len(answers[:turn])
            requests += 1
            prompts += fixed + unknown * expected
            most += fixed + unknown * settings.max_tokens
    return Estimate(
        requests, prompts, requests * expected, most, requests * settings.max_tokens, f"{expected} tokens each"
    )
