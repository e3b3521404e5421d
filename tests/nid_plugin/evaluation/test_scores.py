"""Scores from judgments written by hand, and from simulated judges."""

from typing import Any

import numpy as np
import pytest

from nid_plugin.evaluation.questions import Question
from nid_plugin.evaluation.scores import Bootstrap, StyleControl, arena_scores, pair_scores, single_scores
from plugin_common.errors import UserError

MT = [Question(81, "writing", ("a", "b")), Question(82, "math", ("c", "d"))]


def rated(question: int, turn: int, score: float, model: str = "m") -> dict[str, Any]:
    return {"question_id": question, "model": model, "turn": turn, "score": score}


def compared(question: int, turn: int, first: str, second: str) -> dict[str, Any]:
    both = {"g1_winner": first, "g2_winner": second}
    return {"question_id": question, "turn": turn, "model_1": "m", "model_2": "base", **both}


def battle(
    uid: str, first: str | None, second: str | None, category: str = "c", baseline: str = "base"
) -> dict[str, Any]:
    games = [{"score": one} for one in (first, second)]
    return {"uid": uid, "category": category, "model": "m", "baseline": baseline, "games": games}


def asked(number: int, category: str = "c") -> list[Question]:
    return [Question(f"u{n}", category, ("?",)) for n in range(number)]


def test_ratings_by_hand() -> None:
    records = [rated(81, 1, 8), rated(81, 2, 5), rated(82, 1, -1), rated(99, 1, 1), rated(81, 1, 3, "other")]
    found = single_scores(records, MT, ["m"], Bootstrap(50))["m"]
    assert (found["turn_1"], found["turn_2"], found["average"]) == (8, 5, 6.5)
    assert found["categories"] == {"writing": 6.5, "math": None}
    assert (found["n"], found["unparsed"], found["missing"]) == (2, 1, 1)
    assert found["interval"] == [6.5, 6.5]  # one question has all ratings
    nothing = single_scores([], MT, ["m"], Bootstrap(50))["m"]
    assert nothing["average"] is None and nothing["interval"] is None and nothing["missing"] == 4


def test_a_repeated_judgment_counts_once_the_last() -> None:
    found = single_scores([rated(81, 1, 2), rated(81, 1, 9)], MT, ["m"], Bootstrap(5))["m"]
    assert (found["average"], found["n"]) == (9, 1)


def test_comparisons_by_hand() -> None:
    records = [
        compared(81, 1, "model_1", "model_1"),
        compared(81, 2, "model_1", "model_2"),
        compared(82, 1, "tie", "tie"),
        compared(82, 2, "model_2", "error"),
    ]
    found = pair_scores(records, MT, ["m"], "base", Bootstrap(50))["m"]
    assert (found["wins"], found["ties"], found["losses"], found["disagreements"]) == (1, 2, 0, 1)
    assert found["win_rate"] == pytest.approx(1 / 3) and found["adjusted_win_rate"] == pytest.approx(2 / 3)
    assert (found["n"], found["unparsed"], found["missing"]) == (3, 1, 0)
    assert pair_scores(records, MT, ["m"], "nobody", Bootstrap(5))["m"]["missing"] == 4


def test_strong_verdicts_count_three_times_and_positions_are_swapped() -> None:
    # The baseline is A in the first game: B>>A is three points of three, A>B in the second one of one; A=B is a half.
    one = arena_scores({"m": [battle("u0", "B>>A", "B>A")]}, asked(1), Bootstrap(5))["c"]
    assert one["models"]["m"]["score"] == pytest.approx(75) and one["baseline"] == "base"
    other = arena_scores({"m": [battle("u0", "A>>B", "A=B")]}, asked(1), Bootstrap(5))["c"]
    assert other["models"]["m"]["score"] == pytest.approx(100 * 0.5 / 4)


