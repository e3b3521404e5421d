"""Reproduce one of the paper's six translation directions; ``wmt14_ende.sh`` and its like call it.

python scripts/nat/reproduce.py wmt16_enro --dry-run
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import json
import os
from collections.abc import Sequence

from plugin_common.atomic_file import atomic_output
from plugin_common.command_line import read_and_run
from plugin_common.stage_runner import Runner, locked, project_programs
from plugin_common.stages import plan, show_plan
from scripts.common.request_options import Request
from scripts.nat.options import request
from scripts.nat.pipeline import ROOT, Choices, stages, workspace
from scripts.nat.summary import summarise, table

PACKAGES = ("ve-fairseq", "torch", "transformers", "tokenizers", "sacrebleu", "sacremoses")


def runner(gpus: int) -> Runner:
    """Runs ``nat``, ``python`` and fairseq's programs of this environment, installed or not; a slot a GPU."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return Runner(
        project_programs(),
        {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"},
        [{"CUDA_VISIBLE_DEVICES": name} for name in names[:gpus]] or [{}],
        PACKAGES,
    )


def reproduce(asked: Request[Choices]) -> None:
    """Do what is asked for, or tell what would be done."""
    choices = asked.choices
    made, space = stages(choices), workspace(choices)
    chosen = [stage for stage in made if stage.name in asked.selected]
    if asked.dry_run:
        print(f"{choices.recipe.name} in {space.folder}: {len(chosen)} stages")
        print(show_plan(plan(space, chosen, redo=asked.redo)))
        return
    place = f"{choices.machine.gpus} × {choices.device}" if choices.machine.gpus else choices.device
    print(f"{choices.recipe.name} in {space.folder}, on {place}; logs in logs/", flush=True)
    runner(choices.machine.gpus).run(space, made, redo=asked.redo, selected=asked.selected)
    if asked.selected[-1] != made[-1].name:
        return
    summary = summarise(choices, space, made, name=asked.scale)
    with locked(space), atomic_output(str(choices.folder("summary")) + ".json") as stream:
        stream.write((json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    print(f"{table(summary)}\n{choices.folder('summary')}.json")


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a stage failed, 2 for wrong options, 130 when interrupted."""
    return read_and_run(request, reproduce, argv)


if __name__ == "__main__":
    sys.exit(main())
