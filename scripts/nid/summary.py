"""What a reproduction came to, as JSON and as a table; and how to serve the model."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError
from plugin_common.stages import Stage, Workspace
from scripts.nid.choices import Benchmark, Choices
from scripts.nid.pipeline import tuned_folders


def summarise(choices: Choices, space: Workspace, stages: Sequence[Stage], *, scale: str) -> dict[str, Any]:
    """The figures of a finished run: settings, held-out loss, scores of the base and of the fine-tuned model.

    Raises:
        UserError: a file of scores is missing or unreadable.
    """
    recipe, machine = choices.recipe, choices.machine
    records = {stage.name: space.record(stage) for stage in stages}
    models = {"base": recipe.base_id, "tuned": choices.model_id}
    return {
        "reproduction": recipe.name,
        "scale": scale,
        "base": choices.base,
        "teacher": choices.teacher.model,
        "control": choices.control.suffix.removeprefix("-") or choices.control.kind,
        "pair_format": recipe.pair_format,
        "weights": machine.holding,
        "precision": machine.precision,
        "gpus": machine.processes,
        "seed": choices.seed,
        "versions": next((record["versions"] for record in reversed(records.values()) if record), {}),
        "seconds": {name: record.get("seconds") for name, record in records.items()},
        "scores": {
            benchmark.name: {which: _scores(choices, benchmark, name) for which, name in models.items()}
            for benchmark in choices.benchmarks
        },
        "lm_eval": {which: _lm_eval(choices.work / "lm-eval" / name) for which, name in models.items()}
        if choices.lm_eval
        else {},
    }


def as_json(summary: dict[str, Any]) -> bytes:
    """For the file."""
    return (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode()


def table(summary: dict[str, Any]) -> str:
    """The scores as text: base, fine-tuned, their 95 % intervals."""
    lines = [f"{summary['reproduction']}, teacher {summary['teacher']}, control {summary['control']}"]
    if summary["scores"] or summary["lm_eval"]:
        lines.append(f"  {'':<40}{'base':>26}{'fine-tuned':>26}")
    for name, found in summary["scores"].items():
        lines.append(f"  {name:<40}" + "".join(f"{_shown(found[which]):>26}" for which in ("base", "tuned")))
        for which in ("base", "tuned"):
            if lost := found[which]["unparsed"] + found[which]["missing"]:
                lines.append(f"    {which}: {lost} judgments could not be read or are missing")
    tasks = summary["lm_eval"].get("tuned", {})
    for name in tasks:
        values = (summary["lm_eval"][which].get(name) for which in ("base", "tuned"))
        lines.append(f"  {name:<40}" + "".join(f"{'–' if v is None else f'{v:.4f}':>26}" for v in values))
    return "\n".join(lines)


def _shown(score: dict[str, Any]) -> str:
    if score["score"] is None:
        return "–"
    low, high = score["interval"] or (None, None)
    return f"{score['score']:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")


def _scores(choices: Choices, benchmark: Benchmark, model: str) -> dict[str, Any]:
    """MT-Bench's mean rating, or Arena-Hard's percentage against its baseline, with interval and counts."""
    path = choices.scores(benchmark, model)
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
        if benchmark.baseline is None:
            found = scores[model]
            return {"score": found["average"], **{key: found[key] for key in ("interval", "n", "unparsed", "missing")}}
        found = (scores.get("all") or next(iter(scores.values())))["models"][model]
        return {key: found[key] for key in ("score", "interval", "n", "unparsed", "missing")}
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise UserError(
            f"{path}: not the scores of a finished run ({error!r}); run the stage with --redo judge-{benchmark.name}"
        ) from error


def _lm_eval(folder: Path) -> dict[str, float]:
    """Metrics by task of the newest results in a folder."""
    files = sorted(folder.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(f"{folder}: holds no results of lm-evaluation-harness; run the stage with --redo lm-eval")
    results = json.loads(files[-1].read_text(encoding="utf-8"))["results"]
    return {
        f"{task} {metric.removesuffix(',none')}": value
        for task, metrics in results.items()
        for metric, value in metrics.items()
        if isinstance(value, float) and "_stderr" not in metric
    }


def serving_lines(choices: Choices) -> Iterator[str]:
    """How to serve both models under their ids, and lm-evaluation-harness's commands for the leaderboards."""
    folder, adapter = tuned_folders(choices)
    gpus = f" --tensor-parallel-size {choices.machine.gpus}" if choices.machine.gpus > 1 else ""
    yield "not run here:"
    if adapter is None:
        yield f"     # vllm serve {folder} --served-model-name {choices.model_id}{gpus}"
    else:
        yield (
            f"     # vllm serve {folder} --served-model-name {choices.recipe.base_id} --enable-lora --lora-modules "
            f"{choices.model_id}={adapter}{gpus}   then --answers-url http://localhost:8000/v1"
        )
    for tasks in ("openllm", "leaderboard") if not choices.lm_eval else ():
        arguments = f"pretrained={folder}" + (f",peft={adapter}" if adapter else "") + ",dtype=bfloat16"
        words = f"lm_eval --model hf --model_args {arguments} --tasks {tasks} --batch_size auto"
        yield f"     # {words}   (or --lm-eval {tasks})"
