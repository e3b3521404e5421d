"""The figures of a reproduction, each from the runs' own files; one that lacks its files is left out."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from examples.ctc_nat_small_scale.grid import BASELINE
from examples.ctc_nat_small_scale.runs_read import Runs, main_evaluation
from nat_plugin.figures.canvas import new_figure, save
from nat_plugin.figures.training_curves import Curve, draw_curves
from nat_plugin.figures.training_log import Series, TrainingLog, read_training_log
from plugin_common.errors import UserError

CURVES = {
    "main": (BASELINE, "random", "pmlm", "duplication", "distill", "kd", "random-kd"),
    "variants": ("pmlm", "ratio3", "ratio2.5", "right", "left", "blank-mask", "glancing"),
}
"""Figure → rows: few enough in each for colours that can be told apart."""
_BLEU_PANEL, _LOSS_PANEL = "validation BLEU", "validation CTC loss (bits a target token)"
_MASKED_LOSS_PANEL, _FOUND_PANEL = "masked-LM loss (nats a masked token)", "masked tokens found (share)"


def draw_bleu(runs: Runs, path: Path) -> None:
    """BLEU by row, a panel a direction: a point a seed, a bar at their mean, a dashed line at the baseline's.

    Raises:
        UserError: no evaluation at all, or a file that cannot be written.
    """
    directions = [one for one in runs.directions() if any(runs.seeds(one, row) for row in runs.rows(one))]
    if not directions:
        raise UserError("there is no evaluation of any row")
    sizes = [len(runs.rows(direction)) for direction in directions]
    figure = new_figure(7.2, 0.24 * sum(sizes) + 0.85 * len(sizes))
    panels = figure.subplots(len(sizes), 1, squeeze=False, sharex="all", gridspec_kw={"height_ratios": sizes})
    for axes, direction in zip(panels.flat, directions, strict=True):
        _draw_direction(axes, runs, direction)
    panels.flat[-1].set_xlabel("BLEU (sacreBLEU); a point a seed, bars: means, dashed: the baseline")
    save(figure, str(path))


def _draw_direction(axes: Any, runs: Runs, direction: str) -> None:
    rows = runs.rows(direction)
    for place, row in enumerate(rows):
        values = [one.bleu for one in runs.seeds(direction, row).values()]
        color = "C1" if row == BASELINE else "C0"
        axes.plot(values, [place] * len(values), "o", color=color, alpha=0.6, markersize=5, markeredgewidth=0)
        if values:
            axes.plot([fmean(values)] * 2, [place - 0.32, place + 0.32], color=color, linewidth=2)
            if row == BASELINE:
                axes.axvline(fmean(values), color=color, linestyle="--", linewidth=1, zorder=0)
        else:
            axes.annotate(
                "missing", (0.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color="0.5"
            )
    axes.set_yticks(range(len(rows)), [f"{row} ({main_evaluation(row)})" if row == BASELINE else row for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(direction, fontsize=10)
    axes.grid(True, axis="x", color="0.9")
    axes.set_axisbelow(True)


def draw_training(runs: Runs, direction: str, rows: Sequence[str], path: Path) -> list[str]:
    """Validation BLEU and loss against updates, first seed of each row; returns which logs could not be used and why.

    The baseline's loss is cross-entropy with label smoothing, not to be compared, and is left out.

    Raises:
        UserError: no log of these rows has a validation, or a file that cannot be written.
    """
    panels: dict[str, list[Curve]] = {_BLEU_PANEL: [], _LOSS_PANEL: []}
    skipped = []
    for row in rows:
        evaluation = next(iter(runs.seeds(direction, row).values()), None)
        if evaluation is None:
            continue
        try:
            log = read_training_log(runs.work / evaluation.log)
        except UserError as error:
            skipped.append(str(error))
            continue
        panels[_BLEU_PANEL] += _validation(log, "bleu", row)
        if row != BASELINE:
            panels[_LOSS_PANEL] += _validation(log, _ctc(log), row)
    shown = {name: curves for name, curves in panels.items() if curves}
    if not shown:
        raise UserError(f"no log of {', '.join(rows)} in {direction} has a validation")
    save(draw_curves(shown), str(path))
    return skipped


def _ctc(log: TrainingLog) -> str:
    """Under which name the CTC loss alone was logged: with distillation ``loss`` holds more."""
    return "ctc" if log.series("valid", "ctc").updates else "loss"


def _validation(log: TrainingLog, metric: str, row: str) -> list[Curve]:
    points = log.series("valid", metric)
    return [Curve(row, points, True, "validation")] if points.updates else []


def read_pretraining(path: Path) -> list[dict[str, Any]]:
    """The lines of the pretraining's loss curve; a last one that was cut off is left out.

    Raises:
        UserError: no such file, or a line that is none of its.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); pretrain.py writes it") from error
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            int(record["update"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}, line {number}: expected a JSON object with update; make it again") from error
        records.append(record)
    return records


def draw_pretraining(path: Path, output: Path) -> None:
    """Loss and accuracy of masked LM against updates, of all text and by language.

    Raises:
        UserError: no curve, or one without numbers.
    """
    records = read_pretraining(path)
    loss = [
        Curve("all", _series(records, name), validation, title)
        for name, validation, title in (("loss", False, "training"), ("valid_loss", True, "validation"))
    ]
    found = [Curve("all", _series(records, "valid_accuracy"), True, "validation")]
    languages = dict.fromkeys(name for one in records for name in one.get("by_language", {}))
    for language in languages:
        parts = [{"update": one["update"], **one.get("by_language", {}).get(language, {})} for one in records]
        loss.append(Curve(language, _series(parts, "loss"), True, "validation"))
        found.append(Curve(language, _series(parts, "accuracy"), True, "validation"))
    panels = {_MASKED_LOSS_PANEL: loss, _FOUND_PANEL: found}
    drawn = {name: [curve for curve in curves if curve.points.updates] for name, curves in panels.items()}
    shown = {name: curves for name, curves in drawn.items() if curves}
    if not shown:
        raise UserError(f"{path}: holds no loss; pretrain.py writes it")
    save(draw_curves(shown), str(output))


def _series(records: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Finite values by rising update; of several for one update the last counts."""
    found = {int(one["update"]): float(one[name]) for one in records if isinstance(one.get(name), int | float)}
    kept = sorted((update, value) for update, value in found.items() if math.isfinite(value))
    return Series([update for update, _ in kept], [value for _, value in kept])


def read_speed(path: Path) -> dict[str, Any]:
    """The decoding benchmark's report; its ``trained`` holds the systems that were measured, and at least one.

    Raises:
        UserError: no such file, or not of a run with ``--trained``.
    """
    again = "make it: scripts/benchmarks/decoding.py --trained SPEC --json FILE"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {again}") from error
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); {again}") from error
    needed = {"machine", "settings", "trained"}
    if not isinstance(report, dict) or not needed <= set(report):
        raise UserError(f"{path}: expected an object with {', '.join(sorted(needed))}; {again}")
    report["trained"] = [one for one in report["trained"] if "bleu" in one]
    if not report["trained"]:
        raise UserError(f"{path}: holds no trained model; {again}")
    return report


def draw_speed(report: Mapping[str, Any], path: Path) -> None:
    """Speed (logarithmic) against BLEU of the trained models, by the benchmark's own drawing."""
    from scripts.benchmarks.decoding_plot import draw

    draw({**report, "settings": {**report["settings"], "sizes_measured": {}}}, str(path))


def draw_all(runs: Runs, folder: Path, speed: Mapping[str, Any] | None) -> tuple[dict[str, Path], list[str]]:
    """Draw all that can be drawn: ``(title → file, what was left out and why)``."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Path] = {}
    left_out: list[str] = []

    def attempt(title: str, name: str, draw: Any) -> None:
        path = folder / name
        try:
            left_out.extend(f"{title}: {reason}" for reason in draw(path) or [])
            drawn[title] = path
        except UserError as error:
            left_out.append(f"{title}: {error}")
            path.unlink(missing_ok=True)  # of an earlier run, which had other files

    attempt("BLEU by row", "bleu.png", lambda path: draw_bleu(runs, path))
    for direction in runs.directions():
        seen: set[str] = set()
        for name, rows in CURVES.items():
            there = {row for row in rows if runs.seeds(direction, row)}
            if there - seen:
                seen |= there
                title = f"Training, {direction}, {name} rows: validation, first seed of each row"
                attempt(title, f"training-{direction}-{name}.png",
                        lambda path, d=direction, r=rows: draw_training(runs, d, r, path))  # fmt: skip
    attempt("Pretraining", "pretraining.png", lambda path: draw_pretraining(runs.work / "pmlm" / "loss.jsonl", path))
    if speed is not None:
        attempt("Speed against BLEU", "speed.png", lambda path: draw_speed(speed, path))
    for path in sorted(folder.glob("alignment*.png")):  # nat align-plot draws them
        row = path.stem.removeprefix("alignment").removeprefix("-")
        drawn[f"One sentence: what the model says at each position{f', {row}' if row else ''}"] = path
    return drawn, left_out
