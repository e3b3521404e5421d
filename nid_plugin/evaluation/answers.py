"""Answer files in the layouts of FastChat (MT-Bench) and arena-hard-auto (Arena-Hard): one JSON object a line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nid_plugin.evaluation.questions import ARENA_HARD, MT_BENCH, Bench, Question, QuestionId, id_field
from nid_plugin.evaluation.style import TokenCounter, style_metadata
from plugin_common.errors import UserError
from plugin_common.json_lines import read_json_lines
from plugin_common.json_output import json_line, lines_output

SUFFIX = ".jsonl"
_LISTED = 5


@dataclass(frozen=True)
class ModelAnswer:
    """A model's answer to a question.

    Attributes:
        question: its id.
        model: as the file's records name it.
        turns: what the model said.
    """

    question: QuestionId
    model: str
    turns: tuple[str, ...]


def answer_record(
    bench: Bench,
    question: Question,
    turns: Sequence[str],
    *,
    model: str,
    answer_id: str,
    time: float,
    count_tokens: TokenCounter,
) -> dict[str, Any]:
    """One line of an answer file.

    Args:
        bench: whose layout.
        question: the one answered.
        turns: what the model said.
        model: its name on the benchmark.
        answer_id: tells one answer from another.
        time: when it came, seconds since 1970.
        count_tokens: for Arena-Hard's ``token_len``.
    """
    if bench == MT_BENCH:
        return {
            "question_id": question.id,
            "answer_id": answer_id,
            "model_id": model,
            "choices": [{"index": 0, "turns": list(turns)}],
            "tstamp": time,
        }
    return {
        "uid": question.id,
        "ans_id": answer_id,
        "model": model,
        "messages": [
            {"role": "user", "content": question.turns[0]},
            {"role": "assistant", "content": {"answer": turns[0]}},
        ],
        "tstamp": time,
        "metadata": style_metadata(turns[0], count_tokens),
    }


def write_answers(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write an answer file; it appears only when it is complete.

    Raises:
        UserError: it cannot be written.
    """
    with lines_output(str(path)) as stream:
        for record in records:
            stream.write(json_line(record))


def valid_text(text: str) -> str:
    """The text with lone surrogates (half a character, which a broken server may send) replaced by U+FFFD: no file and
    no endpoint takes them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_model_id(name: str, option: str) -> list[str]:
    """What is wrong with a model's name, which is its answer file's name, too."""
    if not name.strip() or name.startswith(".") or any(sign in name for sign in "/\\\0") or not name.isprintable():
        return [f"{option} {name!r}: must be usable as the name of a file (no /, no leading dot): it names the answers"]
    return []


def answer_file(folder: str | Path, model: str) -> Path:
    """Where a model's answers are."""
    return Path(folder) / f"{model}{SUFFIX}"


def models_in(folder: str | Path) -> list[str]:
    """The models whose answers a folder holds, sorted.

    Raises:
        UserError: there is no such folder, or none in it.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--answers {folder}: no such folder; give the one that `nid answer --out` wrote")
    found = sorted(path.stem for path in Path(folder).glob(f"*{SUFFIX}"))
    if not found:
        raise UserError(f"--answers {folder}: holds no *{SUFFIX} file; `nid answer --out {folder}` writes them")
    return found


def read_answers(folder: str | Path, model: str, bench: Bench) -> dict[QuestionId, ModelAnswer]:
    """A model's answers by question.

    Raises:
        UserError: no such file, lines that are no answers of this benchmark, or two answers to one question (all at
            once).
    """
    path = answer_file(folder, model)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `nid answer --model-id {model}` writes the answers of {model}")
    answers: dict[QuestionId, ModelAnswer] = {}
    problems = []
    for number, record in read_json_lines(str(path)):
        where = f"{path}, line {number}"
        answer = _answer(record, bench)
        if answer is None:
            problems.append(f"{where}: no answer of {bench}; expected {_expected(bench)}")
        elif answer.question in answers:
            problems.append(f"{where}: a second answer to question {answer.question}")
        else:
            answers[answer.question] = answer
    if problems:
        more = f"\n  … and {len(problems) - _LISTED} more lines" if len(problems) > _LISTED else ""
        raise UserError("\n".join(problems[:_LISTED]) + more)
    return answers


def missing_answers(model: str, answers: dict[QuestionId, ModelAnswer], questions: Sequence[Question]) -> list[str]:
    """The complaint about questions that a model has no answer to; none where it has all."""
    missing = [str(question.id) for question in questions if question.id not in answers]
    if not missing:
        return []
    shown = ", ".join(missing[:_LISTED]) + (" …" if len(missing) > _LISTED else "")
    return [
        f"{model} has no answer to {len(missing)} of {len(questions)} questions ({shown}); "
        f"`nid answer --model-id {model}` with the same --questions and --out goes on with them"
    ]


def _expected(bench: Bench) -> str:
    if bench == ARENA_HARD:
        return "uid, model, messages [user, assistant {answer}]"
    return "question_id, model_id, choices [{turns [first, second]}]"


def _answer(record: dict[str, Any], bench: Bench) -> ModelAnswer | None:
    try:
        question = record[id_field(bench)]
        if bench == MT_BENCH:
            model, turns = record["model_id"], tuple(record["choices"][0]["turns"])
        else:
            model, turns = record["model"], (record["messages"][-1]["content"]["answer"],)
    except (KeyError, IndexError, TypeError):
        return None
    whole = len(turns) == (2 if bench == MT_BENCH else 1) and all(isinstance(turn, str) for turn in turns)
    if not whole or not isinstance(question, int | str) or not isinstance(model, str):
        return None
    return ModelAnswer(question, model, turns)
