"""One sentence as a figure: what the model says at each position, and where it puts each target token.

Takes plain lists and arrays. T positions of the up-sampled source, L target tokens.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nat_plugin.figures.canvas import new_figure

BLANK = "∅"
MASK = "M"
_WIDEST_CELL, _NARROWEST_CELL, _SMALL_TEXT_CELL = 0.3, 0.155, 0.2  # inches
_PALE = "0.62"


@dataclass(frozen=True)
class Alignment:
    """The numbers of one sentence.

    Attributes:
        source: T tokens of the up-sampled source; None for a MASK.
        output: T labels that the model finds most probable; None for the blank.
        target: L tokens.
        probabilities: ``[T, 1 + L]``, of the blank (column 0) and of each target token.
        path: ``[T]`` the target token (from 0) that the best CTC path emits at a position, -1 for the blank.
        positions: ``[L]`` the position to which distillation aligns a token, -1 for none.
        method: how: argmax, viterbi or assignment.
        nats: negative log-likelihood of the target under all paths.
        similarities: ``[L]`` cosine of the model's state at that position and the teacher's state of the token, from -1
            to 1; NaN where there is none. None without a teacher.
    """

    source: list[str | None]
    output: list[str | None]
    target: list[str]
    probabilities: NDArray[np.float64]
    path: NDArray[np.int64]
    positions: NDArray[np.int64]
    method: str
    nats: float
    similarities: NDArray[np.float64] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        similarities = None if self.similarities is None else [_number(value) for value in self.similarities.tolist()]
        return {
            "source": self.source,
            "output": self.output,
            "target": self.target,
            "probabilities": self.probabilities.tolist(),
            "path": self.path.tolist(),
            "positions": self.positions.tolist(),
            "alignment": self.method,
            "nats": _number(self.nats),
            "similarities": similarities,
        }


def draw_alignment(alignment: Alignment, title: str = "") -> Any:
    """A figure: positions from left to right, target tokens from top to bottom and the blank below them.

    Below stands the up-sampled source (MASKs pale), above what the model emits (blanks pale). Shades are probabilities,
    squares the best CTC path of the target, and circles the positions to which distillation aligns the tokens.
    """
    columns, rows = len(alignment.source), len(alignment.target) + 1
    cell = min(_WIDEST_CELL, max(_NARROWEST_CELL, 11 / columns))
    row = max(cell, _SMALL_TEXT_CELL)
    beside = 2.4 + 0.075 * max(map(len, alignment.target), default=0)
    above_and_below = 2.0 + 0.075 * _longest(alignment.source) + 0.075 * _longest(alignment.output)
    figure = new_figure(max(6.0, cell * columns + beside), row * rows + above_and_below)
    axes = figure.add_subplot()
    shown = np.concatenate([alignment.probabilities[:, 1:], alignment.probabilities[:, :1]], axis=1).T
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    _grid(axes, rows, columns)
    _mark(axes, alignment, 72 * cell)
    _label(axes, alignment, 6.5 if cell < _SMALL_TEXT_CELL else 8)
    figure.colorbar(image, ax=axes, label="probability", shrink=min(1.0, 1.8 / (row * rows)), fraction=0.05, pad=0.02)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _longest(tokens: list[str | None]) -> int:
    return max((len(token) for token in tokens if token), default=1)


def _grid(axes: Any, rows: int, columns: int) -> None:
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.axhline(rows - 1.5, color="0.4", linewidth=0.8)
    axes.tick_params(which="minor", length=0)


def _mark(axes: Any, alignment: Alignment, cell: float) -> None:
    """``cell``: width of a cell in points."""
    blank_row = len(alignment.target)
    rows = np.where(alignment.path >= 0, alignment.path, blank_row)
    axes.plot(
        np.arange(len(rows)), rows, linestyle="none", marker="s", markersize=0.62 * cell, markerfacecolor="none",
        markeredgecolor="tab:red", markeredgewidth=1.3, label="best CTC path of the target",
    )  # fmt: skip
    tokens = np.flatnonzero(alignment.positions >= 0)
    axes.plot(
        alignment.positions[tokens], tokens, linestyle="none", marker="o", markersize=max(4.5, 0.34 * cell),
        markerfacecolor="tab:orange", markeredgecolor="white", markeredgewidth=0.8,
        label=f"aligned for distillation ({alignment.method})",
    )  # fmt: skip


def _label(axes: Any, alignment: Alignment, font_size: float) -> None:
    columns, blank_row = np.arange(len(alignment.source)), len(alignment.target)
    size = {"fontsize": font_size, "parse_math": False}  # a token may hold dollar signs
    axes.set_xticks(columns, [token or MASK for token in alignment.source], rotation=90, **size)
    axes.set_xlabel(f"up-sampled source ({MASK} = MASK)", fontsize=9)
    above = axes.secondary_xaxis("top")
    above.set_xticks(columns, [token or BLANK for token in alignment.output], rotation=90, **size)
    above.set_xlabel(f"output at each position ({BLANK} = blank)", fontsize=9)
    for labels, tokens in ((axes, alignment.source), (above, alignment.output)):
        for text, token in zip(labels.get_xticklabels(), tokens, strict=True):
            text.set_color("black" if token else _PALE)
    axes.set_yticks(np.arange(blank_row + 1), [*alignment.target, BLANK], **size)
    axes.set_ylabel("target", fontsize=9)
    if alignment.similarities is not None:
        beside = axes.secondary_yaxis("right")
        known = [(row, value) for row, value in enumerate(alignment.similarities.tolist()) if not np.isnan(value)]
        beside.set_yticks([row for row, _ in known], [f"{value:.2f}" for _, value in known], fontsize=font_size - 1)
        beside.set_ylabel("cosine to the teacher's state", fontsize=8)
        beside.tick_params(length=0)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
