"""Up-sampling in numpy: the same functions as :mod:`nat_plugin.upsampling`, for a translator without torch."""

from fractions import Fraction

import numpy as np

from nat_plugin.export.folder import Settings


class Upsampler:
    """From source ids to the model's input, as the exported model was trained.

    Args:
        settings: of the export folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ratio = Fraction(str(settings.ratio)).limit_denominator(10_000)

    def length(self, tokens: int) -> int:
        """Positions of a source of so many tokens, ``<s>`` not counted; at most ``positions``."""
        return min(-(-tokens * self._ratio.numerator // self._ratio.denominator), self._settings.positions)

    def __call__(self, sources: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The batch as a model reads it.

        Args:
            sources: ids of each sentence, without ``<s>`` and ``</s>``, at most ``positions`` of them.

        Returns:
            ``(tokens [B, T + 1] int64: <s>, the up-sampled source, padding; lengths [B] int64, <s> counted)``.
        """
        settings = self._settings
        lengths = np.array([self.length(len(source)) for source in sources], dtype=np.int64)
        tokens = np.full((len(sources), 1 + int(lengths.max(initial=0))), settings.pad, dtype=np.int64)
        tokens[:, 0] = settings.bos
        for row, source, length in zip(tokens, sources, lengths.tolist(), strict=True):
            row[1 : 1 + length] = self._row(source, length)
        return tokens, lengths + 1

    def _row(self, source: np.ndarray, length: int) -> np.ndarray:
        """One source, up-sampled to ``length`` positions."""
        settings, count = self._settings, len(source)
        if settings.upsampler == "token_duplication":
            starts = np.zeros(length, dtype=np.int64)
            starts[self._places(count, length)] = 1
            return source[starts.cumsum() - 1] if count else source
        row = np.full(length, settings.mask, dtype=np.int64)
        if settings.placement == "uniform":
            row[self._places(count, length)] = source
        elif settings.placement == "right":
            row[:count] = source
        else:
            row[length - count :] = source
        return row

    def _places(self, count: int, length: int) -> np.ndarray:
        """Where the tokens sit: see :func:`nat_plugin.upsampling.token_positions`."""
        numerator, denominator = self._ratio.numerator, self._ratio.denominator
        if length * denominator < count * numerator:  # the ratio was lowered to what fits
            numerator, denominator = length, max(count, 1)
        return (2 * np.arange(count, dtype=np.int64) * numerator + denominator) // (2 * denominator)
