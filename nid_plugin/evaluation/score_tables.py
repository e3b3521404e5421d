"""Scores as Markdown tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from nid_plugin.markdown import plain, table

_NOTE = "Intervals: 95 %, bootstrap over questions ({rounds:,} rounds, seed {seed})."


def as_markdown(report: Mapping[str, Any]) -> str:
    """The tables of a report of ``nid judge``, best model first."""
    lines = [f"# {report['bench']}, {report['mode']}, judged by {plain(report['judge'])}", ""]
    if report["bench"] == "arena-hard":
        for category, found in report["scores"].items():
            lines += [f"## {plain(category)}", "", *_arena(found), ""]
    elif report["mode"] == "single":
        lines += [_single(report["scores"]), ""]
    else:
        lines += [f"Against {plain(report['baseline'])}.", "", _pairs(report["scores"]), ""]
    lines += [_NOTE.format(**report["bootstrap"]), *_notes(report)]
    return "\n".join(lines) + "\n"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    yield "n: what was read; unparsed: judgments without a verdict that can be read; missing: not judged."
    if report.get("left_out"):
        yield f"Judgments left out: {', '.join(f'{count:,} {why}' for why, count in report['left_out'].items())}."
    if report.get("style_control"):
        where = "at equal style" if report["style_control"] == "equal" else "at the mean difference in style"
        yield f"Style is controlled: scores {where}; length and Markdown counted in {plain(report['style_tokens'])}."


def _single(scores: Mapping[str, Any]) -> str:
    head = ["model", "turn 1", "turn 2", "average", "interval", "n", "unparsed", "missing"]
    ordered = sorted(scores.items(), key=lambda item: -(item[1]["average"] or 0))
    return table(
        head,
        [
            [
                plain(model),
                *(_number(s[name], 2) for name in ("turn_1", "turn_2", "average")),
                _interval(s, 2),
                *_counts(s),
            ]
            for model, s in ordered
        ],
    )


def _pairs(scores: Mapping[str, Any]) -> str:
    head = [
        "model",
        "wins",
        "ties",
        "losses",
        "win rate %",
        "with ties halved %",
        "interval",
        "n",
        "unparsed",
        "missing",
    ]
    rows = []
    for model, s in sorted(scores.items(), key=lambda item: -(item[1]["adjusted_win_rate"] or 0)):
        rates = [_number(None if s[name] is None else 100 * s[name], 1) for name in ("win_rate", "adjusted_win_rate")]
        rows.append([plain(model), s["wins"], s["ties"], s["losses"], *rates, _interval(s, 1, 100), *_counts(s)])
    return table(head, rows)


def _arena(found: Mapping[str, Any]) -> list[str]:
    head = ["model", "score %", "interval", "n", "unparsed", "missing"]
    ordered = sorted(found["models"].items(), key=lambda item: -(item[1]["score"] or 0))
    rows = [[plain(model), _number(s["score"], 1), _interval(s, 1), *_counts(s)] for model, s in ordered]
    lines = [f"Against {plain(found['baseline'] or 'nothing')} (50.0).", "", table(head, rows)]
    if "style" in found:
        lines += [
            "",
            "Style coefficients: " + ", ".join(f"{name} {value:+.3f}" for name, value in found["style"].items()),
        ]
    return lines


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(scores: Mapping[str, Any], digits: int, factor: float = 1) -> str:
    if scores["interval"] is None:
        return "–"
    low, high = (factor * end for end in scores["interval"])
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _counts(scores: Mapping[str, Any]) -> list[int]:
    return [scores["n"], scores["unparsed"], scores["missing"]]
