"""Figures into files."""

import sys

import pytest

from nat_plugin.figures.canvas import figure_format, new_figure, save
from plugin_common.errors import UserError


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "figure.txt", ".png"])
def test_unknown_formats_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"cannot tell the format; let the name end in \.png, \.svg, \.pdf"):
        figure_format(str(tmp_path / name))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        figure_format(str(tmp_path / "no" / "figure.png"))


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_figure_gives_the_same_bytes(tmp_path, suffix, start):
    path = tmp_path / f"figure.{suffix}"
    written = []
    for _ in range(2):
        figure = new_figure(2, 2)
        figure.add_subplot().plot([1, 2], label="größer")
        save(figure, str(path))
        written.append(path.read_bytes())
    assert written[0].startswith(start)
    assert written[0] == written[1]


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        new_figure(2, 2)
