"""The masked-LM architectures that are supported, and what their tensors are called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plugin_common.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class MaskedLMFamily:
    """The names of a supported architecture's tensors."""

    embedding: str
    """Input embedding, ``[V, D]``."""
    output_tensors: tuple[str, ...]
    """Output projection ``[V, D]`` (tied to the embedding or not) and its bias ``[V]``, under every name they have."""
    head_prefixes: tuple[str, ...]
    """What the names of the masked-LM head's own tensors begin with."""
    positions_after_padding: str | None
    """Position embedding whose first used row is ``pad_token_id + 1``; None where positions start at row 0."""


def _roberta() -> MaskedLMFamily:
    return MaskedLMFamily(
        embedding="roberta.embeddings.word_embeddings.weight",
        output_tensors=("lm_head.decoder.weight", "lm_head.decoder.bias", "lm_head.bias"),
        head_prefixes=("lm_head.",),
        positions_after_padding="roberta.embeddings.position_embeddings.weight",
    )


FAMILIES: Mapping[str, MaskedLMFamily] = {
    "xlm-roberta": _roberta(),
    "roberta": _roberta(),
    "bert": MaskedLMFamily(
        embedding="bert.embeddings.word_embeddings.weight",
        output_tensors=("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "cls.predictions.bias"),
        head_prefixes=("cls.",),
        positions_after_padding=None,
    ),
    "distilbert": MaskedLMFamily(
        embedding="distilbert.embeddings.word_embeddings.weight",
        output_tensors=("vocab_projector.weight", "vocab_projector.bias"),
        head_prefixes=("vocab_",),
        positions_after_padding=None,
    ),
}
"""Supported architectures by ``model_type``."""


def family_of(config: "PretrainedConfig", where: str) -> MaskedLMFamily:
    """The family of a config; ``where`` (a folder or name) begins the error's text.

    Raises:
        UserError: the architecture is not supported.
    """
    check_supported(config.model_type, where)
    return FAMILIES[config.model_type]


def check_supported(model_type: str, where: str) -> None:
    """Refuse an architecture, by its ``model_type``, that is not in :data:`FAMILIES`.

    Raises:
        UserError: names it and the supported ones.
    """
    if model_type not in FAMILIES:
        raise UserError(
            f"{where}: architecture {model_type!r} is not supported; use a masked LM of one of {', '.join(FAMILIES)}"
        )
