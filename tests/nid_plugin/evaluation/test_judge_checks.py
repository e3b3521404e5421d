"""What is wrong with the options and files of ``nid judge``: told all at once, before anything is asked or written."""

from collections.abc import Callable

import pytest

from tests.nid_plugin.evaluation.bench_files import (
    Bench,
    arena_answer,
    arena_config,
    arena_questions,
    mt_answer,
    mt_prompts,
    mt_questions,
    write_lines,
)

Capture = pytest.CaptureFixture[str]

PROBLEMS: list[tuple[str, Callable[[Bench], object], list[str], list[str]]] = [
    (
        "mt", lambda b: (b.answers / "base.jsonl").unlink(), ["--mode", "pairwise", "--baseline", "base"],
        ["base.jsonl: no such file"],
    ),
    ("mt", lambda b: None, ["--mode", "pairwise"], ["--mode pairwise needs --baseline"]),
    ("mt", lambda b: None, ["--style-control", "equal"], ["--style-control is for Arena-Hard"]),
    ("mt", lambda b: None, ["--references", "none.jsonl"], ["--references none.jsonl: no such .jsonl file"]),
    (
        "mt", lambda b: mt_questions(b.folder / "question.jsonl", references=False), [],
        ["3 questions on coding, math, reasoning have no reference answers", "reference_answer/gpt-4.jsonl"],
    ),
    (
        "mt", lambda b: write_lines(b.answers / "loud.jsonl", [mt_answer(81, "loud", ("a", "b"))]), [],
        ["loud has no answer to 7 of 8 questions (82, 83, 84, 85, 86 …)"],
    ),
    (
        "mt", lambda b: write_lines(b.answers / "loud.jsonl", [arena_answer("u", "loud", "a")]), [],
        ["line 1: no answer of mt-bench; expected question_id"],
    ),
    (
        "mt", lambda b: mt_prompts(b.folder / "judge_prompts.jsonl", **{"single-v1": {"output_format": "[[A]]"}}), [],
        ['prompt "single-v1": its output_format is \'[[A]]\', not "[[rating]]"'],
    ),
    ("mt", lambda b: None, ["--api", "completions"], ["a judge is asked by chat"]),
    ("arena", lambda b: None, ["--mode", "single"], ["Arena-Hard compares with a baseline"]),
    ("arena", lambda b: None, ["--baseline", "nobody"], ["nobody.jsonl: no such file"]),
    ("arena", lambda b: None, ["--models", "loud", "base"], ["--models base: is the baseline"]),
    (
        "arena", lambda b: arena_questions(b.folder / "question.jsonl", 2, ("new_kind",)), [],
        ["no system prompt for the category new_kind", "files name none for the category new_kind"],
    ),
    (
        "arena", lambda b: arena_config(b.folder / "arena-hard-v2.0.yaml", prompt_template="{ANSWER_A}"), [],
        ["its template lacks {ANSWER_B}, {QUESTION}"],
    ),
    ("arena", lambda b: mt_questions(b.folder / "question.jsonl"), [], ["a question of mt-bench; give --bench mt"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "words", "messages"), PROBLEMS, ids=[m[0][:40] for *_, m in PROBLEMS])
def test_bad_input(
    name: str,
    spoil: Callable[[Bench], object],
    words: list[str],
    messages: list[str],
    request: pytest.FixtureRequest,
    capsys: Capture,
) -> None:
    bench: Bench = request.getfixturevalue(name)
    spoil(bench)
    assert bench.command(*words) == 1
    said = capsys.readouterr().err
    assert all(message in said for message in messages), said
    assert not bench.out.exists()


def test_all_problems_at_once(arena: Bench, capsys: Capture) -> None:
    (arena.answers / "poet.jsonl").unlink()
    write_lines(arena.answers / "loud.jsonl", [arena_answer("uid-1", "loud", "a"), arena_answer("uid-1", "loud", "b")])
    arena_config(arena.folder / "arena-hard-v2.0.yaml", regex_patterns="left out")
    assert arena.command("--max-tokens", "0") == 1
    said = capsys.readouterr().err
    for part in ("a second answer to question uid-1", "no regex_patterns", "--max-tokens 0: at least 1"):
        assert part in said
