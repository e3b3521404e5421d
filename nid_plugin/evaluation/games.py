"""What a judge is asked about answers: one request for each game."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nid_plugin.completion.settings import Request, RequestIds, RequestSettings
from nid_plugin.evaluation.answers import ModelAnswer
from nid_plugin.evaluation.judge_prompts import ArenaPrompts, MtBenchPrompts, Prompt
from nid_plugin.evaluation.questions import WITH_REFERENCE, Question, QuestionId

Answers = Mapping[str, Mapping[QuestionId, ModelAnswer]]
"""Model → question → answer."""

References = Mapping[QuestionId, Sequence[str]]
"""Question → reference answers by turn."""


@dataclass(frozen=True)
class Match:
    """Answers to one question (in MT-Bench to one of its turns) that are judged together.

    Attributes:
        question: the question.
        turn: 1 or 2; up to which the judge reads.
        model: whose answer.
        opponent: the baseline; empty where answers are rated by themselves.
        prompt: name of the judge's prompt.
        games: one request, or two with the answers in either order.
    """

    question: Question
    turn: int
    model: str
    opponent: str
    prompt: str
    games: tuple[Request, ...]


class MatchMaker:
    """Makes the matches of models.

    Args:
        settings: of the judge's requests.
        answers: of all models, the baseline's included.
        own_temperature: sent with each request; None for none.
        system_role: whether the judge takes a system prompt; else it stands in front of the user's message.
    """

    def __init__(
        self,
        settings: RequestSettings,
        answers: Answers,
        *,
        own_temperature: float | None = None,
        system_role: bool = True,
    ) -> None:
        self._ids, self._answers, self._system_role = RequestIds(settings), answers, system_role
        self._sampling: dict[str, Any] = {} if own_temperature is None else {"temperature": own_temperature}

    def mt_bench(
        self,
        questions: Sequence[Question],
        models: Sequence[str],
        prompts: MtBenchPrompts,
        references: References,
        *,
        baseline: str = "",
    ) -> Iterator[Match]:
        """MT-Bench: each turn rated, or with a baseline compared in both orders (assistant A is the model first)."""
        for model in models:
            for turn in (1, 2):
                for question in questions:
                    prompt = prompts.of(question.category, turn)
                    games = self._mt_bench_games(question, turn, model, baseline, prompt, references)
                    yield Match(question, turn, model, baseline, prompt.name, games)

    def _mt_bench_games(
        self, question: Question, turn: int, model: str, baseline: str, prompt: Prompt, references: References
    ) -> tuple[Request, ...]:
        common = {"question": question.turns[0]} if turn == 1 else _numbered("question", question.turns)
        if question.category in WITH_REFERENCE:
            common |= _numbered("ref_answer", references[question.id][:turn])
        said = self._answers[model][question.id].turns
        if not baseline:
            own = {"answer": said[0]} if turn == 1 else _numbered("answer", said)
            return (self._game(prompt, common | own),)
        theirs = self._answers[baseline][question.id].turns
        orders = ((said, theirs), (theirs, said))
        return tuple(self._game(prompt, common | _side("a", a, turn) | _side("b", b, turn)) for a, b in orders)

    def arena_hard(
        self,
        questions: Sequence[Question],
        models: Sequence[str],
        prompts: ArenaPrompts,
        baselines: Mapping[str, str],
    ) -> Iterator[Match]:
        """Arena-Hard: two games against the category's baseline, which is assistant A in the first."""
        for model in models:
            for question in questions:
                baseline, prompt = baselines[question.category], prompts.of(question.category)
                assert prompt is not None  # checked before
                own = self._answers[model][question.id].turns[0]
                other = self._answers[baseline][question.id].turns[0]
                games = tuple(
                    self._game(prompt, {"QUESTION": question.turns[0], "ANSWER_A": a, "ANSWER_B": b})
                    for a, b in ((other, own), (own, other))
                )
                yield Match(question, 1, model, baseline, prompt.name, games)

    def _game(self, prompt: Prompt, values: Mapping[str, str]) -> Request:
        said = prompt.fill(**values)
        messages: tuple[tuple[str, str], ...] = (("system", prompt.system), ("user", said))
        if not self._system_role:
            messages = (("user", "\n\n".join(filter(None, (prompt.system.rstrip(), said)))),)
        key = f"judge temperature {self._sampling.get('temperature')}"
        request_id = self._ids(key, json.dumps(messages, ensure_ascii=False))
        return Request(request_id, messages[-1][1], messages, self._sampling)


def _numbered(name: str, texts: Sequence[str]) -> dict[str, str]:
    return {f"{name}_{number}": text for number, text in enumerate(texts, start=1)}


def _side(side: str, turns: Sequence[str], turn: int) -> dict[str, str]:
    return {f"answer_{side}": turns[0]} if turn == 1 else _numbered(f"answer_{side}", turns)
