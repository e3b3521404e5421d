"""``nid judge`` with a judge on loopback: what is asked, what is written, what is scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.cli import main
from tests.nid_plugin.evaluation.bench_files import (
    MT_FIRST,
    arena_answer,
    arena_config,
    arena_questions,
    arena_settings,
    judge_by_length,
    mt_answer,
    mt_prompts,
    mt_questions,
    read_lines,
    shown,
    write_lines,
)
from tests.toy_teacher import Asked, Reply, ToyTeacher, answer, error, toy_teacher

Capture = pytest.CaptureFixture[str]
JUDGE = "the-judge"


class Bench:
    """A folder with questions, answers and prompts of a benchmark."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.out = folder / "judgments"
        self.answers = folder / "answers"

    def command(self, *words: str, teacher: ToyTeacher | None = None) -> int:
        """Run ``nid judge``."""
        given = ["judge", "--bench", self.name, "--questions", str(self.folder / "question.jsonl")]
        given += ["--answers", str(self.answers), "--judge-model", JUDGE, "--out", str(self.out), "--bootstrap", "50"]
        if "--scores-only" not in words:
            given += ["--judge-prompts", *self.prompts, "--price", "1", "2"]
            given += ["--base-url", teacher.base_url if teacher else "http://127.0.0.1:9/v1"]
        return main([*given, *words])

    @property
    def prompts(self) -> list[str]:
        """The files for ``--judge-prompts``."""
        if self.name == "mt-bench":
            return [str(self.folder / "judge_prompts.jsonl")]
        return [str(self.folder / "arena-hard-v2.0.yaml"), str(self.folder / "judge_utils.py")]

    def scores(self, kind: str) -> dict[str, Any]:
        """The scores of the JSON file."""
        return dict(json.loads((self.out / f"{JUDGE}_{kind}.scores.json").read_text(encoding="utf-8")))


@pytest.fixture
def mt(tmp_path: Path) -> Bench:
    """Model ``loud`` answers with 4 and 5 exclamation marks, ``base`` with 3 and 3."""
    bench = Bench(tmp_path, "mt-bench")
    mt_questions(tmp_path / "question.jsonl")
    mt_prompts(tmp_path / "judge_prompts.jsonl")
    for model, turns in (("loud", ("Ha!!!!", "Ho!!!!!")), ("base", ("Ha!!!", "Ho!!!"))):
        write_lines(bench.answers / f"{model}.jsonl", (mt_answer(MT_FIRST + n, model, turns) for n in range(8)))
    return bench


@pytest.fixture
def arena(tmp_path: Path) -> Bench:
    """Model ``loud`` answers with 1 exclamation mark more than the category's baseline, ``mute`` with none."""
    bench = Bench(tmp_path, "arena-hard")
    arena_questions(tmp_path / "question.jsonl", 6, ("hard_prompt", "creative_writing"))
    arena_config(tmp_path / "arena-hard-v2.0.yaml")
    arena_settings(tmp_path / "judge_utils.py")
    for model, text in (("base", "Ha!!"), ("poet", "Ho!!"), ("loud", "Hi!!!"), ("mute", "No")):
        write_lines(bench.answers / f"{model}.jsonl", (arena_answer(f"uid-{n}", model, text) for n in range(6)))
    return bench


def test_single_answers_are_rated_by_turn_with_references(mt: Bench, capsys: Capture) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert mt.command(teacher=teacher) == 0
    asked = [one.body for one in teacher.asked]
    assert len(asked) == 2 * 2 * 8
    assert {body["temperature"] for body in asked} == {0.0} and {body["max_tokens"] for body in asked} == {2048}
    with_truth = [body for body in asked if "R first truth" in body["messages"][1]["content"]]
    assert len(with_truth) == 3 * 2 * 2  # math, coding, reasoning: two turns, two models
    assert all(body["messages"][0] == {"role": "system", "content": "You judge (single)."} for body in asked)
    records = read_lines(mt.out / f"{JUDGE}_single.jsonl")
    assert len(records) == 32
    first = next(r for r in records if (r["question_id"], r["model"], r["turn"]) == (84, "loud", 2))
    assert list(first) == ["question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"]
    assert first["judge"] == [JUDGE, "single-math-v1-multi-turn"] and first["score"] == 10
    assert shown(first["user_prompt"], "S") == ["Ha!!!!", "Ho!!!!!"]
    assert shown(first["user_prompt"], "R") == ["first truth on math", "second truth on math"]
    scores = mt.scores("single")["scores"]
    assert (scores["loud"]["turn_1"], scores["loud"]["turn_2"], scores["loud"]["average"]) == (8, 10, 9)
    assert scores["base"]["average"] == 6 and scores["base"]["interval"] == [6, 6]
    assert [scores["loud"][name] for name in ("n", "unparsed", "missing")] == [16, 0, 0]
    assert "| loud | 8.00 | 10.00 | 9.00 | 9.00 to 9.00 | 16 | 0 | 0 |" in capsys.readouterr().out


