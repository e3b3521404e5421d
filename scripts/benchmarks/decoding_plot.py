"""The decoding benchmark's figure: speed against batch size, a panel a size, and speed against BLEU."""

import math
from collections.abc import Mapping
from typing import Any

from nat_plugin.figures.canvas import new_figure, save
from scripts.benchmarks.decoding_systems import CT2, FAIRSEQ, HF, OURS_FAIRSEQ, OURS_ONNX, SYSTEMS

COLOURS = {OURS_FAIRSEQ: "#0072B2", OURS_ONNX: "#56B4E9", FAIRSEQ: "#D55E00", CT2: "#009E73", HF: "#CC79A7"}
"""Okabe and Ito's palette, which readers with any colour vision tell apart."""
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1)), (0, (8, 2, 1, 2, 1, 2))]
MARKERS = {OURS_FAIRSEQ: "o", OURS_ONNX: "s", FAIRSEQ: "^", CT2: "D", HF: "v"}

LEAST_BLEU_RANGE = 4.0
"""Points of BLEU that the axis covers at least."""


def speeds(rows: Mapping[str, Mapping[str, float]], size: str) -> dict[str, dict[int, Mapping[str, float]]]:
    """``system → batch size → sentences a second`` of sentences of equal length."""
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    for name, figures in rows.items():
        parts = name.split("/")
        if parts[0] == size and parts[1] == "even" and parts[-1] == "sentences_per_s":
            found.setdefault(parts[3], {})[int(parts[2].removeprefix("batch"))] = figures
    return {system: dict(sorted(found[system].items())) for system in SYSTEMS if system in found}


def style(system: str, systems: Mapping[str, Any]) -> dict[str, Any]:
    """Colour and marker by family, dash by the place within the family."""
    family = SYSTEMS[system].family
    place = [name for name in systems if SYSTEMS[name].family == family].index(system)
    return {"color": COLOURS[family], "linestyle": DASHES[place % len(DASHES)], "marker": MARKERS[family]}


def spread(places: list[float], gap: float) -> list[float]:
    """The places (ascending), moved apart until neighbours are ``gap`` away from each other."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _start(groups[-1], gap) < _start(groups[-2], gap) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_start(group, gap) + gap * number for group in groups for number in range(len(group))]


def _start(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def draw(report: Mapping[str, Any], path: str) -> None:
    """Write the figure."""
    sizes = [size for size in report["settings"]["sizes_measured"] if speeds(report["rows"], size)]
    trained = [entry for entry in report.get("trained", []) if "bleu" in entry]
    panels = len(sizes) + bool(trained)
    figure = new_figure(7.6 * max(1, panels), 6.4)
    axes = figure.subplots(1, max(1, panels), squeeze=False)[0]
    for ax, size in zip(axes, sizes, strict=False):
        _draw_speeds(ax, size, report)
    if trained:
        _draw_bleu(axes[-1], trained)
    about = report["machine"]
    figure.suptitle(f"{about.get('gpu', about['cpu'])}, {report['settings']['threads']} CPU threads", fontsize=10)
    save(figure, path)


def _draw_speeds(ax: Any, size: str, report: Mapping[str, Any]) -> None:
    found = speeds(report["rows"], size)
    tokens = report["settings"]["sizes_measured"][size]["tokens"]
    batches = sorted({batch for by_batch in found.values() for batch in by_batch})
    for system, by_batch in found.items():
        medians = [figures["median"] for figures in by_batch.values()]
        ax.plot(list(by_batch), medians, markersize=4, linewidth=1.6, **style(system, found))
        low, high = ([figures[end] for figures in by_batch.values()] for end in ("min", "max"))
        ax.fill_between(list(by_batch), low, high, color=COLOURS[SYSTEMS[system].family], alpha=0.12, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="sentences a batch", ylabel=f"sentences of {tokens} tokens a second")
    ax.set_title(f"{size}: speed against batch size", fontsize=11)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.minorticks_off()
    ax.grid(True, which="major", alpha=0.25)
    ax.set_xlim(batches[0] * 0.85, batches[-1] * (batches[-1] / batches[0]) ** 0.6 * 1.3)
    _label_ends(ax, found)
    _plain_numbers(ax)


def _label_ends(ax: Any, found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    """The systems' names at the ends of their lines, moved apart."""
    ends = sorted((list(by_batch.values())[-1]["median"], list(by_batch)[-1], name) for name, by_batch in found.items())
    bottom, top = (math.log(limit) for limit in ax.get_ylim())
    places = spread([math.log(speed) for speed, *_ in ends], (top - bottom) * 0.036)
    right = max(batch for _, batch, _ in ends)
    for (speed, batch, name), place in zip(ends, places, strict=True):
        ax.annotate(
            f"{name}  {speed:.3g}/s",
            (batch, speed),
            xytext=(right * 1.35, math.exp(place)),
            color=COLOURS[SYSTEMS[name].family],
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": COLOURS[SYSTEMS[name].family], "alpha": 0.4, "linewidth": 0.6},
        )
    ax.set_ylim(math.exp(min(bottom, places[0] - 0.05)), math.exp(max(top, places[-1] + 0.05)))


def _plain_numbers(ax: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_bleu(ax: Any, trained: list[Mapping[str, Any]]) -> None:
    for entry in trained:
        family, speed = SYSTEMS[entry["system"]].family, entry["sentences_per_s"]
        ax.errorbar(
            speed["median"],
            entry["bleu"],
            xerr=[[speed["median"] - speed["min"]], [speed["max"] - speed["median"]]],
            color=COLOURS[family],
            marker=MARKERS[family],
            markersize=6,
        )
    ax.set(xscale="log", xlabel=f"sentences a second, batches of {trained[0]['batch']}", ylabel="BLEU (sacreBLEU)")
    ax.set_title("trained models: speed against BLEU", fontsize=11)
    ax.grid(True, alpha=0.25)
    ax.margins(0.15)
    left, right = ax.get_xlim()
    ax.set_xlim(left, right * (right / left) ** 0.9)
    bottom, top = ax.get_ylim()
    missing = max(0.0, LEAST_BLEU_RANGE - (top - bottom))  # tenths of a point should not look like a gulf
    ax.set_ylim(bottom - missing / 2, top + missing / 2)
    bottom, top = ax.get_ylim()
    points = sorted(trained, key=lambda entry: entry["bleu"])
    for entry, place in zip(points, spread([p["bleu"] for p in points], (top - bottom) * 0.036), strict=True):
        colour = COLOURS[SYSTEMS[entry["system"]].family]
        ax.annotate(
            f"{entry['model']}: {entry['system']}  {entry['bleu']:.1f}",
            (entry["sentences_per_s"]["median"], entry["bleu"]),
            xytext=(right * 1.1, place),
            color=colour,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.4, "linewidth": 0.6},
        )
    ax.minorticks_off()
