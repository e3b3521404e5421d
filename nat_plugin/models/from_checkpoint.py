"""A trained one-pass model and its task, from a checkpoint and a data-bin."""

from pathlib import Path
from typing import Any, NamedTuple

from fairseq import checkpoint_utils, tasks
from omegaconf import open_dict

from plugin_common.errors import UserError


class OnePassCheckpoint(NamedTuple):
    """What a checkpoint holds: the model in evaluation mode, its task, and the updates it had (None if not told)."""

    model: Any
    task: Any
    updates: int | None


def load_one_pass_model(checkpoint: str, data_bin: str, languages: tuple[str, str] | None = None) -> OnePassCheckpoint:
    """Load a checkpoint for inspection or export.

    Args:
        checkpoint: of ``fairseq-train --task ctc_nat``.
        data_bin: folder whose dictionary the model was trained with.
        languages: source and target; None takes them from the checkpoint or the names of the files in ``data_bin``.

    Raises:
        UserError: no such file, a damaged one, or one of another task or dictionary.
    """
    if not Path(data_bin).is_dir():
        raise UserError(f"--data {data_bin}: no such folder; give the --destdir of fairseq-preprocess")
    state = checkpoint_utils.load_checkpoint_to_cpu(checkpoint)
    cfg = state.get("cfg")
    name = cfg.task.get("_name") if cfg is not None and cfg.get("task") else None
    if not getattr(tasks.TASK_REGISTRY.get(name), "translates_in_one_pass", False):
        raise UserError(
            f"{checkpoint}: not a one-pass model (its task is {name}, expected ctc_nat); give a checkpoint of "
            "fairseq-train --task ctc_nat"
        )
    with open_dict(cfg.task):
        cfg.task.data, cfg.task.eval_bleu = data_bin, False
        if languages is not None:
            cfg.task.source_lang, cfg.task.target_lang = languages
    task = tasks.setup_task(cfg.task, from_checkpoint=True)
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([checkpoint], task=task, state=state)
    history = state.get("optimizer_history") or [{}]
    return OnePassCheckpoint(model.eval(), task, history[-1].get("num_updates"))
