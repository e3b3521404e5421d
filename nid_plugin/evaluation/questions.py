"""The questions of MT-Bench and Arena-Hard, from those projects' own files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from plugin_common.errors import UserError, raise_all
from plugin_common.json_lines import read_json_lines

Bench = Literal["mt-bench", "arena-hard"]
BENCHES: tuple[Bench, ...] = ("mt-bench", "arena-hard")
MT_BENCH: Bench = "mt-bench"
ARENA_HARD: Bench = "arena-hard"

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""MT-Bench's categories, and the temperature at which models answer them."""

WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""MT-Bench's categories that are judged beside a reference answer."""

ANSWER_TOKENS: dict[Bench, int] = {"mt-bench": 1024, "arena-hard": 4096}
"""Longest answer: FastChat's figure, and that of Arena-Hard 0.1 (2.0 sets one for each model)."""

_ID: dict[Bench, str] = {"mt-bench": "question_id", "arena-hard": "uid"}
_TEXT: dict[Bench, str] = {"mt-bench": "turns", "arena-hard": "prompt"}
_WHERE: dict[Bench, str] = {
    "mt-bench": "fastchat/llm_judge/data/mt_bench/question.jsonl of FastChat",
    "arena-hard": "data/arena-hard-v2.0/question.jsonl of arena-hard-auto",
}

QuestionId = int | str


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: MT-Bench's ``question_id`` (a number) or Arena-Hard's ``uid`` (a text).
        category: as the file names it.
        turns: what the user says: two texts in MT-Bench, one in Arena-Hard.
        reference: reference answers by turn that the file itself holds; empty where it has none.
    """

    id: QuestionId
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()


def id_field(bench: Bench) -> str:
    """How a benchmark's files call a question's id."""
    return _ID[bench]


def read_questions(path: str, bench: Bench) -> list[Question]:
    """The questions of a file, in its order.

    Raises:
        UserError: lists every line that is no question of this benchmark, unknown categories and ids that stand there
            twice.
    """
    if not Path(path).is_file():
        raise UserError(f"--questions {path}: no such file; expected {_WHERE[bench]}")
    questions: list[Question] = []
    problems: list[str] = []
    met: dict[QuestionId, int] = {}
    for number, record in read_json_lines(path):
        where = f"{path}, line {number}"
        if bench == ARENA_HARD and _is_of_old_arena(record):
            raise UserError(
                f"{where}: a question in arena-hard-auto's older layout (question_id, turns of objects); its present "
                "data have uid and prompt, for 0.1 too: fetch data/arena-hard-v0.1/question.jsonl anew"
            )
        if other := _other_bench(record, bench):
            raise UserError(f"{where}: a question of {other}; give --bench {other}, or {_WHERE[bench]}")
        faults = list(_faults(record, bench))
        problems += [f"{where}: {fault}" for fault in faults]
        if faults:
            continue
        question = _question(record, bench)
        if question.id in met:
            problems.append(f"{where}: {_ID[bench]} {question.id} stands in line {met[question.id]} already")
        met.setdefault(question.id, number)
        questions.append(question)
    if not questions and not problems:
        problems.append(f"--questions {path}: holds no question; expected {_WHERE[bench]}")
    raise_all(problems)
    return questions


def _other_bench(record: dict[str, Any], bench: Bench) -> Bench | None:
    """The benchmark to which a line belongs, where that is plain and another one."""
    other: Bench = ARENA_HARD if bench == MT_BENCH else MT_BENCH
    own = _ID[bench] in record or _TEXT[bench] in record
    return other if not own and _ID[other] in record and _TEXT[other] in record else None


def _is_of_old_arena(record: dict[str, Any]) -> bool:
    turns = record.get("turns")
    return "uid" not in record and isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict)


def _faults(record: dict[str, Any], bench: Bench) -> Iterator[str]:
    name = _ID[bench]
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int if bench == MT_BENCH else str) or value == "":
        kind = "a whole number" if bench == MT_BENCH else "a text"
        yield f'"{name}" must be {kind}, found {_shown(record, name)}'
    category = record.get("category")
    if not isinstance(category, str) or not category:
        yield f'"category" must be a text, found {_shown(record, "category")}'
    elif bench == MT_BENCH and category not in TEMPERATURES:
        yield f'unknown category "{category}"; MT-Bench has {", ".join(TEMPERATURES)}'
    if bench == ARENA_HARD:
        if not _is_text(record.get("prompt")):
            yield f'"prompt" must be a text that is not empty, found {_shown(record, "prompt")}'
        return
    turns = record.get("turns")
    if not isinstance(turns, list) or len(turns) != 2 or not all(map(_is_text, turns)):
        yield f'"turns" must be two texts that are not empty, found {_shown(record, "turns")}'
    reference = record.get("reference")
    if reference is not None and (not isinstance(reference, list) or not all(isinstance(r, str) for r in reference)):
        yield f'"reference" must be a list of texts, found {_shown(record, "reference")}'


def _question(record: dict[str, Any], bench: Bench) -> Question:
    if bench == ARENA_HARD:
        return Question(record["uid"], record["category"], (record["prompt"],))
    reference = tuple(record.get("reference") or ())
    return Question(record["question_id"], record["category"], tuple(record["turns"]), reference)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _shown(record: dict[str, Any], name: str) -> str:
    if name not in record:
        return "none"
    text = repr(record[name])
    return text if len(text) <= 60 else text[:59] + "…"
