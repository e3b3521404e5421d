"""``nid judge`` with a judge on loopback: what is asked, what is written, what is scored."""

import pytest

from tests.nid_plugin.evaluation.bench_files import JUDGE, Bench, judge_by_length, read_lines, shown, write_lines
from tests.toy_teacher import Asked, Reply, answer, error, toy_teacher

Capture = pytest.CaptureFixture[str]


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


def test_what_cannot_be_read_is_counted(mt: Bench, capsys: Capture) -> None:
    def reply(asked: Asked) -> Reply:
        if "writing" in asked.text:
            return answer("I would rather not.")
        if "roleplay" in asked.text and "town" not in asked.text:
            return error(400, "too long")
        return answer("[[5]]")

    with toy_teacher(reply) as teacher:
        for _ in range(2):  # the second time nothing is asked, and it still is not all judged
            assert mt.command("--models", "loud", teacher=teacher) == 1
            said = capsys.readouterr().err
            assert "1 judgments are missing, for the endpoint refused them for good (1 http 400;" in said
            assert "--retry-failed asks again" in said and "the scores are of what is judged so far" in said
        assert len(teacher.asked) == 16
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


def test_a_judge_without_a_system_role(mt: Bench) -> None:
    mt.keep_questions(1)
    with toy_teacher(lambda asked: answer("[[7]]")) as teacher:
        assert mt.command("--models", "loud", "--no-system-role", teacher=teacher) == 0
    assert all([message["role"] for message in asked.body["messages"]] == ["user"] for asked in teacher.asked)
    assert all(asked.text.startswith("You judge (single).\n\nQ Tell of a river") for asked in teacher.asked)
    record = read_lines(mt.out / f"{JUDGE}_single.jsonl")[0]
    assert record["user_prompt"].startswith("You judge (single).\n\nQ ")


def test_judgments_of_other_judges_and_questions_stay_and_do_not_count(mt: Bench, capsys: Capture) -> None:
    mt.keep_questions(2)
    path = mt.out / f"{JUDGE}_single.jsonl"
    own = {"question_id": 81, "model": "loud", "judge": [JUDGE, "single-v1"], "user_prompt": "?", "judgment": "",
           "score": 1, "turn": 1, "tstamp": 1.0}  # fmt: skip
    kept = [own | {"judge": ["another", "single-v1"]}, own | {"question_id": 999}]
    write_lines(path, [*kept, own])  # of an answer that is no more
    with toy_teacher(judge_by_length) as teacher:
        assert mt.command("--models", "loud", teacher=teacher) == 0
    assert f"{path}: 4 judgments, and 2 earlier ones kept" in capsys.readouterr().err
    assert read_lines(path)[:2] == kept and len(read_lines(path)) == 6
    assert mt.command("--scores-only") == 0
    assert "Judgments left out: 1 of other judges, 1 of other questions." in capsys.readouterr().out
    scores = mt.scores("single")
    assert scores["scores"]["loud"]["average"] == 9
    assert scores["left_out"] == {"of other judges": 1, "of other questions": 1}


def test_an_unreadable_judgment_file_is_told_before_anything_is_asked(mt: Bench, capsys: Capture) -> None:
    path = write_lines(mt.out / f"{JUDGE}_single.jsonl", [])
    path.write_text('{"question_id": 81, "mod', encoding="utf-8")  # its writer was killed
    with toy_teacher(judge_by_length) as teacher:
        assert mt.command(teacher=teacher) == 1
    assert not teacher.asked and "line 1: not valid JSON" in capsys.readouterr().err


def test_a_judgment_of_half_a_character_is_mended(mt: Bench, capsys: Capture) -> None:
    mt.keep_questions(2)
    with toy_teacher(lambda asked: answer("\ud83d [[7]]")) as teacher:
        for _ in range(2):
            assert mt.command("--models", "loud", teacher=teacher) == 0
            assert "judgments with half characters, replaced by U+FFFD: 4" in capsys.readouterr().err
    assert mt.command("--scores-only") == 0
    assert read_lines(mt.out / f"{JUDGE}_single.jsonl")[0]["judgment"] == "\ufffd [[7]]"


def test_scores_alone_of_one_baseline(arena: Bench) -> None:
    with toy_teacher(judge_by_length) as teacher:
        assert arena.command("--models", "loud", teacher=teacher) == 0
    assert arena.command("--scores-only", "--baseline", "base") == 0
    report = arena.scores("pair")
    assert report["left_out"] == {"against other baselines": 3}
    assert report["scores"]["hard_prompt"]["models"]["loud"]["n"] == 3
    assert report["scores"]["creative_writing"]["models"]["loud"]["missing"] == 3


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


def test_a_judgment_file_of_another_mode_is_refused(mt: Bench, capsys: Capture) -> None:
    write_lines(mt.out / f"{JUDGE}_single.jsonl", [{"question_id": 81, "model": "loud"}])
    assert mt.command("--scores-only") == 1
    assert "line 1: no judgment of this kind: lacks turn, score" in capsys.readouterr().err
    assert mt.command("--scores-only", "--mode", "pairwise", "--baseline", "base") == 1
    assert f"{JUDGE}_pair.jsonl: no such file" in capsys.readouterr().err
