"""``nat average``: the mean of the best or latest checkpoints of a training."""

import argparse
from pathlib import Path

from plugin_common.atomic_file import atomic_output, clean_up_when_terminated
from plugin_common.errors import raise_all
from plugin_common.progress import progress_bar

SUMMARY = "Average the parameters of fairseq checkpoints: usually better than the best single one."
EXAMPLE = (
    "nat average checkpoints --best 5 --output checkpoints/best5.pt\n"
    "  nat average --inputs checkpoints/checkpoint8.pt checkpoints/checkpoint9.pt --output mean.pt"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat average``."""
    parser.add_argument("save_dir", nargs="?", metavar="SAVE_DIR", help="folder that fairseq-train --save-dir wrote")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--inputs", nargs="+", metavar="FILE", help="checkpoints to average, instead of SAVE_DIR")
    choice.add_argument(
        "--best", type=_positive, metavar="N", help="the N with the best validation results in SAVE_DIR"
    )
    choice.add_argument(
        "--last", type=_positive, metavar="N", help="the N latest, saved by epoch or update, in SAVE_DIR"
    )
    parser.add_argument(
        "--allow-fewer", action="store_true", help="where SAVE_DIR holds fewer than N, average what there is"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="checkpoint to write")
    parser.add_argument("--metric", help="for --best: the validation metric (default: the one in the checkpoints)")
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument(
        "--maximize", action="store_true", help="for --best: more is better (default: as in training)"
    )
    direction.add_argument(
        "--minimize", action="store_true", help="for --best: less is better (default: as in training)"
    )
    parser.add_argument(
        "--ignore-setting",
        action="append",
        default=[],
        metavar="NAME",
        help="average although this model option differs (may be given several times), for example dropout",
    )
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Average and write; tells what went in."""
    _refuse_wrong_use(args)
    import torch

    from plugin_common.checkpoint_average import average_checkpoints, open_checkpoints

    paths = _chosen(args)
    with clean_up_when_terminated(), atomic_output(args.output) as stream:
        with progress_bar(total=len(paths), unit=" files", description="check") as bar:
            states = open_checkpoints(paths, args.ignore_setting, on_file=bar.update)
        values = sum(tensor.numel() for tensor in states[paths[0]]["model"].values())
        with progress_bar(total=values, unit=" values", description="average") as bar:
            average = average_checkpoints(states, on_tensor=bar.update)
        torch.save(average, stream)
    print(f"{args.output}: the mean of {len(paths)} checkpoints, {values:,} values, without optimizer state")
    for source in average["extra_state"]["averaged_from"]:
        print(f"  {source}")


def _refuse_wrong_use(args: argparse.Namespace) -> None:
    if args.inputs and args.save_dir:
        args.wrong_use(f"give either --inputs or SAVE_DIR ({args.save_dir}), not both")
    if not args.inputs and not args.save_dir:
        args.wrong_use("--best and --last need SAVE_DIR, the folder that fairseq-train --save-dir wrote")
    if args.best is None and (args.metric or args.maximize or args.minimize):
        args.wrong_use("--metric, --maximize and --minimize go with --best")
    if args.inputs and args.allow_fewer:
        args.wrong_use("--allow-fewer goes with --best or --last")


def _chosen(args: argparse.Namespace) -> list[str]:
    """The checkpoints to average; none twice, none to be overwritten."""
    from plugin_common.checkpoint_selection import best_checkpoints, last_checkpoints

    if args.best is not None:
        maximize = True if args.maximize else False if args.minimize else None
        found = best_checkpoints(
            args.save_dir, args.best, metric=args.metric, maximize=maximize, allow_fewer=args.allow_fewer
        )
        paths = [str(info.path) for info in found]
    elif args.last is not None:
        paths = [str(info.path) for info in last_checkpoints(args.save_dir, args.last, allow_fewer=args.allow_fewer)]
    else:
        paths = args.inputs
    resolved = [Path(path).resolve() for path in paths]
    problems = [f"{path}: given twice" for path in sorted({path for path in resolved if resolved.count(path) > 1})]
    if Path(args.output).resolve() in resolved:
        problems.append(f"--output {args.output}: is one of the checkpoints to average; give another name")
    if not Path(args.output).parent.is_dir():
        problems.append(f"--output {args.output}: there is no folder {Path(args.output).parent}; make it first")
    raise_all(problems)
    return paths


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return value
