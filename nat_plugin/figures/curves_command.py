"""``nat plot-log``: training curves from logs of fairseq-train."""

import argparse
from pathlib import Path

from plugin_common.errors import UserError

SUMMARY = "Draw training curves from logs of fairseq-train, several runs in one figure."
EXAMPLE = (
    "nat plot-log train.log --output curves.png\n"
    "  nat plot-log raw/train.log distilled/train.log --labels raw distilled --metrics loss,bleu --output curves.svg"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat plot-log``."""
    parser.add_argument("logs", nargs="+", metavar="LOG", help="what fairseq-train printed, one file for each run")
    parser.add_argument("--output", required=True, metavar="FIGURE", help="PNG, SVG or PDF file to write")
    parser.add_argument(
        "--metrics",
        metavar="NAME,…",
        help="one panel for each, by fairseq's names (default: those of loss, ctc, distill, bleu, lr that were logged)",
    )
    parser.add_argument(
        "--labels", nargs="+", metavar="TEXT", help="names of the runs (default: from the files' names)"
    )
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Read, draw, write, and say what was drawn."""
    from nat_plugin.figures.canvas import figure_format, require_matplotlib, save
    from nat_plugin.figures.training_curves import DEFAULT_METRICS, curves_of, draw_curves
    from nat_plugin.figures.training_log import read_training_log

    if args.labels is not None and len(args.labels) != len(args.logs):
        args.wrong_use(f"--labels names {len(args.labels)} runs, there are {len(args.logs)} logs: give one for each")
    figure_format(args.output)
    require_matplotlib()
    logs = [read_training_log(path) for path in args.logs]
    labels = _unique(args.labels or _labels(args.logs))
    logged = list(dict.fromkeys(name for log in logs for name in log.metrics()))
    if args.metrics is None:
        metrics = [name for name in DEFAULT_METRICS if name in logged]
    else:
        metrics = list(dict.fromkeys(name.strip() for name in args.metrics.split(",") if name.strip()))
        if not metrics:
            raise UserError(f"--metrics: names none; logged are {', '.join(logged)}")
        unknown = [name for name in metrics if name not in logged]
        if unknown:
            raise UserError(f"--metrics: no log has {', '.join(unknown)}; logged are {', '.join(logged)}")
    panels = {
        metric: [curve for log, label in zip(logs, labels, strict=True) for curve in curves_of(log, metric, label)]
        for metric in metrics
    }
    save(draw_curves(panels), args.output)
    print(f"{args.output}: {', '.join(metrics)} of {len(logs)} run{'s' if len(logs) > 1 else ''}")
    for path, log in zip(args.logs, logs, strict=True):
        last = max(updates for known in log.records.values() for updates, _ in known)
        again = f", {log.replaced} lines logged anew by a continued run" if log.replaced else ""
        print(f"  {path}: {last:,} updates{again}")


def _labels(paths: list[str]) -> list[str]:
    """The files' names without the suffix, or where these are equal the names of their folders."""
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else [Path(path).resolve().parent.name for path in paths]


def _unique(labels: list[str]) -> list[str]:
    """Equal labels numbered, so that their runs stay apart."""
    return [f"{label} ({i + 1})" if labels.count(label) > 1 else label for i, label in enumerate(labels)]
