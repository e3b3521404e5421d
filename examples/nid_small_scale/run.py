"""Text completions from a real teacher on this machine, and the same model fine-tuned on them and on their controls.

python examples/nid_small_scale/run.py --size tiny
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import os
from collections.abc import Sequence

from examples.nid_small_scale.serve import INSTALL, MODEL_PACKAGE, SERVER_PACKAGE, missing_packages
from examples.nid_small_scale.sizes import SIZES
from examples.nid_small_scale.steps import stages
from examples.nid_small_scale.tuning_steps import gguf_file, tuning_stages
from plugin_common.command_line import resumable
from plugin_common.errors import UserError
from plugin_common.stage_runner import Runner, project_programs
from plugin_common.stages import Stage, Workspace, plan, show_plan

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (MODEL_PACKAGE, SERVER_PACKAGE, "openai", "torch", "transformers", "peft", "ve-fairseq")
PARTS = ("pairs", "tuning", "all")


def runner() -> Runner:
    """Runs the programs of this environment; ``nid`` need not be installed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Threads that wait for one another busily keep each other from running where cores are shared: much slower.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }
    return Runner(project_programs(), environment, packages=PACKAGES)


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        prog="run.py",
        description="Pairs of a text's first half and a teacher's completion, made and looked at on this machine; then "
        "the same model fine-tuned on them.",
        epilog="example:\n  run.py --size small --cache runs/debian-packages",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = "; ".join(f"{size.name}: {size.purpose}" for size in SIZES.values())
    made.add_argument("--size", choices=list(SIZES), default="tiny", help=f"{sizes} (default: %(default)s)")
    made.add_argument(
        "--part",
        choices=PARTS,
        default="all",
        help="pairs: the first half; tuning: the second, on the pairs that are in --work (default: %(default)s)",
    )
    made.add_argument(
        "--work", type=Path, metavar="DIR", help="everything goes there (default: runs/nid-small-scale-SIZE)"
    )
    made.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "runs" / "debian-packages",
        metavar="DIR",
        help="keeps Debian's packages (default: runs/debian-packages)",
    )
    made.add_argument("--no-download", action="store_true", help="take the packages in --cache as they are")
    made.add_argument("--redo", nargs="+", default=[], metavar="STAGE", help="run these although they are done")
    made.add_argument("--until", metavar="STAGE", help="stop after this stage")
    made.add_argument("--dry-run", action="store_true", help="tell what would be done and why, with all commands")
    return made


def chosen(every: Sequence[Stage], until: str | None, redo: Sequence[str]) -> list[Stage]:
    """The stages up to and with ``until``.

    Raises:
        UserError: a stage that is named does not exist.
    """
    names = [stage.name for stage in every]
    if unknown := [name for name in filter(None, [until, *redo]) if name not in names]:
        raise UserError(f"no stage {', '.join(unknown)}; there are {', '.join(names)}")
    return list(every[: names.index(until) + 1]) if until else list(every)


def make_workspace(work: Path, cache: Path) -> Workspace:
    """The run's folder; neither its place nor that of the project, of Debian's packages or of the model matters."""
    model = {} if missing_packages() else {gguf_file().parent: "MODEL"}
    return Workspace(work, {ROOT: "ROOT", cache: "CACHE", **model})


def run(args: argparse.Namespace) -> None:
    """Make what is asked for and not yet there.

    Raises:
        UserError: the teacher's packages are missing, or a stage failed.
    """
    work = (args.work or ROOT / "runs" / f"nid-small-scale-{args.size}").resolve()
    size = SIZES[args.size]
    every = stages(size, work, cache=args.cache.resolve(), download=not args.no_download)
    parts = {"pairs": every, "tuning": tuning_stages(size, work)}
    wanted = chosen(parts.get(args.part, [*every, *parts["tuning"]]), args.until, args.redo)
    workspace = make_workspace(work, args.cache)
    if args.dry_run:
        print(show_plan(plan(workspace, wanted, redo=args.redo)))
        return
    needing = any(stage.name == "model" or stage.name.startswith("teacher") for stage in wanted)
    if needing and (missing := missing_packages()):
        raise UserError(f"not installed: {', '.join(missing)}; the teacher needs `{INSTALL}`")
    runner().run(workspace, wanted, redo=args.redo)


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a stage failed, 2 for wrong options, 130 when interrupted."""
    args = parser().parse_args(argv)
    return resumable(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
