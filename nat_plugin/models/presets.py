"""Architectures by name: shapes of ``ctc_pmlm``. Command line > preset > default."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq.models import register_model_architecture
from hydra.core.config_store import ConfigStore

from nat_plugin.models.ctc_pmlm import CtcPmlmConfig


@dataclass(frozen=True)
class Preset:
    """A shape, and the hub's name of the model that has it (None: trained from random weights)."""

    shape: dict[str, Any]
    hub_name: str | None

    @property
    def defaults(self) -> dict[str, Any]:
        """Options that the preset sets unless the user does."""
        return {**self.shape, "random_init": self.hub_name is None}


def _shape(kind: str, layers: int, dim: int, ffn: int, heads: int, positions: int = 512) -> dict[str, Any]:
    return {
        "pmlm_type": kind,
        "encoder_layers": layers,
        "encoder_embed_dim": dim,
        "encoder_ffn_embed_dim": ffn,
        "encoder_attention_heads": heads,
        "encoder_positions": positions,
    }


PRESETS = {
    "ctc_pmlm_tiny": Preset(_shape("xlm-roberta", 2, 128, 512, 4), None),
    "ctc_xlmr_base": Preset(_shape("xlm-roberta", 12, 768, 3072, 12), "FacebookAI/xlm-roberta-base"),
    "ctc_xlmr_large": Preset(_shape("xlm-roberta", 24, 1024, 4096, 16), "FacebookAI/xlm-roberta-large"),
    "ctc_mbert_base": Preset(_shape("bert", 12, 768, 3072, 12), "google-bert/bert-base-multilingual-cased"),
    "ctc_distilmbert_base": Preset(
        _shape("distilbert", 6, 768, 3072, 12), "distilbert/distilbert-base-multilingual-cased"
    ),
}


def _setter(preset: Preset) -> Callable[[argparse.Namespace], None]:
    def set_defaults(args: argparse.Namespace) -> None:
        for name, value in preset.defaults.items():
            if name == "random_init" and getattr(args, "pmlm", None) is not None:
                continue  # a folder was given for its weights, unless --random-init says otherwise
            setattr(args, name, getattr(args, name, value))

    return set_defaults


def _register() -> None:
    store = ConfigStore.instance()
    for name, preset in PRESETS.items():
        register_model_architecture("ctc_pmlm", name)(_setter(preset))
        node = CtcPmlmConfig(**preset.defaults)
        node._name = name
        store.store(name=name, group="model", node=node, provider="fairseq")


_register()
