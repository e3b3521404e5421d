"""The figure of an audit: shares by detector and side, and lengths."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nid_plugin.audit.detectors import GROUPS, SIDES
from nid_plugin.audit.totals import Distribution
from plugin_common.atomic_file import atomic_output

COLOURS = {"prompt": "#8da0b3", "completion": "#c44e30"}
BINS = 40
_GREY = {"color": "#777777", "fontsize": 8, "style": "italic"}


def draw(report: Mapping[str, Any], words: Mapping[Any, Distribution], path: Path) -> None:
    """Write the figure as PNG.

    Args:
        report: as ``report.as_json`` gives it.
        words: lengths by side.
        path: of the file.

    Raises:
        UserError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    bars, lengths = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(bars, report)
    _draw_lengths(lengths, words)
    with atomic_output(str(path)) as stream:
        figure.savefig(stream, format="png", dpi=130)


def _draw_shares(axes: Any, report: Mapping[str, Any]) -> None:
    detectors, pairs = report["detectors"]["by_detector"], report["pairs"]
    names = sorted(detectors, key=lambda name: list(GROUPS).index(detectors[name]["group"]))
    for offset, side in ((-0.2, "prompt"), (0.2, "completion")):
        shares = [100 * detectors[name][side] / pairs for name in names]
        places = [place + offset for place in range(len(names))]
        drawn = axes.barh(places, shares, height=0.38, color=COLOURS[side], label=f"{side}s")
        axes.bar_label(drawn, [f"{value:.1f}" if value else "" for value in shares], padding=2, fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(0, max(1.0, axes.get_xlim()[1]))
    for place, name in enumerate(names):
        group = detectors[name]["group"]
        if place == 0 or group != detectors[names[place - 1]]["group"]:
            axes.axhline(place - 0.5, color="#999999", linewidth=0.6, linestyle=":")
            axes.text(1, place - 0.45, group, transform=axes.get_yaxis_transform(), ha="right", va="top", **_GREY)
    axes.set_xlabel(f"% of {pairs:,} pairs")
    axes.set_title("Found by detector", fontsize=11)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_lengths(axes: Any, words: Mapping[Any, Distribution]) -> None:
    largest = max(max(words[side].counts) for side in SIDES)
    edges = _edges(largest)
    for side in SIDES:
        values, weights = zip(*((max(1, value), count) for value, count in words[side].counts.items()), strict=True)
        axes.hist(values, edges, weights=weights, color=COLOURS[side], alpha=0.65, label=f"{side}s")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("words")
    axes.set_ylabel("pairs")
    axes.set_title("Lengths", fontsize=11)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _edges(largest: int) -> list[float]:
    """Edges of bins that grow by a constant factor from 1 to beyond the largest value."""
    return [(largest + 1) ** (step / BINS) for step in range(BINS + 1)]
