"""Answer files: written and read back, by their documented layouts; bad ones are told line by line."""

import json
from pathlib import Path

import pytest

from nid_plugin.evaluation.answers import (
    ModelAnswer,
    answer_record,
    check_model_id,
    missing_answers,
    models_in,
    read_answers,
    valid_text,
    write_answers,
)
from nid_plugin.evaluation.questions import Bench, Question
from plugin_common.errors import UserError
from tests.nid_plugin.evaluation.bench_files import arena_answer, mt_answer, read_lines, write_lines

MT = Question(81, "writing", ("first?", "second?"))
ARENA = Question("u", "hard_prompt", ("what?",))


@pytest.mark.parametrize(
    ("bench", "question", "turns"), [("mt-bench", MT, ("é\ud800", "b")), ("arena-hard", ARENA, ("",))]
)
def test_what_is_written_is_read(bench: Bench, question: Question, turns: tuple[str, ...], tmp_path: Path) -> None:
    record = answer_record(bench, question, turns, model="m", answer_id="7", time=1.5, count_tokens=len)
    write_answers(tmp_path / "m.jsonl", [record])
    if "\ud800" not in turns[0]:
        assert read_answers(tmp_path, "m", bench) == {question.id: ModelAnswer(question.id, "m", turns)}
    assert json.loads((tmp_path / "m.jsonl").read_text(encoding="utf-8")) == record


def test_layouts_have_the_fields_that_the_documented_ones_have() -> None:
    mt = answer_record("mt-bench", MT, ("a", "b"), model="m", answer_id="7", time=1.5, count_tokens=len)
    assert list(mt) == list(mt_answer(81, "m", ("a", "b")))
    arena = answer_record("arena-hard", ARENA, ("a",), model="m", answer_id="7", time=1.5, count_tokens=len)
    documented = arena_answer("u", "m", "a")
    assert list(arena) == list(documented)
    assert {name: list(value) for name, value in arena["metadata"].items() if isinstance(value, dict)} == {
        name: list(value) for name, value in documented["metadata"].items() if isinstance(value, dict)
    }
    assert [list(message) for message in arena["messages"]] == [list(message) for message in documented["messages"]]


def test_answers_of_other_programs_are_read(tmp_path: Path) -> None:
    more = arena_answer("u", "org/m", "text")
    more["messages"] = [{"role": "system", "content": "s"}, *more["messages"]]
    write_lines(tmp_path / "m.jsonl", [more | {"conv_metadata": {}}])
    assert read_answers(tmp_path, "m", "arena-hard") == {"u": ModelAnswer("u", "org/m", ("text",))}


def test_bad_lines(tmp_path: Path) -> None:
    good = mt_answer(81, "m", ("a", "b"))
    lines = [good, good, mt_answer(82, "m", ("a",)), arena_answer("u", "m", "a"), good | {"choices": []}]
    with pytest.raises(UserError) as raised:
        read_answers(write_lines(tmp_path / "m.jsonl", lines).parent, "m", "mt-bench")
    text = str(raised.value)
    assert "line 2: a second answer to question 81" in text
    assert all(f"line {number}: no answer of mt-bench" in text for number in (3, 4, 5))
    write_lines(tmp_path / "m.jsonl", [{}] * 9)
    with pytest.raises(UserError, match="and 4 more lines"):
        read_answers(tmp_path, "m", "mt-bench")


def test_folders_and_missing_answers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        models_in(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds no \*.jsonl file"):
        models_in(tmp_path)
    write_lines(tmp_path / "gpt-4.1.jsonl", [mt_answer(81, "gpt-4.1", ("a", "b"))])
    assert models_in(tmp_path) == ["gpt-4.1"]
    answers = read_answers(tmp_path, "gpt-4.1", "mt-bench")
    assert missing_answers("gpt-4.1", answers, [MT]) == []
    (complaint,) = missing_answers("gpt-4.1", answers, [MT, Question(82, "math", ("a", "b"))])
    assert complaint.startswith("gpt-4.1 has no answer to 1 of 2 questions (82)")


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", ".m", "a\nb", "a\\b"])
def test_names_that_no_file_can_have(name: str) -> None:
    assert check_model_id(name, "--model-id")


def test_usual_names() -> None:
    assert not check_model_id("Llama-3-8b_v1.0 (ours)", "--model-id")


def test_the_file_appears_whole(tmp_path: Path) -> None:
    write_answers(tmp_path / "m.jsonl", [mt_answer(n, "m", ("a", "b")) for n in range(3)])
    assert [record["question_id"] for record in read_lines(tmp_path / "m.jsonl")] == [0, 1, 2]
    with pytest.raises(UserError, match="cannot be written"):
        write_answers(tmp_path / "none" / "m.jsonl", [])


def test_half_characters_are_replaced() -> None:
    assert valid_text("a\ud800b\udc00") == "a\ufffdb\ufffd"
    assert valid_text("日本 🙂\r\n") == "日本 🙂\r\n"
