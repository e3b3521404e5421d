"""The beam search of an export folder's translator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nat_plugin.decoding.beam_search import BeamOptions, ctc_beam_search
from nat_plugin.decoding.ngram_lm import NgramLm
from nat_plugin.export.arguments import CANDIDATES
from nat_plugin.export.folder import Settings
from nat_plugin.export.session import Labels
from plugin_common.errors import UserError


class Search:
    """CTC beam search over what a model gives; see :class:`nat_plugin.decoding.beam_search.BeamOptions`.

    Args:
        settings: of the export folder.
        symbols: the symbol of each id, which the language model's words are compared with.

    Raises:
        UserError: an option is out of range, or the language model cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        symbols: Sequence[str],
        *,
        beam: int,
        candidates: int,
        lm: str | Path | None,
        lm_weight: float,
        token_bonus: float,
    ) -> None:
        if candidates > max(settings.symbols, CANDIDATES):  # the default holds for any model
            raise UserError(f"candidates {candidates}: expected at most the model's {settings.symbols:,} symbols")
        self._settings = settings
        self._options = BeamOptions(
            beam, candidates, None if lm is None else NgramLm.from_file(lm, symbols), lm_weight, token_bonus
        )
        self.candidates = min(candidates, settings.symbols)

    def __call__(self, labels: Labels, lengths: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray]]:
        """Ids, score (log-probability divided by positions) and token scores of each sentence.

        Args:
            labels: the model's ``candidates`` best labels at each position.
            lengths: ``[B]`` real positions, at least 1.
        """
        settings = self._settings
        found = ctc_beam_search(
            labels.log_probs,
            labels.labels,
            labels.blank_log_probs,
            lengths,
            blank=settings.blank,
            pad=settings.pad,
            options=self._options,
        )
        means = found.scores / lengths
        return [
            (ids[:count], score, token_scores[:count])
            for ids, count, score, token_scores in zip(
                found.tokens, found.lengths.tolist(), means.tolist(), found.token_scores, strict=True
            )
        ]
