"""Curves over a training's updates: one panel for each metric, one colour for each run. Takes plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nat_plugin.figures.canvas import new_figure
from nat_plugin.figures.training_log import INTERVAL, TRAINING, Series, TrainingLog

DEFAULT_METRICS = ("loss", "ctc", "distill", "bleu", "lr")
AXIS_LABELS = {
    "loss": "loss (base 2)",
    "nll_loss": "negative log-likelihood (base 2)",
    "ctc": "CTC loss (bits)",
    "distill": "distillation: mean distance",
    "bleu": "BLEU",
    "lr": "learning rate",
    "ppl": "perplexity",
    "gnorm": "norm of the gradient",
    "wps": "target tokens a second",
}
_MOST_MARKERS = 40


@dataclass(frozen=True)
class Curve:
    """One line of a panel: which run it is of, whether it was measured on validation data, and its points."""

    run: str
    points: Series
    validation: bool
    name: str


def curves_of(log: TrainingLog, metric: str, run: str) -> list[Curve]:
    """A metric's curves: training as finely as it was logged, and every validation subset that has it."""
    fine, coarse = log.series(INTERVAL, metric), log.series(TRAINING, metric)
    training = fine if len(fine.updates) > 1 else coarse
    curves = [Curve(run, training, False, "training")] if training.updates else []
    for subset in log.validations():
        points = log.series(subset, metric)
        if points.updates:
            name = "validation" if subset == "valid" else f"validation ({subset})"
            curves.append(Curve(run, points, True, name))
    return curves


def draw_curves(panels: Mapping[str, Sequence[Curve]]) -> Any:
    """A figure with a panel for each metric.

    Training is a thin line, validation a thick one with a mark at each measurement; a colour stands for a run. With one
    run the legend names training and validation, with several the runs, too.

    Args:
        panels: metric → its curves; at least one panel.
    """
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(6.4 if columns == 1 else 5.0 * columns, 3.6 * rows + 0.4)
    runs = list(dict.fromkeys(curve.run for curves in panels.values() for curve in curves))
    colors = {run: f"C{number % 10}" for number, run in enumerate(runs)}
    handles: dict[str, Any] = {}
    grid = figure.subplots(rows, columns, squeeze=False, sharex="all")
    for axes, (metric, curves) in zip(grid.flat, panels.items(), strict=False):
        for curve in curves:
            line = _draw(axes, curve, colors[curve.run])
            label = curve.name if len(runs) == 1 else f"{curve.run}: {curve.name}"
            handles.setdefault(label, line)
        axes.set_xlabel("updates")
        axes.set_ylabel(AXIS_LABELS.get(metric, metric))
        axes.tick_params(labelbottom=True)
        axes.grid(True, color="0.9")
        axes.set_axisbelow(True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), frameon=False
        )
    return figure


def _draw(axes: Any, curve: Curve, color: str) -> Any:
    updates, values = curve.points
    if not curve.validation:
        marker = "." if len(updates) == 1 else None
        return axes.plot(updates, values, color=color, linewidth=1.0, alpha=0.55, marker=marker)[0]
    every = max(1, len(updates) // _MOST_MARKERS)
    return axes.plot(updates, values, color=color, linewidth=1.8, marker="o", markersize=4, markevery=every)[0]
