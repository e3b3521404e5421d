"""What a reproduction came to: scores with their signatures and speed, as JSON and as a table."""

import json
import statistics
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError
from plugin_common.stages import Stage, Workspace
from scripts.nat.hypotheses import sentences_per_second
from scripts.nat.pipeline import Choices, score_files, speed_commands

SYSTEMS = {"at": "autoregressive", "nat": "one pass"}


def summarise(choices: Choices, space: Workspace, stages: list[Stage], *, name: str) -> dict[str, Any]:
    """The figures of a finished run.

    Returns:
        The run's settings; for each system of ``SYSTEMS`` its scores (name, value, signature) and its speed: sentences
        per second by way of searching and batch size, and, for several rounds, their median, least and largest.

    Raises:
        UserError: a file of the figures is missing or unreadable.
    """
    scored = {system: _scores(path) for system, path in score_files(choices).items()}
    speeds = _speeds(choices)
    systems = {}
    for system, title in SYSTEMS.items():
        speed = {way: figures for way, figures in speeds.items() if way.startswith(system)}
        systems[system] = {"name": title, **scored[system], "speed": speed}
    recipe, machine = choices.recipe, choices.machine
    return {
        "reproduction": recipe.name,
        "dataset": recipe.dataset,
        "direction": f"{recipe.source_lang}-{recipe.target_lang}",
        "scale": name,
        "data": choices.data,
        "pmlm": choices.pmlm,
        "precision": machine.precision,
        "seed": choices.seed,
        "gpus": machine.gpus,
        "device": choices.device,
        "versions": next((space.record(stage)["versions"] for stage in reversed(stages) if space.record(stage)), {}),
        "seconds": {stage.name: space.record(stage).get("seconds") for stage in stages},
        "systems": systems,
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{summary['reproduction']} ({summary['direction']}, {summary['data']} data, scale {summary['scale']}, "
        f"{summary['precision']}, seed {summary['seed']})"
    ]
    systems = summary["systems"]
    lines.append(f"  {'':<30}" + "".join(f"{system['name']:>16}" for system in systems.values()))
    for position, score in enumerate(systems["at"]["scores"]):
        values = "".join(f"{system['scores'][position]['value']:16.2f}" for system in systems.values())
        lines.append(f"  {score['name']:<30}{values}  {score['signature']}")
    for comparison in systems["nat"].get("significance", []):
        lines.append(f"  {comparison['name']}: p = {comparison['p_value']:.4f}  {comparison['signature']}")
    for system in systems.values():
        if system["empty_hypotheses"]:
            count, lines_there = system["empty_hypotheses"], system["lines"]
            lines.append(f"  {system['name']}: {count:,} of {lines_there:,} translations are empty")
    lines.append(f"  {'sentences/s':<30}{'one at a time':>16}{'large batches':>16}  {summary['device']}")
    for system in systems.values():
        for way, speed in system["speed"].items():
            lines.append(f"  {way:<30}{speed['one']['median']:16.2f}{speed['large']['median']:16.2f}")
    return "\n".join(lines)


def _scores(path: Path) -> dict[str, Any]:
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        return {key: content[key] for key in ("lines", "empty_hypotheses", "scores")} | {
            key: content[key] for key in ("significance",) if key in content
        }
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: not the scores of a finished run ({error!r}); run the stage with --redo score"
        ) from error


def _speeds(choices: Choices) -> dict[str, dict[str, dict[str, float]]]:
    """Sentences per second by system and batch."""
    measured: dict[str, dict[str, list[float]]] = {}
    for command in speed_commands(choices):
        assert command.output is not None and command.errors is not None
        system, batch, _ = command.output.name.split(".", 2)
        speed = sentences_per_second(command.output, command.errors)
        measured.setdefault(system, {}).setdefault(batch, []).append(speed)
    return {
        system: {
            batch: {"median": statistics.median(rounds), "min": min(rounds), "max": max(rounds), "rounds": len(rounds)}
            for batch, rounds in batches.items()
        }
        for system, batches in measured.items()
    }
