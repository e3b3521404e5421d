"""The figure of one sentence, from made-up numbers; and the path that it shows."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.ctc import viterbi_alignment, viterbi_path
from nat_plugin.figures.alignment import Alignment, draw_alignment
from nat_plugin.figures.canvas import save


def an_alignment(tokens: int = 3, width: int = 6, **changes: object) -> Alignment:
    generator = np.random.default_rng(0)
    path = np.full(width, -1)
    path[: 2 * tokens : 2] = np.arange(tokens)
    values = {
        "source": [f"▁quellwort{i}" if i % 2 == 0 else None for i in range(width)],
        "output": [f"▁größe{i}" if i % 3 == 0 else None for i in range(width)],
        "target": [f"▁țară{i}" for i in range(tokens)],
        "probabilities": generator.random((width, tokens + 1)),
        "path": path,
        "positions": np.arange(tokens) * 2,
        "method": "argmax",
        "nats": 1.5,
    }
    return Alignment(**{**values, **changes})


def texts(labels: list) -> list[str]:
    return [label.get_text() for label in labels]


def test_what_stands_where():
    probabilities = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    figure = draw_alignment(
        an_alignment(
            source=["$a", None, "b$"], output=["x", None, None], target=["x_1^2$", "▁y"], probabilities=probabilities,
            path=np.array([0, -1, 1]), positions=np.array([-1, 1]), similarities=np.array([np.nan, 0.25]),
        )
    )  # fmt: skip
    axes = figure.axes[0]
    assert texts(axes.get_xticklabels()) == ["$a", "M", "b$"]
    assert texts(axes.get_yticklabels()) == ["x_1^2$", "▁y", "∅"]
    (image,) = axes.get_images()
    assert image.get_array().tolist() == [[0.2, 0.5, 0.8], [0.3, 0.6, 0.9], [0.1, 0.4, 0.7]]  # the blank last
    _, path, aligned = axes.get_lines()
    assert path.get_xydata().tolist() == [[0, 0], [1, 2], [2, 1]]
    assert aligned.get_xydata().tolist() == [[1, 1]]
    above, right = axes.child_axes
    assert texts(above.get_xticklabels()) == ["x", "∅", "∅"]
    assert texts(right.get_yticklabels()) == ["0.25"]


@pytest.mark.parametrize(("tokens", "positions"), [(1, 2), (5, 10), (40, 80), (40, 200)])
def test_every_size_can_be_drawn_and_its_letters_are_there(tmp_path, tokens, positions, recwarn):
    figure = draw_alignment(an_alignment(tokens, positions), "−log p = 1 $ nats $")
    save(figure, str(tmp_path / "figure.svg"))
    written = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    for word in ("▁quellwort0", "▁größe0", f"▁țară{tokens - 1}", "∅", "−log p = 1 $ nats $"):
        assert word in written
    assert not recwarn.list  # no glyph is missing, nothing fails to fit
    width, height = figure.get_size_inches()
    assert 6 <= width <= 36
    assert height <= 14
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))  # labels do not overlap


def test_numbers_become_json():
    numbers = an_alignment(similarities=np.array([0.5, np.nan, -1.0])).as_dict()
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["similarities"] == [0.5, None, -1.0]
    assert np.array(numbers["probabilities"]).shape == (6, 4)


@given(
    seed=st.integers(0, 10_000),
    target=st.lists(st.integers(1, 3), max_size=3),
    positions=st.integers(0, 5),
)
def test_the_path_is_the_best_of_all(seed, target, positions):
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(1, positions, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
    lengths = (torch.tensor([positions]), torch.tensor([len(target)]))
    targets = torch.tensor([target], dtype=torch.int64).view(1, -1)
    path = viterbi_path(log_probs, targets, *lengths, blank=0)[0].tolist()

    def collapsed(labels: tuple[int, ...]) -> list[int]:
        return [label for label, _ in itertools.groupby(labels) if label]

    paths = [labels for labels in itertools.product(range(4), repeat=positions) if collapsed(labels) == target]
    if not paths:
        assert path == [-1] * positions
        return
    scores = [sum(float(log_probs[0, t, label]) for t, label in enumerate(labels)) for labels in paths]
    best = paths[int(np.argmax(scores))]
    assert tuple(target[j] if j >= 0 else 0 for j in path) == best
    emitted = [j for j in path if j >= 0]
    assert emitted == sorted(emitted)
    aligned = viterbi_alignment(log_probs, targets, *lengths, blank=0)[0].tolist()
    assert all(path[position] == j for j, position in enumerate(aligned))


def test_padding_and_infeasible_rows_emit_nothing():
    log_probs = torch.zeros(2, 3, 3).log_softmax(-1)
    targets, target_lengths = torch.tensor([[1, 0], [1, 1]]), torch.tensor([1, 2])
    path = viterbi_path(log_probs, targets, torch.tensor([2, 2]), target_lengths, blank=0)
    assert path[0, 2] == -1
    assert 0 in path[0].tolist()
    assert path[1].tolist() == [-1, -1, -1]
