"""Scores from judgments, with 95 % intervals of a bootstrap over questions; what could not be read is counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nid_plugin.evaluation.bradley_terry import (
    Battles,
    percentile_interval,
    scaled,
    style_differences,
    win_rates,
)
from nid_plugin.evaluation.judgments import Record
from nid_plugin.evaluation.questions import Question
from nid_plugin.evaluation.verdicts import LABELS, UNRATED
from plugin_common.errors import UserError

Table = dict[str, Any]

STYLE_NAMES = ("length", "headings", "list items", "bold")
ALL = "all"


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: rounds, and the seed of their random numbers."""

    rounds: int = 1000
    seed: int = 1


def single_scores(
    records: Sequence[Record], questions: Sequence[Question], models: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Table]:
    """MT-Bench, answers rated 1 to 10: means by turn, over both, and by category.

    Returns:
        model → ``turn_1``, ``turn_2``, ``average`` (None without a rating), ``interval`` of it, ``categories``,
        ``n`` ratings, ``unparsed`` judgments, ``missing`` ones.
    """
    scores = {}
    for model in models:
        own = _of_questions([record for record in records if record["model"] == model], questions, "question_id")
        rated = [record for record in own if record["score"] != UNRATED]
        category = {question.id: question.category for question in questions}
        ratings = [float(record["score"]) for record in rated]
        scores[model] = {
            "turn_1": _mean(record["score"] for record in rated if record["turn"] == 1),
            "turn_2": _mean(record["score"] for record in rated if record["turn"] == 2),
            "average": _mean(record["score"] for record in rated),
            "interval": _mean_interval([record["question_id"] for record in rated], ratings, bootstrap),
            "categories": {
                name: _mean(record["score"] for record in rated if category[record["question_id"]] == name)
                for name in dict.fromkeys(category.values())
            },
            "n": len(rated),
            "unparsed": len(own) - len(rated),
            "missing": 2 * len(questions) - len(own),
        }
    return scores


def pair_scores(
    records: Sequence[Record], questions: Sequence[Question], models: Sequence[str], baseline: str, bootstrap: Bootstrap
) -> dict[str, Table]:
    """MT-Bench, answers compared with a baseline's in both orders; a tie where the orders disagree.

    Returns:
        model → ``wins``, ``ties``, ``losses``, ``disagreements`` (ties of that kind), ``win_rate``,
        ``adjusted_win_rate`` (a tie is half a win), its ``interval``, ``n``, ``unparsed``, ``missing``.
    """
    scores = {}
    for model in models:
        both = [record for record in records if (record["model_1"], record["model_2"]) == (model, baseline)]
        own = _of_questions(both, questions, "question_id")
        read = [record for record in own if "error" not in (record["g1_winner"], record["g2_winner"])]
        points = [_points(record) for record in read]
        wins, losses = points.count(1.0), points.count(0.0)
        scores[model] = {
            "wins": wins,
            "ties": len(points) - wins - losses,
            "losses": losses,
            "disagreements": sum(record["g1_winner"] != record["g2_winner"] for record in read),
            "win_rate": wins / len(points) if points else None,
            "adjusted_win_rate": _mean(points),
            "interval": _mean_interval([record["question_id"] for record in read], points, bootstrap),
            "n": len(points),
            "unparsed": len(own) - len(read),
            "missing": 2 * len(questions) - len(own),
        }
    return scores


def _points(record: Record) -> float:
    if record["g1_winner"] != record["g2_winner"]:
        return 0.5
    return {"model_1": 1.0, "model_2": 0.0}.get(record["g1_winner"], 0.5)


@dataclass(frozen=True)
class StyleControl:
    """How to control for style.

    Attributes:
        counts: tokens, headings, list items and bold stretches of a model's answer to a question.
        centred: see :func:`nid_plugin.evaluation.bradley_terry.scaled`.
    """

    counts: Callable[[str, Any], tuple[float, float, float, float]]
    centred: bool = False


def arena_scores(
    records: Mapping[str, Sequence[Record]],
    questions: Sequence[Question],
    bootstrap: Bootstrap,
    style: StyleControl | None = None,
) -> dict[str, Table]:
    """Arena-Hard: the Bradley–Terry chance against the baseline, by category; strong verdicts count three times.

    A question of which one game cannot be read counts as a whole as not read, as in arena-hard-auto.

    Args:
        records: model → its judgments.
        questions: that were to be judged.
        bootstrap: of the intervals.
        style: None for no style control.

    Returns:
        category → ``baseline``, ``models``: model → ``score`` (percent; None without games), ``interval``, ``n``
        questions, ``unparsed``, ``missing``; and ``style``: coefficient by name, where style is controlled. ``all``
        joins the categories where there are several with one baseline.
    """
    categories = list(dict.fromkeys(question.category for question in questions))
    tables = {}
    for category in categories:
        own = [question for question in questions if question.category == category]
        tables[category] = _arena_table(records, own, bootstrap, style)
    baselines = {table["baseline"] for table in tables.values()}
    if len(categories) > 1 and len(baselines) == 1:
        tables[ALL] = _arena_table(records, questions, bootstrap, style)
    return tables


