"""From a checkpoint and a sentence pair to the numbers of :class:`nat_plugin.figures.alignment.Alignment`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nat_plugin.ctc import is_feasible, local_ctc_loss, local_labels, local_log_probs, viterbi_path
from nat_plugin.embedding_distillation import AlignmentMethod, align, at_positions, cosine_distance
from nat_plugin.figures.alignment import Alignment
from nat_plugin.models.from_checkpoint import load_one_pass_model
from nat_plugin.models.frozen_lm import FrozenLm
from nat_plugin.models.masked_lm import MaskedLm
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common import hf_folder
from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, read_dictionary
from plugin_common.errors import UserError


@dataclass(frozen=True)
class Pair:
    """A sentence pair as ids ``[1, S]`` (with ``</s>``) and ``[1, L]`` (without)."""

    source: Tensor
    target: Tensor


class OnePassModel:
    """A checkpoint of ``--task ctc_nat``, its dictionary from a data-bin.

    Raises:
        UserError: no such file, a damaged one, or one of another task or dictionary.
    """

    def __init__(self, checkpoint: str, data_bin: str) -> None:
        model, task, _ = load_one_pass_model(checkpoint, data_bin)
        self.model: Any = model.float()
        self.dictionary: Any = task.target_dictionary

    def pair_of_texts(self, pmlm: str, source: str, target: str) -> Pair:
        """Plain text, segmented by the PMLM folder's tokenizer."""
        hf_folder.check_pmlm_folder(pmlm)
        tokenizer = PieceTokenizer.from_folder(pmlm)
        return self.pair_of_tokens(tokenizer.encode(source), tokenizer.encode(target))

    def pair_of_tokens(self, source: str, target: str) -> Pair:
        """Tokens joined by spaces."""
        ids = [self.dictionary.encode_line(text, add_if_not_exist=False).long()[None] for text in (source, target)]
        return Pair(ids[0], ids[1][:, :-1])

    def align(self, pair: Pair, method: AlignmentMethod, teacher: str | None = None) -> Alignment:
        """One forward pass, the best path of the target and its alignment for distillation.

        Args:
            teacher: PMLM folder whose states the model's are compared with.

        Raises:
            UserError: an empty side, a source too long, a target that the positions cannot carry, or a teacher with
                another dictionary.
        """
        self._check_lengths(pair)
        targets, source_lengths = pair.target, torch.tensor([pair.source.size(1)])
        target_lengths = torch.tensor([targets.size(1)])
        blank = self.model.blank
        with torch.inference_mode():
            output = self.model(pair.source, source_lengths)
            upsampled, _ = self.model.upsampler(pair.source[:, :-1], source_lengths - 1, self.model.max_upsampled)
            self._check_feasible(targets, output.lengths, target_lengths)
            lengths = (output.lengths, target_lengths)
            log_probs = local_log_probs(output.hidden, output.weight, output.bias, targets, *lengths, blank=blank)
            loss, _ = local_ctc_loss(log_probs, targets, *lengths, blank=blank)
            path = viterbi_path(log_probs, local_labels(targets, target_lengths), *lengths, blank=0)
            positions = align(method, log_probs, targets, *lengths)
            labels = self.model.logits(output).argmax(dim=-1)
            similarities = None if teacher is None else self._similarities(teacher, output.states, targets, positions)
        return Alignment(
            source=self._tokens(upsampled[0], hidden=self.dictionary.index("<mask>")),
            output=self._tokens(labels[0], hidden=blank),
            target=[self.dictionary[i] for i in targets[0].tolist()],
            probabilities=log_probs[0].double().exp().numpy(),
            path=path[0].numpy(),
            positions=positions[0].numpy(),
            method=method,
            nats=float(loss[0]),
            similarities=similarities,
        )

    def translation(self, alignment: Alignment) -> list[str]:
        """The tokens that the output at the positions collapses to."""
        labels = alignment.output
        return [
            label
            for before, label in zip([None, *labels[:-1]], labels, strict=True)
            if label is not None and label != before
        ]

    def _tokens(self, ids: Tensor, *, hidden: int) -> list[str | None]:
        return [None if i == hidden else self.dictionary[i] for i in ids.tolist()]

    def _check_lengths(self, pair: Pair) -> None:
        most, tokens = self.model.max_upsampled, pair.source.size(1) - 1
        if tokens == 0 or pair.target.size(1) == 0:
            raise UserError(f"the {'source' if tokens == 0 else 'target'} has no token; give a text or another --line")
        if tokens > most:
            raise UserError(f"the source has {tokens} tokens, the model reads {most}; give a shorter one")

    def _check_feasible(self, targets: Tensor, positions: Tensor, target_lengths: Tensor) -> None:
        blank = self.model.blank
        if bool(is_feasible(targets, positions, target_lengths, blank=blank)[0]):
            return
        if bool((targets == blank).any()):
            raise UserError(f"the target holds {self.dictionary[blank]}, the model's blank; leave it out")
        repeats = int((targets[:, 1:] == targets[:, :-1]).sum())
        raise UserError(
            f"the target cannot be aligned: its {targets.size(1)} tokens, {repeats} of them equal to the one before, "
            f"need {targets.size(1) + repeats} positions, the up-sampled source has {int(positions[0])}; give a "
            "shorter target, or train with a higher --upsample-ratio"
        )

    def _similarities(self, folder: str, states: Tensor, targets: Tensor, positions: Tensor) -> Any:
        """``[L]`` cosines of the last layer's states with the teacher's; NaN where there is none."""
        hf_folder.check_pmlm_folder(folder)
        symbols = [*FAIRSEQ_SYMBOLS, *(symbol for symbol, _ in read_dictionary(Path(folder) / "dict.txt"))]
        if symbols != list(self.dictionary.symbols):
            raise UserError(
                f"--teacher {folder}: its dict.txt ({len(symbols)} symbols) is not the checkpoint's dictionary "
                f"({len(self.dictionary)} symbols); give the PMLM folder that the data were made with"
            )
        lm = MaskedLm(hf_folder.load_masked_lm(folder))
        if lm.config.hidden_size != states.size(-1):
            raise UserError(
                f"--teacher {folder}: its states are {lm.config.hidden_size} wide, the checkpoint's {states.size(-1)}; "
                "only states of equal width can be compared"
            )
        d = self.dictionary
        teacher = FrozenLm(lm, layer=len(lm.layers), bos=d.bos(), eos=d.eos(), pad=d.pad())
        reading = teacher.read(targets, torch.tensor([targets.size(1)]), states)
        read = torch.arange(targets.size(1))[None] < reading.lengths[:, None]
        aligned = read & (positions >= 0)
        places = torch.arange(targets.size(1))[None].masked_fill(~aligned, -1)
        distances = cosine_distance(at_positions(states, positions.masked_fill(~aligned, -1)),
                                    at_positions(reading.states, places))  # fmt: skip
        similarities = np.full(targets.size(1), np.nan)
        similarities[aligned[0].numpy()] = 1 - distances.double().numpy()
        return similarities