def test_nothing_is_asked_twice_and_other_models_stay(mt: Bench) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert mt.command("--models", "base", teacher=teacher) == 0
        assert len(teacher.asked) == 16
        assert mt.command("--models", "loud", teacher=teacher) == 0
        assert len(teacher.asked) == 32
        before = (mt.out / f"{JUDGE}_single.jsonl").read_bytes()
        assert mt.command(teacher=teacher) == 0
        assert len(teacher.asked) == 32
    assert sorted((mt.out / f"{JUDGE}_single.jsonl").read_bytes().splitlines()) == sorted(before.splitlines())


def test_pairs_are_judged_in_both_orders(mt: Bench) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert mt.command("--mode", "pairwise", "--baseline", "base", teacher=teacher) == 0
    assert len(teacher.asked) == 2 * 16
    records = read_lines(mt.out / f"{JUDGE}_pair.jsonl")
    assert len(records) == 16
    one = records[0]
    assert list(one) == [
        "question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge", "g1_user_prompt", "g1_judgment",
        "g2_user_prompt", "g2_judgment", "turn", "tstamp",
    ]  # fmt: skip
    assert (one["model_1"], one["model_2"]) == ("loud", "base")
    assert (one["g1_winner"], one["g1_judgment"]) == ("model_1", "[[A]]")
    assert (one["g2_winner"], one["g2_judgment"]) == ("model_1", "[[B]]")
    assert shown(one["g1_user_prompt"], "A") == shown(one["g2_user_prompt"], "B") == ["Ha!!!!"]
    scores = mt.scores("pair")["scores"]["loud"]
    assert (scores["wins"], scores["ties"], scores["losses"], scores["adjusted_win_rate"]) == (16, 0, 0, 1.0)


def test_a_judge_that_prefers_the_first_answer_makes_ties(mt: Bench) -> None:
    with toy_teacher(lambda asked: answer("[[A]]")) as teacher:
        assert mt.command("--mode", "pairwise", "--baseline", "base", teacher=teacher) == 0
    scores = mt.scores("pair")["scores"]["loud"]
    assert (scores["ties"], scores["disagreements"], scores["adjusted_win_rate"]) == (16, 16, 0.5)


def test_arena_hard_by_category_and_baseline(arena: Bench) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert arena.command(teacher=teacher) == 0
    assert len(teacher.asked) == 2 * 2 * 6
    assert {one.body["max_tokens"] for one in teacher.asked} == {16000}
    systems = {one.body["messages"][0]["content"] for one in teacher.asked}
    assert systems == {"You judge rivers.", "You judge poems."}
    records = read_lines(arena.out / JUDGE / "loud.jsonl")
    one = records[0]
    assert list(one) == ["uid", "category", "judge", "model", "baseline", "games"]
    assert [record["baseline"] for record in records[:2]] == ["base", "poet"]
    assert [list(game) for game in one["games"]] == [["score", "judgment", "prompt"]] * 2
    assert [game["score"] for game in one["games"]] == ["B>A", "A>B"]  # the baseline is A first
    assert one["games"][0]["judgment"] == {"answer": "My final verdict is: [[B>A]]"}
    assert [message["role"] for message in one["games"][0]["prompt"]] == ["system", "user"]
    scores = arena.scores("pair")["scores"]
    assert list(scores) == ["hard_prompt", "creative_writing"]  # two baselines: nothing joins them
    assert scores["hard_prompt"]["models"]["loud"]["score"] == 100
    assert scores["creative_writing"]["models"]["mute"] == {
        "score": 0.0, "interval": [0.0, 0.0], "n": 3, "unparsed": 0, "missing": 0,
    }  # fmt: skip


