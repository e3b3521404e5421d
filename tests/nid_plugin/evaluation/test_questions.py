"""Question files of both benchmarks, good and bad."""

from pathlib import Path
from typing import Any

import pytest

from nid_plugin.evaluation.questions import Question, read_questions
from plugin_common.errors import UserError
from tests.nid_plugin.evaluation.bench_files import arena_questions, mt_questions, read_lines, write_lines


def test_both_layouts(tmp_path: Path) -> None:
    mt = read_questions(str(mt_questions(tmp_path / "mt.jsonl")), "mt-bench")
    assert len(mt) == 8
    truth = ("first truth on math", "second truth on math")
    assert mt[3] == Question(84, "math", ("Tell of a river (math).", "And now of a town (math)."), truth)
    assert mt[0].reference == ()
    arena = read_questions(str(arena_questions(tmp_path / "arena.jsonl", 2)), "arena-hard")
    assert arena[1] == Question("uid-1", "hard_prompt", ("Tell of river number 1.",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "cooking"}, 'line 1: unknown category "cooking"; MT-Bench has writing, roleplay'),
        ({"category": None}, '"category" must be a text, found None'),
        ({"question_id": "81"}, "\"question_id\" must be a whole number, found '81'"),
        ({"question_id": True}, '"question_id" must be a whole number'),
        ({"turns": ["one"]}, '"turns" must be two texts that are not empty'),
        ({"turns": ["one", " "]}, '"turns" must be two texts'),
        ({"turns": "one, two"}, '"turns" must be two texts'),
        ({"reference": "truth"}, '"reference" must be a list of texts'),
    ],
)
def test_bad_lines_of_mt_bench(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    records = read_lines(mt_questions(tmp_path / "q.jsonl"))
    write_lines(tmp_path / "q.jsonl", [records[0] | change, *records[1:]])
    with pytest.raises(UserError) as raised:
        read_questions(str(tmp_path / "q.jsonl"), "mt-bench")
    assert message in str(raised.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    one = read_lines(arena_questions(tmp_path / "q.jsonl", 1))[0]
    lines = [one, one, one | {"uid": "b", "prompt": ""}, one | {"uid": 5}]
    with pytest.raises(UserError) as raised:
        read_questions(str(write_lines(tmp_path / "q.jsonl", lines)), "arena-hard")
    text = str(raised.value)
    for part in (
        "3 problems",
        "line 2: uid uid-0 stands in line 1",
        'line 3: "prompt" must',
        'line 4: "uid" must be a text',
    ):
        assert part in text


def test_the_other_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: a question of arena-hard; give --bench arena-hard"):
        read_questions(str(arena_questions(tmp_path / "q.jsonl")), "mt-bench")
    with pytest.raises(UserError, match="line 1: a question of mt-bench; give --bench mt-bench"):
        read_questions(str(mt_questions(tmp_path / "q.jsonl")), "arena-hard")


def test_no_file_and_no_question(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; expected fastchat/llm_judge/data/mt_bench/question.jsonl"):
        read_questions(str(tmp_path / "none"), "mt-bench")
    with pytest.raises(UserError, match="holds no question"):
        read_questions(str(write_lines(tmp_path / "q.jsonl", [])), "arena-hard")


def test_the_older_layout_of_arena_hard_is_told(tmp_path: Path) -> None:
    old = {"question_id": "1f", "category": "arena-hard-v0.1", "cluster": "rivers", "turns": [{"content": "Why?"}]}
    with pytest.raises(UserError, match=r"line 1: a question in arena-hard-auto's older layout .*have uid and prompt"):
        read_questions(str(write_lines(tmp_path / "q.jsonl", [old])), "arena-hard")
