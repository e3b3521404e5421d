"""From ``--teacher`` (or the model's own PMLM) to the frozen LM of embedding distillation, every mismatch explained."""

import logging
from collections.abc import Sequence
from typing import Any

from nat_plugin.models.frozen_lm import FrozenLm, looks_untrained
from nat_plugin.models.masked_lm import MaskedLm
from nat_plugin.tasks.pmlm_loading import checked_config
from plugin_common import hf_folder
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)


def load_teacher(teacher: str | None, model: Any, dictionary: Any, *, layer: int, distance: str) -> FrozenLm:
    """The LM that reads the targets.

    Args:
        teacher: folder or name on the hub; None for the PMLM that ``model`` started from (its initial weights, where it
            started from random ones).
        model: the new ``ctc_pmlm`` model, before any training.
        layer: 0 for the embeddings, 1 … n, or counted from the end: -1 for the last.
        distance: ``cosine``, ``mse`` (states of that layer) or ``kl`` (output distributions).

    Raises:
        UserError: the vocabulary differs from the model's, a layer that does not exist, states of another width, or
            ``kl`` of another layer than the last.
    """
    source = teacher if teacher is not None else model.cfg.pmlm
    if source is None:
        lm, named = model.masked_lm, "the model's own random weights (no --pmlm, no --teacher)"
        config = lm.config
    else:
        named = source
        config = checked_config(source, dictionary.symbols, option="--teacher" if teacher is not None else "--pmlm")
        lm = None
    place = _checked_layer(layer, config, model.masked_lm.config, distance)
    special = {"bos": dictionary.bos(), "eos": dictionary.eos(), "pad": dictionary.pad()}
    if lm is None:
        lm = MaskedLm(hf_folder.load_masked_lm(source))
        frozen = FrozenLm(lm, layer=place, **special)
    else:
        frozen = FrozenLm.copy_of(lm, layer=place, **special)
    _tell(named, source, model, frozen, place)
    return frozen


def layer_number(layer: int, layers: int) -> int:
    """0 … ``layers`` for a layer that may be counted from the end.

    Raises:
        UserError: there is no such layer.
    """
    if not -layers - 1 <= layer <= layers:
        raise UserError(
            f"--distill-layer {layer}: the teacher has {layers} layers; give 0 (embeddings) … {layers}, or -1 (last) … "
            f"{-layers - 1} (embeddings)"
        )
    return layer % (layers + 1)


def _checked_layer(layer: int, config: Any, student: Any, distance: str) -> int | None:
    place = layer_number(layer, config.num_hidden_layers)
    problems: list[str] = []
    if distance == "kl" and place != config.num_hidden_layers:
        problems.append(
            f"--distill-layer {layer}: --distill-distance kl compares output distributions, which come from the last "
            "layer; leave the layer out, or choose cosine or mse"
        )
    if distance != "kl" and config.hidden_size != student.hidden_size:
        problems.append(
            f"--teacher: its states are {config.hidden_size} wide, the model's {student.hidden_size}; "
            f"--distill-distance {distance} needs equal widths (kl does not)"
        )
    raise_all(problems)
    return None if distance == "kl" else place


def _tell(named: str, source: str | None, model: Any, frozen: FrozenLm, place: int | None) -> None:
    what = "output distributions" if place is None else f"layer {place}"
    logger.info("embedding distillation: the teacher is %s, %s", named, what)
    if source is None or looks_untrained(frozen.masked_lm):
        logger.warning(
            "embedding distillation: the teacher (%s) has random weights and knows nothing; give --teacher, or --pmlm, "
            "a pretrained LM",
            named,
        )
    elif model.cfg.random_init:
        logger.warning(
            "embedding distillation: the model starts from random weights (--random-init); the teacher has those of %s",
            named,
        )


def warn_about_start(start: int, max_updates: Sequence[int] | int) -> None:
    """Say so where distillation would begin after the training's end."""
    end = max_updates if isinstance(max_updates, int) else max(max_updates)
    if 0 < end <= start:
        logger.warning(
            "--distill-start-update %d is not before --max-update %d: this training ends without distillation",
            start,
            end,
        )