def test_one_baseline_for_all_joins_the_categories(arena: Bench) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert arena.command("--baseline", "base", "--models", "loud", teacher=teacher) == 0
    scores = arena.scores("pair")["scores"]
    assert list(scores) == ["hard_prompt", "creative_writing", "all"] and scores["all"]["models"]["loud"]["n"] == 6


def test_style_control_reads_the_answers_anew(arena: Bench) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert arena.command("--style-control", "equal", teacher=teacher) == 0
    report = arena.scores("pair_style_equal")
    assert report["style_control"] == "equal" and "words" in report["style_tokens"]
    table = report["scores"]["hard_prompt"]
    assert list(table["style"]) == ["length", "headings", "list items", "bold"]
    assert 50 < table["models"]["loud"]["score"] < 100


def test_what_cannot_be_read_is_counted(mt: Bench) -> None:
    def reply(asked: Asked) -> Reply:
        if "writing" in asked.text:
            return answer("I would rather not.")
        if "roleplay" in asked.text and "town" not in asked.text:
            return error(400, "too long")
        return answer("[[5]]")

    with toy_teacher(reply) as teacher:
        assert mt.command("--models", "loud", teacher=teacher) == 0
    scores = mt.scores("single")["scores"]["loud"]
    assert [scores[name] for name in ("average", "n", "unparsed", "missing")] == [5, 13, 2, 1]
    assert [r["score"] for r in read_lines(mt.out / f"{JUDGE}_single.jsonl") if r["question_id"] == 81] == [-1, -1]


def test_an_unreadable_game_takes_its_question_out(arena: Bench) -> None:
    def reply(asked: Asked) -> Reply:
        return answer("No verdict.") if "number 0" in asked.text else judge_by_length(asked)

    with toy_teacher(reply) as teacher:
        assert arena.command("--models", "loud", teacher=teacher) == 0
    assert [game["score"] for game in read_lines(arena.out / JUDGE / "loud.jsonl")[0]["games"]] == [None, None]
    found = arena.scores("pair")["scores"]["hard_prompt"]["models"]["loud"]
    assert [found[name] for name in ("score", "n", "unparsed", "missing")] == [100, 2, 1, 0]


@pytest.mark.parametrize("name", ["mt", "arena"])
def test_scores_alone_ask_nobody_and_are_the_same(name: str, request: pytest.FixtureRequest, capsys: Capture) -> None:
    bench: Bench = request.getfixturevalue(name)
    kind = "single" if name == "mt" else "pair"
    with toy_teacher(judge_by_length) as teacher:
        assert bench.command(teacher=teacher) == 0
    before = bench.scores(kind)
    (bench.out / f"{JUDGE}_{kind}.scores.json").unlink()
    assert bench.command("--scores-only") == 0
    assert bench.scores(kind) == before


def test_a_dry_run_asks_and_writes_nothing(arena: Bench, capsys: Capture) -> None:
    assert arena.command("--dry-run") == 0
    shown_lines = capsys.readouterr().out
    assert "requests left: 24" in shown_lines and "at most 384,000" in shown_lines and "dollars" in shown_lines
    assert not arena.out.exists()


def test_a_spending_limit_stops_and_the_scores_of_the_rest_are_written(mt: Bench, capsys: Capture) -> None:
    with toy_teacher(judge_by_length) as teacher:
        # a request costs at most (about 150 prompt tokens, 2,048 of the answer) 0.0043 dollars, in truth 0.00002
        assert mt.command("--max-cost", "0.0045", "--concurrency", "1", teacher=teacher) == 1
        said = capsys.readouterr()
        assert "leaves no room for the next request" in said.err and "of what is judged so far" in said.err
        some = len(teacher.asked)
        assert 0 < some < 32
        scores = mt.scores("single")["scores"]
        assert sum(one["missing"] for one in scores.values()) == 32 - some
        assert mt.command(teacher=teacher) == 0
        assert len(teacher.asked) == 32


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


def test_a_judgment_file_of_another_mode_is_refused(mt: Bench, capsys: Capture) -> None:
    write_lines(mt.out / f"{JUDGE}_single.jsonl", [{"question_id": 81, "model": "loud"}])
    assert mt.command("--scores-only") == 1
    assert "line 1: no judgment of this kind: lacks score, turn" in capsys.readouterr().err
    assert mt.command("--scores-only", "--mode", "pairwise", "--baseline", "base") == 1
    assert f"{JUDGE}_pair.jsonl: no such file" in capsys.readouterr().err
