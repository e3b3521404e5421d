"""Judgments in the layouts of FastChat (MT-Bench) and arena-hard-auto (Arena-Hard): one JSON object a line."""

import re
from collections.abc import Sequence
from datetime import datetime

from nid_plugin.completion.results import Result
from nid_plugin.evaluation.answers import valid_text
from nid_plugin.evaluation.games import Match
from nid_plugin.evaluation.judgment_files import Record
from nid_plugin.evaluation.verdicts import label, rating, winner

_FIRST = {"A": "model_1", "B": "model_2"}
_SECOND = {"A": "model_2", "B": "model_1"}


def single_record(match: Match, results: Sequence[Result | None], judge: str) -> Record | None:
    """MT-Bench, one answer rated: a line of ``JUDGE_single.jsonl``; None where the judge did not answer."""
    result = results[0]
    if result is None:
        return None
    score = rating(result.completion)
    return {
        "question_id": match.question.id,
        "model": match.model,
        "judge": [judge, match.prompt],
        "user_prompt": match.games[0].text,
        "judgment": valid_text(result.completion),
        "score": int(score) if score == int(score) else score,
        "turn": match.turn,
        "tstamp": _seconds(result),
    }


def pair_record(match: Match, results: Sequence[Result | None], judge: str) -> Record | None:
    """MT-Bench, two answers compared in both orders: a line of ``JUDGE_pair.jsonl``; None unless both are answered."""
    first, second = results
    if first is None or second is None:
        return None
    said = winner(first.completion), winner(second.completion)
    return {
        "question_id": match.question.id,
        "model_1": match.model,
        "model_2": match.opponent,
        "g1_winner": _FIRST.get(said[0], said[0]),
        "g2_winner": _SECOND.get(said[1], said[1]),
        "judge": [judge, match.prompt],
        "g1_user_prompt": match.games[0].text,
        "g1_judgment": valid_text(first.completion),
        "g2_user_prompt": match.games[1].text,
        "g2_judgment": valid_text(second.completion),
        "turn": match.turn,
        "tstamp": max(_seconds(first), _seconds(second)),
    }


def arena_record(
    match: Match, results: Sequence[Result | None], judge: str, patterns: Sequence[re.Pattern[str]]
) -> Record | None:
    """Arena-Hard: a line of ``JUDGE/MODEL.jsonl``; a game without an answer is null, None stands for both so."""
    if all(result is None for result in results):
        return None
    return {
        "uid": match.question.id,
        "category": match.question.category,
        "judge": judge,
        "model": match.model,
        "baseline": match.opponent,
        "games": [
            None if result is None else {
                "score": label(result.completion, patterns),
                "judgment": {"answer": valid_text(result.completion)},
                "prompt": [{"role": role, "content": content} for role, content in game.messages],
            }
            for game, result in zip(match.games, results, strict=True)
        ],
    }  # fmt: skip


def _seconds(result: Result) -> float:
    return datetime.fromisoformat(result.at).timestamp()
