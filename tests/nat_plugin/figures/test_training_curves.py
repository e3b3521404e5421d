"""What is drawn, by matplotlib's own objects."""

from nat_plugin.figures.training_curves import Curve, curves_of, draw_curves
from nat_plugin.figures.training_log import Series, TrainingLog


def a_log(shift: float = 0.0) -> TrainingLog:
    log = TrainingLog()
    for updates in (10, 20, 30):
        log.add("train_inner", updates, {"loss": 9 - updates / 10 + shift, "lr": 0.1})
    log.add("train", 30, {"loss": 7.0 + shift})
    for updates in (15, 30):
        log.add("valid", updates, {"loss": 8 - updates / 10 + shift, "bleu": float(updates)})
    log.add("valid1", 30, {"loss": 1.0})
    return log


def test_curves_take_the_finest_training_and_every_validation():
    assert curves_of(a_log(), "loss", "run") == [
        Curve("run", Series([10, 20, 30], [8.0, 7.0, 6.0]), False, "training"),
        Curve("run", Series([15, 30], [6.5, 5.0]), True, "validation"),
        Curve("run", Series([30], [1.0]), True, "validation (valid1)"),
    ]
    coarse = a_log()
    del coarse.records["train_inner"]
    assert curves_of(coarse, "loss", "run")[0].points == Series([30], [7.0])
    assert curves_of(a_log(), "ctc", "run") == []


def test_a_panel_for_each_metric_and_a_colour_for_each_run():
    runs = {"raw": a_log(), "distilled": a_log(1.0)}
    panels = {
        metric: [curve for name, log in runs.items() for curve in curves_of(log, metric, name)]
        for metric in ("loss", "bleu", "lr", "wps", "gnorm")
    }
    figure = draw_curves(panels)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_ylabel() for axes in shown] == [
        "loss (base 2)", "BLEU", "learning rate", "target tokens a second", "norm of the gradient",
    ]  # fmt: skip
    loss, bleu = shown[0].get_lines(), shown[1].get_lines()
    assert [list(line.get_ydata()) for line in loss] == [
        [8, 7, 6], [6.5, 5], [1], [9, 8, 7], [7.5, 6], [1]
    ]  # fmt: skip
    assert [list(line.get_xdata()) for line in bleu] == [[15, 30], [15, 30]]
    assert loss[0].get_color() == loss[1].get_color() == bleu[0].get_color()
    assert loss[3].get_color() == bleu[1].get_color() != loss[0].get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["raw: training", "raw: validation"]


def test_one_run_needs_no_name():
    figure = draw_curves({"bleu": curves_of(a_log(), "bleu", "run")})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["validation"]
