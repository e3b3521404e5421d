"""What can be wrong with a data-bin folder and its sentences, told before training or translating begins."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import data_utils
from numpy.typing import NDArray

from nat_plugin.tasks.translation_dataset import line_list
from nat_plugin.upsampling import upsampled_lengths
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)


def check_data_folder(cfg: Any) -> None:
    """Raise ``UserError`` unless the folder, its language pair and its dictionaries are there."""
    if cfg.left_pad_source:
        raise UserError("--left-pad-source: ctc_nat counts positions from the left; leave the option out")
    if not cfg.data:
        raise UserError("the data folder is missing: give the --destdir of fairseq-preprocess as first argument")
    folder = Path(utils.split_paths(cfg.data)[0])
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the --destdir of fairseq-preprocess")
    source, target = cfg.source_lang, cfg.target_lang
    if source is None or target is None:
        source, target = data_utils.infer_language_pair(str(folder))
    if source is None or target is None:
        raise UserError(f"{folder}: no split.src-tgt.* file tells the languages; give --source-lang and --target-lang")
    raise_all(
        f"{folder / f'dict.{lang}.txt'} is missing; run fairseq-preprocess with --srcdict and --tgtdict"
        for lang in dict.fromkeys((source, target))
        if not (folder / f"dict.{lang}.txt").is_file()
    )


def report_long_sources(split: str, sizes: NDArray[np.int64], longest: int) -> None:
    """Name the lines of sources with more than ``longest`` tokens, ``</s>`` included."""
    long = np.flatnonzero(sizes > longest)
    if len(long):
        logger.warning(
            "%s: %d of %d sources are longer than %d tokens and were cut there: %s",
            split, len(long), len(sizes), longest - 1, line_list(long),
        )  # fmt: skip


def check_targets(
    split: str, src_sizes: NDArray[np.int64], tgt_sizes: NDArray[np.int64], *, ratio: float, most: int, keep: bool
) -> None:
    """Refuse or name targets that have more tokens than their source has up-sampled positions.

    Args:
        src_sizes, tgt_sizes: tokens of each sentence, ``</s>`` included.
        ratio: up-sampled positions per source token.
        most: positions that the model has for the up-sampled source.
        keep: let targets pass that are longer than ``most``.

    Raises:
        UserError: a target longer than ``most`` without ``keep``, or not one target that fits.
    """
    sources = torch.from_numpy(np.minimum(src_sizes - 1, most).astype(np.int64))
    room = upsampled_lengths(sources, ratio, most).numpy()
    hopeless = np.flatnonzero(tgt_sizes - 1 > most)
    if len(hopeless) and not keep:
        raise UserError(
            f"{split}: {len(hopeless)} target(s) have more than {most} tokens, the most that any up-sampled source "
            f"can carry: {line_list(hopeless)}; remove or split these lines, or pass --impossible-targets keep to "
            "train on the rest (they are counted as infeasible)"
        )
    tight = np.flatnonzero(tgt_sizes - 1 > room)
    if len(tight) == len(tgt_sizes) > 0 and not keep:
        raise UserError(
            f"{split}: no target fits its source up-sampled {ratio} times, so nothing could be learnt; "
            "raise --upsample-ratio, check that source and target belong together, or pass --impossible-targets keep"
        )
    if len(tight):
        logger.warning(
            "%s: %d of %d targets (%.2f %%) are longer than their source up-sampled %s times and add no loss "
            "(more if they repeat tokens; the log counts all as infeasible): %s",
            split, len(tight), len(tgt_sizes), 100 * len(tight) / len(tgt_sizes), ratio, line_list(tight),
        )  # fmt: skip
