"""Which run the checkpoints of a pretraining belong to, which of them are complete, and whether it is finished."""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError
from plugin_common.hf_folder import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE

RUN_FILE = "run.json"
COMPLETE = "complete"  # written last, when the rest of a checkpoint is on the disk
# What may differ between a run and the one that goes on with its checkpoints.
FREE_OPTIONS = ("output", "log", "workers", "save_every", "validate_every", "text", "model")


def mark_complete(checkpoint: Path, log: Path) -> None:
    """Bring a checkpoint and the log that it belongs to onto the disk, then say so in the checkpoint.

    After a power failure files may be there by name without their content.
    """
    for file in [log, *checkpoint.iterdir(), checkpoint]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    with atomic_output(str(checkpoint / COMPLETE)):
        pass


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; a killed run may leave part of one."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).is_file()]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def run_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What makes a run the same run: options, names of the texts, and the contents of the model it starts from."""
    options = {k: v for k, v in vars(args).items() if k not in FREE_OPTIONS}
    weights = hashlib.sha256((args.model / WEIGHTS_FILE).read_bytes()).hexdigest()
    return {
        **options,
        "text": [{"name": p.stem, "bytes": p.stat().st_size} for p in args.text],
        "model_sha256": weights,
    }


def claim_checkpoints(folder: Path, settings: dict[str, Any]) -> None:
    """Note whose checkpoints these are, or, if there are any, check that they are this run's.

    Raises:
        UserError: they are another run's.
    """
    note = folder / RUN_FILE
    if note.is_file() and any(folder.glob("checkpoint-*")):
        before = json.loads(note.read_text(encoding="utf-8"))
        different = [key for key in settings if settings[key] != before.get(key)]
        if different:
            raise UserError(
                f"{folder}: holds the checkpoints of a run with another {', '.join(different)}; "
                f"give another --output, or delete that folder to start anew"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_output(str(note)) as stream:
        stream.write(json.dumps(settings, indent=2, ensure_ascii=False).encode() + b"\n")


def is_finished(output: Path, settings: dict[str, Any]) -> bool:
    """Whether the output folder holds this run's result.

    Raises:
        UserError: it holds something else.
    """
    if not output.exists() or (output.is_dir() and not (output / CONFIG_FILE).exists() and not any(output.iterdir())):
        return False
    note = output / PROVENANCE_FILE
    if note.is_file() and (output / CONFIG_FILE).is_file():
        made = json.loads(note.read_text(encoding="utf-8"))
        if all(made.get(key) == value for key, value in settings.items()):
            return True
    raise UserError(
        f"--output {output}: exists and is not the result of these options; give another folder or delete it"
    )
