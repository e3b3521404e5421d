"""Up-sampling: from S source tokens to T >= S positions, each of which will emit one label or a blank.

Pure tensor functions; the source is right-padded and has no ``<s>`` or ``</s>``. MASK insertion is the method of
arXiv 2306.06345, section 3; token duplication its baseline.
"""

from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

Placement = Literal["uniform", "right", "left"]


def upsampled_lengths(lengths: Tensor, ratio: float, max_length: int | None = None) -> Tensor:
    """``ceil(ratio * length)``, lowered to ``max_length`` where it would pass it (the paper's dynamic ratio).

    Args:
        lengths: ``[B]`` int64 numbers of source tokens.
        ratio: positions per token, >= 1; taken as the decimal fraction that it prints as, so 2.2 means 11/5.
        max_length: positions that the model has for the up-sampled source, or None.

    Returns:
        ``[B]`` int64. A source longer than ``max_length`` gets ``max_length`` positions: truncate it first.
    """
    share = exact_ratio(ratio)
    wanted = (lengths * share.numerator + share.denominator - 1) // share.denominator
    return wanted if max_length is None else wanted.clamp(max=max_length)


def upsampled_width(most_tokens: int, ratio: float, max_length: int | None = None) -> int:
    """:func:`upsampled_lengths` of one length that the host knows."""
    share = exact_ratio(ratio)
    wanted = -(-most_tokens * share.numerator // share.denominator)
    return wanted if max_length is None else min(wanted, max_length)


def exact_ratio(ratio: float) -> Fraction:
    """The ratio as the decimal fraction that it prints as.

    Raises:
        ValueError: a ratio under 1 (positions would be fewer than tokens), infinite or not a number.
    """
    if not 1 <= ratio < float("inf"):
        raise ValueError(f"the up-sampling ratio must be a number of at least 1, got {ratio}")
    # The bound keeps products with positions far inside int64; 5/3 written out in full becomes 5/3 again.
    return Fraction(str(ratio)).limit_denominator(10_000)


def token_positions(
    lengths: Tensor, ratio: float, max_length: int | None = None, *, columns: int | None = None
) -> Tensor:
    """Where the tokens sit when MASKs are spread uniformly: token i at the place nearest to ``i * ratio``.

    Halves go up. For an integer ratio r that is ``i * r``: each token is followed by its r - 1 MASKs. In a row whose
    ratio had to be lowered, the lowered ratio T / S counts.

    Args:
        columns: S, where the host knows it; None takes max(lengths), for which the host waits for the device.

    Returns:
        ``[B, S]`` int64 with S = max(lengths) or ``columns``; entries past a row's length are meaningless. Within a row
        they rise strictly and stay under :func:`upsampled_lengths`.
    """
    share = exact_ratio(ratio)
    wanted = upsampled_lengths(lengths, ratio)
    got = upsampled_lengths(lengths, ratio, max_length)
    lowered = got < wanted
    numerator = torch.where(lowered, got, torch.full_like(got, share.numerator))[:, None]
    denominator = torch.where(lowered, lengths.clamp(min=1), torch.full_like(got, share.denominator))[:, None]
    place = torch.arange(_longest(lengths) if columns is None else columns, device=lengths.device)[None, :]
    return (2 * place * numerator + denominator) // (2 * denominator)


def insert_masks(
    tokens: Tensor,
    lengths: Tensor,
    ratio: float,
    *,
    mask: int,
    pad: int,
    placement: Placement = "uniform",
    max_length: int | None = None,
    width: int | None = None,
) -> tuple[Tensor, Tensor]:
    """MASK insertion: the source tokens stay, in order; the added positions hold ``mask``.

    Args:
        tokens: ``[B, S]`` int64, right-padded.
        lengths: ``[B]`` int64, 0 allowed.
        placement: ``uniform`` spreads the masks evenly between the tokens, ``right`` puts all of them after the source,
            ``left`` before it.
        width: T, where the host knows a number that no row exceeds (see :func:`upsampled_width`); None takes the
            longest row, for which the host waits for the device.

    Returns:
        ``(upsampled [B, T], lengths [B])`` with T the longest row or ``width``; positions past a row's length hold
        ``pad``.
    """
    new_lengths = upsampled_lengths(lengths, ratio, max_length)
    columns = None if width is None else tokens.size(1)
    width = _longest(new_lengths) if width is None else width
    if placement == "uniform":
        places = token_positions(lengths, ratio, max_length, columns=columns)
    else:
        places = torch.arange(tokens.size(1), device=tokens.device).expand_as(tokens)
        if placement == "left":
            places = places + (new_lengths - lengths)[:, None]
    tokens, places = tokens[:, : places.size(1)], places[:, : tokens.size(1)]
    real = _within(lengths, tokens.size(1))
    canvas = torch.full((tokens.size(0), width + 1), mask, dtype=tokens.dtype, device=tokens.device)
    canvas.scatter_(1, places.masked_fill(~real, width), tokens)  # column `width` takes what is padding
    return canvas[:, :width].masked_fill(~_within(new_lengths, width), pad), new_lengths


def duplicate_tokens(
    tokens: Tensor, lengths: Tensor, ratio: float, *, pad: int, max_length: int | None = None, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Token duplication: position t holds the token whose place is the last at or before t.

    For places see :func:`token_positions`, for shapes and ``width`` :func:`insert_masks`. An integer ratio r repeats
    every token r times.
    """
    new_lengths = upsampled_lengths(lengths, ratio, max_length)
    columns = None if width is None else tokens.size(1)
    width = _longest(new_lengths) if width is None else width
    places = token_positions(lengths, ratio, max_length, columns=columns)
    real = _within(lengths, places.size(1))
    starts = torch.zeros(tokens.size(0), width + 1, dtype=torch.int64, device=tokens.device)
    starts.scatter_(1, places.masked_fill(~real, width), real.long())
    owner = starts[:, :width].cumsum(dim=1) - 1
    if tokens.size(1) == 0:
        return tokens.new_zeros(tokens.size(0), 0), new_lengths
    repeated = tokens.gather(1, owner.clamp(min=0))
    return repeated.masked_fill(~_within(new_lengths, width), pad), new_lengths


def strip_last(tokens: Tensor, lengths: Tensor, *, symbol: int, pad: int) -> tuple[Tensor, Tensor]:
    """Drop ``symbol`` where it is a row's last token (fairseq ends each source with ``</s>``).

    Returns:
        ``(tokens [B, S], lengths [B])``: the dropped ones became ``pad``; the width stays.
    """
    if tokens.size(1) == 0:
        return tokens, lengths
    last = (lengths - 1).clamp(min=0)[:, None]
    ends = (tokens.gather(1, last) == symbol) & (lengths > 0)[:, None]
    kept = torch.where(ends, torch.full_like(last, pad, dtype=tokens.dtype), tokens.gather(1, last))
    return tokens.scatter(1, last, kept), lengths - ends.squeeze(1).long()


def _longest(lengths: Tensor) -> int:
    return int(lengths.max()) if len(lengths) else 0


def _within(lengths: Tensor, width: int) -> Tensor:
    """``[B, width]`` bool: which positions are real."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]