def test_a_coin_scores_fifty() -> None:
    labels = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
    rng = np.random.default_rng(0)
    records = [battle(f"u{n}", *rng.choice(labels, 2)) for n in range(500)]
    found = arena_scores({"m": records}, asked(500), Bootstrap(300))["c"]["models"]["m"]
    low, high = found["interval"]
    assert low < 50 < high and 3 < high - low < 10
    assert abs(found["score"] - 50) < 4


def test_a_judge_that_always_prefers_the_first_scores_fifty() -> None:
    records = [battle(f"u{n}", "A>>B", "A>>B") for n in range(20)]
    found = arena_scores({"m": records}, asked(20), Bootstrap(20))["c"]["models"]["m"]
    assert found["score"] == 50 and found["interval"] == [50, 50]


def test_what_is_unread_or_missing_is_counted() -> None:
    records = [
        battle("u0", "A=B", None),
        battle("u1", "B>A", "A>B"),
        battle("u2", "B>A", "yes"),
        battle("u9", "B>A", "A>B"),
    ]
    records += [{**battle("u3", "", ""), "games": [None, {"score": "A=B"}]}, {**battle("u4", "", ""), "games": None}]
    found = arena_scores({"m": records}, asked(6), Bootstrap(5))["c"]["models"]["m"]
    assert found == {"score": 100, "interval": [100, 100], "n": 1, "unparsed": 4, "missing": 1}


def test_nothing_read_at_all() -> None:
    style = StyleControl(lambda model, uid: (1.0, 0.0, 0.0, 0.0))
    for control in (None, style):
        found = arena_scores({"m": [battle("u0", None, None)]}, asked(1), Bootstrap(5), control)["c"]["models"]["m"]
        assert found == {"score": None, "interval": None, "n": 0, "unparsed": 1, "missing": 0}


def test_categories_with_their_own_baselines() -> None:
    questions = [*asked(2, "x"), Question("v0", "y", ("?",))]
    records = [
        battle("u0", "B>A", "A>B", "x"),
        battle("u1", "A=B", "A=B", "x"),
        battle("v0", "A>B", "B>A", "y", "poet"),
    ]
    found = arena_scores({"m": records}, questions, Bootstrap(5))
    assert list(found) == ["x", "y"] and found["y"]["baseline"] == "poet"
    assert (found["x"]["models"]["m"]["score"], found["y"]["models"]["m"]["score"]) == (75, 0)
    joined = arena_scores({"m": [{**record, "baseline": "base"} for record in records]}, questions, Bootstrap(5))
    assert joined["all"]["models"]["m"]["score"] == 50
    with pytest.raises(UserError, match="several baselines"):
        arena_scores({"m": [*records[:1], {**records[1], "baseline": "poet"}]}, questions, Bootstrap(5))


def test_style_control_finds_what_length_is_worth() -> None:
    rng = np.random.default_rng(1)
    lengths = {f"u{n}": float(rng.integers(50, 800)) for n in range(400)}
    records = []
    for uid, length in lengths.items():
        logit = 3 * (length - 200) / (length + 200)  # the judge likes length and nothing else
        verdicts = ["B>A" if rng.random() < 1 / (1 + np.exp(-logit)) else "A>B" for _ in range(2)]
        records.append(battle(uid, verdicts[0], {"B>A": "A>B", "A>B": "B>A"}[verdicts[1]]))

    def counts(model: str, uid: str) -> tuple[float, float, float, float]:
        return (lengths[uid] if model == "m" else 200.0), 0.0, 0.0, 0.0

    questions = asked(400)
    raw = arena_scores({"m": records}, questions, Bootstrap(20))["c"]["models"]["m"]["score"]
    table = arena_scores({"m": records}, questions, Bootstrap(20), StyleControl(counts))["c"]
    assert raw > 65 and abs(table["models"]["m"]["score"] - 50) < 5
    assert table["style"]["length"] > 0.5 and table["style"]["headings"] == 0
