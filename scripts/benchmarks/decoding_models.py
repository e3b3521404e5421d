"""Models and sentences of the decoding benchmark: sizes, random sentences, batches, checkpoints with random weights.

All systems of a side read the same fairseq checkpoint, written as training writes it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE, TARGET = "src", "tgt"
"""The languages of the random models: names of the dictionary files."""


@dataclass(frozen=True)
class Shape:
    """Layers (of encoder and decoder, or of the one-pass model), width and heads; feed-forward width is four times."""

    encoder_layers: int
    width: int
    heads: int
    decoder_layers: int = 0


@dataclass(frozen=True)
class Size:
    """A pair of models and what they read.

    Attributes:
        labels: symbols of the dictionary that both share.
        tokens: of each sentence of the set ``even``, ``</s>`` not counted; a ragged set's have that on average.
        ratio: positions per source token of the one-pass model.
    """

    labels: int
    ours: Shape
    theirs: Shape
    tokens: int = 25
    ratio: float = 2.0


SIZES = {
    "base": Size(32_000, Shape(12, 768, 12), Shape(6, 512, 8, decoder_layers=6)),  # XLM-R base, Transformer base
    "small": Size(32_000, Shape(6, 512, 8), Shape(3, 512, 8, decoder_layers=3)),
    "try": Size(600, Shape(2, 32, 2), Shape(1, 32, 2, decoder_layers=1), tokens=8),
}
SETS = ("even", "ragged")


@dataclass(frozen=True)
class Batch:
    """Source sentences as token ids without ``</s>``, and the target's length to force (None: the model decides)."""

    rows: list[list[int]]
    target_length: int | None


def random_sentences(size: Size, name: str, count: int) -> list[list[int]]:
    """``count`` sentences of ordinary words; those of ``ragged`` have from 0.4 to 1.6 times the tokens, evenly."""
    chosen = random.Random(0)
    least, most = (size.tokens, size.tokens) if name == "even" else (int(0.4 * size.tokens), int(1.6 * size.tokens))
    lengths = [round(least + (most - least) * k / max(1, count - 1)) for k in range(count)]
    chosen.shuffle(lengths)
    return [[chosen.randrange(4, size.labels - 1) for _ in range(n)] for n in lengths]  # the last label is <mask>


def batches(rows: Sequence[list[int]], sentences: int, *, forced: bool) -> list[Batch]:
    """Batches of sentences of like length; with ``forced`` their targets have the mean length of their sources."""
    by_length = sorted(rows, key=len)
    groups = [by_length[start : start + sentences] for start in range(0, len(by_length), sentences)]
    return [Batch(group, round(sum(map(len, group)) / len(group)) if forced else None) for group in groups]


@dataclass(frozen=True)
class ModelFiles:
    """A fairseq checkpoint, and the folder with its dictionaries (a data-bin, for trained ones)."""

    checkpoint: str
    data: str
    source_lang: str = SOURCE
    target_lang: str = TARGET


def options_of_ours(size: Size) -> list[str]:
    """fairseq-train's options for the one-pass model."""
    return [
        *("--task", "ctc_nat", "--arch", "ctc_pmlm", "--criterion", "ctc_nat_loss", "--random-init"),
        *("--upsample-ratio", str(size.ratio), "--encoder-layers", str(size.ours.encoder_layers)),
        *("--encoder-embed-dim", str(size.ours.width), "--encoder-ffn-embed-dim", str(4 * size.ours.width)),
        *("--encoder-attention-heads", str(size.ours.heads)),
    ]


def options_of_theirs(size: Size) -> list[str]:
    """fairseq-train's options for its own Transformer."""
    words = ["--task", "translation", "--arch", "transformer", "--share-all-embeddings"]
    for side, layers in (("encoder", size.theirs.encoder_layers), ("decoder", size.theirs.decoder_layers)):
        words += [f"--{side}-layers", str(layers), f"--{side}-embed-dim", str(size.theirs.width)]
        words += [f"--{side}-ffn-embed-dim", str(4 * size.theirs.width)]
        words += [f"--{side}-attention-heads", str(size.theirs.heads)]
    return words


def random_model(size: Size, side: str, folder: Path) -> tuple[Any, Any, Any]:
    """``(configuration, task, model)`` of ``ours`` or ``theirs`` with random weights; writes the dictionaries."""
    import torch

    import nat_plugin

    nat_plugin.register()
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    words = make_dictionary(size.labels)
    for language in (SOURCE, TARGET):
        words.save(str(folder / f"dict.{language}.txt"))
    own = options_of_ours(size) if side == "ours" else options_of_theirs(size)
    line = [str(folder), "--source-lang", SOURCE, "--target-lang", TARGET, "--max-tokens", "4000", *own]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), line))
    torch.manual_seed(0)
    task = tasks.setup_task(cfg.task)
    return cfg, task, task.build_model(cfg.model).eval()


def save_checkpoint(cfg: Any, model: Any, path: str | Path) -> None:
    """What fairseq's trainer saves, without an optimizer."""
    import torch

    state = {
        "args": None,
        "cfg": cfg_as_saved(cfg),
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [
            {"criterion_name": "none", "optimizer_name": "none", "lr_scheduler_state": {}, "num_updates": 0}
        ],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": 0.0},
        "last_optimizer_state": None,
    }
    torch.save(state, path)


def cfg_as_saved(cfg: Any) -> Any:
    """The configuration as fairseq's trainer puts it into a checkpoint."""
    from omegaconf import DictConfig, OmegaConf

    if not OmegaConf.is_config(cfg):
        return cfg
    assert isinstance(cfg, DictConfig)
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)


def make_dictionary(labels: int) -> Any:
    """A fairseq dictionary of ``labels`` symbols, ``<mask>`` the last one."""
    from scripts.benchmarks.training_step import dictionary

    return dictionary(labels)
