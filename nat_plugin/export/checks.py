"""Does an export translate as fairseq does? Tokens compared sentence by sentence, scores where references are there."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from nat_plugin.export.evaluation_set import EvaluationSet
from nat_plugin.export.translator import Translator
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common.errors import UserError

BATCH_TOKENS = 4000
LARGEST_LOSS = 0.3
"""BLEU points that int8 may lose before the export says so."""
MOST_DIFFERENT = 0.001
"""Share of sentences that float32 may translate otherwise than fairseq: ties that rounding decides, no more."""
LEAST_EQUAL = 0.5
"""Share of sentences that int8 should translate as fairseq does, where no BLEU tells how good the others are."""


@dataclass(frozen=True)
class Outcome:
    """How one precision does.

    Attributes:
        precision: ``fairseq`` for the checkpoint itself, else that of the exported model.
        sentences: how many were translated; ``equal`` of them to the very tokens of fairseq; ``empty`` to none.
        bleu, chrf, signature: sacreBLEU's scores from 0 to 100, None without references; the signature of BLEU.
    """

    precision: str
    sentences: int
    equal: int
    empty: int
    bleu: float | None
    chrf: float | None
    signature: str | None

    def line(self) -> str:
        """For people."""
        scores = "" if self.bleu is None else f"; BLEU {self.bleu:.2f}, chrF2 {self.chrf:.2f}"
        if self.precision == "fairseq":
            return f"fairseq: {self.sentences:,} sentences{scores}"
        return f"{self.precision}: {self.equal:,} of {self.sentences:,} sentences have the tokens of fairseq{scores}"

    def as_dict(self) -> dict[str, Any]:
        """For ``export.json``."""
        return asdict(self)


def fairseq_tokens(model: Any, task: Any, sources: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What fairseq-generate gives, ids without ``</s>``, in order."""
    eos = task.source_dictionary.eos()
    tensors = [torch.tensor([*source.tolist(), eos]) for source in sources]
    dataset = task.build_dataset_for_inference(tensors, [len(tensor) for tensor in tensors])
    generator = task.build_generator([model], Namespace())  # as in validation: without scores
    found: dict[int, np.ndarray] = {}
    batches = task.get_batch_iterator(dataset, max_tokens=BATCH_TOKENS, ignore_invalid_inputs=True, num_workers=0)
    for sample in batches.next_epoch_itr(shuffle=False):
        hypotheses = task.inference_step(generator, [model], sample)
        for index, (best, *_) in zip(sample["id"].tolist(), hypotheses, strict=True):
            found[index] = best["tokens"][:-1].numpy().astype(np.int64)
    return [found[index] for index in range(len(sources))]


def compare(
    data: EvaluationSet,
    expected: Sequence[np.ndarray],
    translators: Sequence[Translator],
    tokenizer: PieceTokenizer,
    symbols: Sequence[str],
) -> list[Outcome]:
    """fairseq's outcome and that of each translator.

    Args:
        expected: fairseq's tokens of each sentence; symbols: those of the dictionary by id.
    """

    def outcome(name: str, tokens: Sequence[np.ndarray]) -> Outcome:
        equal = sum(np.array_equal(own, other) for own, other in zip(tokens, expected, strict=True))
        texts = tokenizer.decode_lines(" ".join(symbols[i] for i in row.tolist()) for row in tokens)
        empty = sum(len(row) == 0 for row in tokens)
        return Outcome(name, len(tokens), equal, empty, *_scores(texts, data.references))

    return [
        outcome("fairseq", expected),
        *(outcome(translator.precision, translator.translate_ids(data.sources)) for translator in translators),
    ]


def _scores(texts: list[str], references: list[str] | None) -> tuple[float | None, float | None, str | None]:
    if references is None:
        return None, None, None
    from sacrebleu.metrics import BLEU, CHRF

    bleu = BLEU()
    score = bleu.corpus_score(texts, [references]).score
    return score, CHRF().corpus_score(texts, [references]).score, str(bleu.get_signature())


def warnings_of(outcomes: Sequence[Outcome]) -> list[str]:
    """What a user should hear of: differences, and checks that show little.

    Raises:
        UserError: the float32 model differs from fairseq by more than ties can explain.
    """
    fairseq, *others = outcomes
    told = []
    if fairseq.sentences and fairseq.empty == fairseq.sentences:
        told.append("the model translates every sentence of the check to nothing, so that the check shows little")
    for one in others:
        different = one.sentences - one.equal
        if one.precision == "fp32":
            if different > max(1, MOST_DIFFERENT * one.sentences):
                raise UserError(
                    f"the float32 model translates {different:,} of {one.sentences:,} sentences otherwise than "
                    "fairseq; nothing was written. Please report it, with your library versions"
                )
            if different:
                told.append(
                    f"fp32: {different:,} of {one.sentences:,} sentences differ from fairseq's, as near-ties may"
                )
        else:
            told += _losses(one, fairseq)
    return told


def _losses(one: Outcome, fairseq: Outcome) -> list[str]:
    """Of a quantised model."""
    advice = (
        "use fp32 (nat translate --precision fp32), or try --reduce-range if this processor lacks VNNI instructions"
    )
    if one.bleu is None or fairseq.bleu is None:
        if one.equal < LEAST_EQUAL * one.sentences:
            return [
                f"{one.precision}: only {one.equal:,} of {one.sentences:,} sentences have the tokens of fairseq, and "
                f"no reference tells how good the others are (--test-reference); {advice}"
            ]
        return []
    lost = fairseq.bleu - one.bleu
    if lost > LARGEST_LOSS:
        return [f"{one.precision} loses {lost:.2f} BLEU against fairseq, more than {LARGEST_LOSS}; {advice}"]
    return []