def _arena_table(
    records: Mapping[str, Sequence[Record]],
    questions: Sequence[Question],
    bootstrap: Bootstrap,
    style: StyleControl | None,
) -> Table:
    names = list(records)
    own = {model: _of_questions(records[model], questions, "uid") for model in names}
    baselines = sorted({record["baseline"] for some in own.values() for record in some})
    if len(baselines) > 1:
        category = questions[0].category
        raise UserError(
            f"the judgments of category {category} compare with several baselines ({', '.join(baselines)}); judge all "
            "models against one"
        )
    read = {model: [record for record in own[model] if _labels(record) is not None] for model in names}
    battles = _battles(read, questions, style)
    rates = win_rates(battles, len(names), rounds=bootstrap.rounds, seed=bootstrap.seed)
    table: Table = {"baseline": baselines[0] if baselines else None, "models": {}}
    for number, model in enumerate(names):
        played = bool(read[model])
        table["models"][model] = {
            "score": 100 * float(rates.rate[number]) if played else None,
            "interval": [100 * float(rates.low[number]), 100 * float(rates.high[number])] if played else None,
            "n": len(read[model]),
            "unparsed": len(own[model]) - len(read[model]),
            "missing": len(questions) - len(own[model]),
        }
    if style is not None:
        table["style"] = dict(zip(STYLE_NAMES, map(float, rates.coefficients), strict=True))
    return table


def _labels(record: Record) -> tuple[str, str] | None:
    """The labels of both games, None where one is missing or none that is known."""
    games = record["games"]
    if not isinstance(games, list) or len(games) != 2:
        return None
    first, second = (game.get("score") if isinstance(game, dict) else None for game in games)
    return (first, second) if first in LABELS and second in LABELS else None


def _battles(
    read: Mapping[str, Sequence[Record]], questions: Sequence[Question], style: StyleControl | None
) -> Battles:
    places = {question.id: place for place, question in enumerate(questions)}
    rows: list[tuple[int, int, float, int]] = []
    compared: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
    for number, (model, records) in enumerate(read.items()):
        for record in records:
            labels = _labels(record)
            assert labels is not None  # of records that were read
            as_b, as_a = (LABELS[one] for one in labels)  # the baseline is assistant A in the first game
            place = places[record["uid"]]
            rows += [(place, number, 1 - as_b[0], as_b[1]), (place, number, as_a[0], as_a[1])]
            if style is not None:
                counts = style.counts(model, record["uid"]), style.counts(record["baseline"], record["uid"])
                compared += [counts, counts]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4)
    weight = columns[:, 3]
    differences = np.zeros((len(rows), 0))
    if style is not None:
        own, other = (np.array([pair[side] for pair in compared], np.float64).reshape(-1, 4) for side in (0, 1))
        differences = scaled(style_differences(own, other), weight, centred=style.centred)
    played = np.unique(columns[:, 0], return_inverse=True)[1]  # questions without a game are not drawn
    return Battles(played.astype(np.int64), columns[:, 1].astype(np.int64), columns[:, 2], weight, differences)


def _of_questions(records: Sequence[Record], questions: Sequence[Question], name: str) -> list[Record]:
    """Judgments of these questions; of repeated ones the last."""
    wanted = {question.id for question in questions}
    last = {(record[name], record.get("turn")): record for record in records if record[name] in wanted}
    return list(last.values())


def _mean(values: Any) -> float | None:
    listed = [float(value) for value in values]
    return sum(listed) / len(listed) if listed else None


def _mean_interval(question: Sequence[int], values: Sequence[float], bootstrap: Bootstrap) -> list[float] | None:
    """Of a mean over values that belong to questions: questions are drawn with all their values."""
    if not values:
        return None
    place = np.unique(np.array(question), return_inverse=True)[1]
    total, count = np.bincount(place, np.array(values)), np.bincount(place)
    rng = np.random.default_rng(bootstrap.seed)
    chosen = rng.integers(0, len(total), (bootstrap.rounds, len(total)))
    drawn = total[chosen].sum(axis=1) / count[chosen].sum(axis=1)
    low, high = percentile_interval(drawn[:, None])
    return [float(low[0]), float(high[0])]
