"""Scores as tables: best first, names that cannot break them, gaps shown."""

from typing import Any

from nid_plugin.evaluation.score_tables import as_markdown

BOOTSTRAP = {"rounds": 1000, "seed": 3}


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")][1:]


def test_ratings_best_first() -> None:
    def one(average: float | None) -> dict[str, Any]:
        interval = None if average is None else [average - 1, average + 1]
        counts = {"n": 2, "unparsed": 1, "missing": 0}
        return {"turn_1": average, "turn_2": None, "average": average, "interval": interval, **counts}

    report = {"bench": "mt-bench", "mode": "single", "judge": "j", "bootstrap": BOOTSTRAP}
    text = as_markdown(report | {"scores": {"none": one(None), "low": one(2.0), "hi|gh": one(8.126)}})
    assert rows(text) == [
        "| hi\\|gh | 8.13 | – | 8.13 | 7.13 to 9.13 | 2 | 1 | 0 |",
        "| low | 2.00 | – | 2.00 | 1.00 to 3.00 | 2 | 1 | 0 |",
        "| none | – | – | – | – | 2 | 1 | 0 |",
    ]
    assert "1,000 rounds, seed 3" in text


def test_comparisons() -> None:
    counts = {"wins": 3, "ties": 1, "losses": 0, "disagreements": 1, "n": 4, "unparsed": 0, "missing": 2}
    scores = {"m": {**counts, "win_rate": 0.75, "adjusted_win_rate": 0.875, "interval": [0.5, 1.0]}}
    report = {"bench": "mt-bench", "mode": "pairwise", "judge": "j", "baseline": "b", "bootstrap": BOOTSTRAP}
    text = as_markdown(report | {"scores": scores})
    assert rows(text) == ["| m | 3 | 1 | 0 | 75.0 | 87.5 | 50.0 to 100.0 | 4 | 0 | 2 |"]
    assert "Against b." in text


def test_categories_and_style() -> None:
    model = {"score": 61.25, "interval": [50.0, 70.04], "n": 5, "unparsed": 0, "missing": 0}
    table = {"baseline": "b", "models": {"m": model}, "style": {"length": 0.5, "headings": -0.25}}
    report = {"bench": "arena-hard", "mode": "pairwise", "judge": "j", "bootstrap": BOOTSTRAP}
    text = as_markdown(report | {"scores": {"c": table}, "style_control": "published", "style_tokens": "words"})
    assert "## c" in text and "Against b (50.0)." in text
    assert rows(text) == ["| m | 61.2 | 50.0 to 70.0 | 5 | 0 | 0 |"]
    assert "Style coefficients: length +0.500, headings -0.250" in text and "at the mean difference in style" in text
