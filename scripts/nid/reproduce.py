"""Reproduce one of the paper's five models; ``llama2_7b.sh`` and its like call it.

python scripts/nid/reproduce.py mistral_7b --dry-run --gpus 8
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import os
from collections.abc import Sequence

from plugin_common.atomic_file import atomic_output
from plugin_common.command_line import read_and_run
from plugin_common.stage_runner import Runner, locked, project_programs
from plugin_common.stages import plan, show_plan
from scripts.common.request_options import Request
from scripts.nid.choices import Choices
from scripts.nid.costs import cost_lines
from scripts.nid.options import request
from scripts.nid.pipeline import ROOT, stages, workspace
from scripts.nid.summary import as_json, serving_lines, summarise, table

PACKAGES = ("ve-fairseq", "torch", "transformers", "tokenizers", "peft", "bitsandbytes", "openai", "lm-eval")


def runner() -> Runner:
    """Runs ``nid``, ``python``, fairseq's programs, torchrun and lm_eval of this environment."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return Runner(
        {
            **project_programs(),
            "torchrun": (sys.executable, "-m", "torch.distributed.run"),
            "lm_eval": (sys.executable, "-m", "lm_eval"),
        },
        {"PYTHONPATH": os.pathsep.join(paths), "PATH": programs, "TOKENIZERS_PARALLELISM": "false"},
        packages=PACKAGES,
    )


def reproduce(asked: Request[Choices]) -> None:
    """Do what is asked for, or tell what would be done."""
    choices = asked.choices
    made, space = stages(choices), workspace(choices)
    chosen = [stage for stage in made if stage.name in asked.selected]
    if asked.dry_run:
        print(f"{choices.model_id} in {space.folder}: {len(chosen)} stages")
        print("\n".join(f"   {line}" for line in cost_lines(choices)))
        print(show_plan(plan(space, chosen, redo=asked.redo)))
        print("\n".join(serving_lines(choices)))
        return
    place = f"{choices.machine.processes} GPUs" if choices.machine.gpus else "the CPU"
    print(f"{choices.model_id} in {space.folder}, on {place}; logs in logs/", flush=True)
    runner().run(space, made, redo=asked.redo, selected=asked.selected)
    if asked.selected[-1] != made[-1].name:
        return
    summary = summarise(choices, space, made, scale=asked.scale)
    with locked(space), atomic_output(str(choices.summary)) as stream:
        stream.write(as_json(summary))
    print(f"{table(summary)}\n{choices.summary}")


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a stage failed, 2 for wrong options, 130 when interrupted."""
    return read_and_run(request, reproduce, argv)


if __name__ == "__main__":
    sys.exit(main())
