"""Judgment files: what is wrong with a line is told, what others paid for stays, scores take what is theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.evaluation.judgment_files import Kind, chosen, read_judgments, write_judgments
from plugin_common.errors import UserError
from tests.nid_plugin.evaluation.bench_files import read_lines, write_lines


def rated(question: int = 81, turn: int = 1, score: Any = 5, model: str = "m", **more: Any) -> dict[str, Any]:
    own = {"question_id": question, "model": model, "turn": turn, "score": score, "judge": ["j", "single-v1"]}
    return own | {"user_prompt": f"{question} {turn}"} | more


def compared(question: int = 81, **more: Any) -> dict[str, Any]:
    own = {"question_id": question, "turn": 1, "model_1": "m", "model_2": "base", "judge": ["j", "pair-v2"]}
    winners = {"g1_winner": "model_1", "g2_winner": "tie", "g1_user_prompt": "a", "g2_user_prompt": "b"}
    return own | winners | more


def battle(uid: str = "u", baseline: str = "base", prompt: str = "q", **more: Any) -> dict[str, Any]:
    game = {"score": "A>B", "prompt": [{"role": "user", "content": prompt}]}
    return {"uid": uid, "category": "c", "judge": "j", "model": "m", "baseline": baseline, "games": [game] * 2} | more


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("single", rated(score=None), '"score" is None, expected a number'),
        ("single", rated(score="7"), "\"score\" is '7', expected a number"),
        ("single", rated(score=float("nan")), '"score" is nan, expected a number'),
        ("single", rated(score=True), '"score" is True, expected a number'),
        ("single", rated(turn=3), '"turn" is 3, expected 1 or 2'),
        ("single", rated(question_id=[1]), '"question_id" is [1], expected a number or text'),
        ("single", rated(model=None), '"model" is None, expected a model\'s name'),
        ("single", {"question_id": 81}, "lacks turn, model, score"),
        ("pairwise", compared(g1_winner="A"), "\"g1_winner\" is 'A', expected one of model_1, model_2, tie, error"),
        ("pairwise", rated(), "lacks model_1, model_2, g1_winner, g2_winner"),
        ("arena", battle(baseline=None), '"baseline" is None, expected a model\'s name'),  # type: ignore[arg-type]
        ("arena", battle(games={}), '"games" is {}, expected a list'),
    ],
)
def test_lines_that_are_no_judgments(kind: Kind, record: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"single": rated(), "pairwise": compared(), "arena": battle()}[kind]
    path = write_lines(tmp_path / "j.jsonl", [good, record])
    with pytest.raises(UserError) as raised:
        read_judgments(path, kind)
    assert f"{path}, line 2: no judgment of this kind: " in str(raised.value) and message in str(raised.value)
    assert read_judgments(write_lines(tmp_path / "good.jsonl", [good]), kind) == [good]


def test_all_bad_lines_at_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "j.jsonl", [rated(turn=0)] * 8)
    with pytest.raises(UserError) as raised:
        read_judgments(path, "single")
    assert str(raised.value).count("no judgment of this kind") == 5 and "… and 3 more lines" in str(raised.value)


def test_scores_are_of_one_judge_and_the_last_word_counts() -> None:
    records = [
        rated(score=1),
        rated(score=9),
        rated(82, score=2, judge=["other", "single-v1"]),
        rated(99),
        rated(model="another"),
        rated(82, 2, score=3, judge=["o/j", "single-v1"]),
    ]
    found, left_out = chosen(records, "single", judge="j", models=["m"], questions=[81, 82], baseline=None)
    assert [record["score"] for record in found] == [9]
    assert left_out == {"of other judges": 2, "of other questions": 1, "repeated (the last counts)": 1}
    found, _ = chosen(records, "single", judge="o_j", models=["m"], questions=[81, 82], baseline=None)
    assert [record["score"] for record in found] == [3]  # as its file's name writes it
    nameless = [{name: value for name, value in rated().items() if name != "judge"}]
    assert chosen(nameless, "single", judge="j", models=["m"], questions=[81], baseline=None)[0] == nameless


def test_other_baselines_are_left_out() -> None:
    records = [battle("u0"), battle("u1", "older")]
    found, left_out = chosen(records, "arena", judge="j", models=["m"], questions=["u0", "u1"], baseline="base")
    assert (found, left_out) == (records[:1], {"against other baselines": 1})
    assert chosen(records, "arena", judge="j", models=["m"], questions=["u0", "u1"], baseline=None)[0] == records
    pairs = [compared(), compared(82, model_2="older")]
    assert chosen(pairs, "pairwise", judge="j", models=["m"], questions=[81, 82], baseline="base")[0] == pairs[:1]


def test_what_is_not_judged_anew_stays(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "j.jsonl",
        [
            rated(81, score=1),  # judged anew
            rated(82, score=2),  # asked in the same words, and not judged anew
            rated(83, score=3, user_prompt="the older answer"),
            rated(84, score=4),  # a question that is not in the file of questions now
            rated(81, score=5, model="another"),
            rated(81, score=6, judge=["other", "single-v1"]),
        ],
    )
    asked = {("m", question, 1): (f"{question} 1",) for question in (81, 82, 83)}
    assert write_judgments(path, [rated(81, score=10)], asked, "single", "j") == (1, 4)
    assert [record["score"] for record in read_lines(path)] == [2, 4, 5, 6, 10]


@pytest.mark.parametrize(
    ("kind", "same", "other", "key", "prompts"),
    [
        ("pairwise", compared(), compared(g2_user_prompt="c"), ("m", "base", 81, 1), ("a", "b")),
        ("arena", battle(), battle(prompt="older"), ("m", "u"), ("q", "q")),
        ("arena", battle(), battle(games=[None, None]), ("m", "u"), ("q", "q")),
    ],
)
def test_the_words_of_games_are_compared(
    kind: Kind, same: Any, other: Any, key: tuple[Any, ...], prompts: tuple[str, ...], tmp_path: Path
) -> None:
    for record, kept in ((same, 1), (other, 0)):
        path = write_lines(tmp_path / "j.jsonl", [record])
        assert write_judgments(path, [], {key: prompts}, kind, "j") == (0, kept)
        assert read_lines(path) == [record] * kept


def test_a_line_stays_as_it_was(tmp_path: Path) -> None:
    text = json.dumps(rated(99, judgment="日本 \u2028"), ensure_ascii=False) + "\n"
    (tmp_path / "j.jsonl").write_text(text, encoding="utf-8")
    write_judgments(tmp_path / "j.jsonl", [], {}, "single", "j")
    assert (tmp_path / "j.jsonl").read_text(encoding="utf-8") == text
