"""What an export takes out of a checkpoint of ``--arch hf_causal_lm``. Knows torch, not fairseq."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nid_plugin.causal_lm.lora import LoraOptions
from nid_plugin.formatting import PairFormat
from plugin_common.checkpoint_average import checkpoint_info, load_lazily, model_settings
from plugin_common.checkpoint_files import check_checkpoint_file
from plugin_common.errors import UserError

_PREFIX = "causal_lm.lm."


@dataclass(frozen=True)
class Trained:
    """A fine-tuned model as its checkpoint tells of it.

    Attributes:
        path: of the checkpoint.
        updates: of its training.
        base: folder or name that ``--model`` gave.
        fingerprint: of the base's weights.
        lm_config: the base's configuration, JSON.
        pair_format: how pairs became texts.
        adapters: shape of the LoRA adapters; None after full fine-tuning.
        state: the trained tensors by their names in the transformers model, read when they are used.
    """

    path: Path
    updates: int
    base: str
    fingerprint: str | None
    lm_config: str
    pair_format: PairFormat
    adapters: LoraOptions | None
    state: Mapping[str, Tensor]


def read_trained(path: str | Path) -> Trained:
    """Read a checkpoint; its checksums are compared.

    Raises:
        UserError: no checkpoint, damaged, or of another architecture.
    """
    check_checkpoint_file(path)
    loaded = load_lazily(path)
    settings = model_settings(loaded)
    if settings.get("_name", settings.get("arch")) != "hf_causal_lm" or not settings.get("lm_config"):
        raise UserError(
            f"{path}: is a checkpoint of {settings.get('_name', 'another architecture')}, expected one of "
            "`fairseq-train --task completion_sft --arch hf_causal_lm`"
        )
    return Trained(
        path=Path(path),
        updates=checkpoint_info(path, loaded).updates,
        base=str(settings["model"]),
        fingerprint=settings.get("base_fingerprint"),
        lm_config=str(settings["lm_config"]),
        pair_format=PairFormat.from_json(settings["trained_format"]),
        adapters=_adapters(settings),
        state={name.removeprefix(_PREFIX): tensor for name, tensor in loaded["model"].items()},
    )


def _adapters(settings: Mapping[str, Any]) -> LoraOptions | None:
    if str(settings.get("tuning")) == "full":
        return None
    return LoraOptions.from_options(
        int(settings["lora_rank"]),
        float(settings["lora_alpha"]),
        float(settings["lora_dropout"]),
        str(settings["lora_targets"]),
    )
