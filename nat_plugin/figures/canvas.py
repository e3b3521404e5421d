"""An empty figure, and a figure's way into a file. Nothing global of matplotlib is touched."""

from pathlib import Path
from typing import Any

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

FORMATS = ("png", "svg", "pdf")
DPI = 130


def figure_format(path: str) -> str:
    """The format that a file's name asks for.

    Raises:
        UserError: not one of ``FORMATS``, or a folder that does not exist.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise UserError(f"--output {path}: cannot tell the format; let the name end in .{', .'.join(FORMATS)}")
    if not Path(path).parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {Path(path).parent}; make it first")
    return suffix


def require_matplotlib() -> None:
    """Raise ``UserError`` unless figures can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"figures need matplotlib, which cannot be imported ({error}); install it: pip install matplotlib"
        ) from error


def new_figure(width: float, height: float) -> Any:
    """A ``matplotlib.figure.Figure`` of so many inches, laid out so that nothing overlaps.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str) -> None:
    """Write the figure in the format that the name asks for, complete or not at all.

    Text stays text in SVG; the same figure gives the same bytes.

    Raises:
        UserError: an unknown format, or a file that cannot be written.
    """
    import matplotlib

    suffix = figure_format(path)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix, {})
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "figure"}),
        atomic_output(path) as stream,
    ):
        figure.savefig(stream, format=suffix, dpi=DPI, metadata=metadata)
