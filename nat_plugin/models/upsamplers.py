"""The registry of up-samplers: ``--upsampler NAME``. The maths is in :mod:`nat_plugin.upsampling`.

A new one: subclass :class:`Upsampler`, decorate with ``@register_upsampler("name")``, import it from your user dir.
"""

from typing import Any

from fairseq.registry import REGISTRIES, setup_registry
from torch import Tensor

from nat_plugin.upsampling import duplicate_tokens, exact_ratio, insert_masks
from plugin_common.errors import UserError


class Upsampler:
    """From the source to the positions that emit labels.

    Args:
        cfg: the model's configuration (``upsample_ratio``, ``mask_placement``).
        mask, pad: ids of these symbols.

    Attributes:
        takes_width: ``__call__`` takes ``width=``, too: the number of positions T that the host knows beforehand (at
            least the longest row's), so that it need not wait for the device; None takes the longest row.
    """

    takes_width = False

    def __init__(self, cfg: Any, *, mask: int, pad: int) -> None:
        exact_ratio(cfg.upsample_ratio)
        self.ratio: float = cfg.upsample_ratio
        self.placement = str(getattr(cfg.mask_placement, "value", cfg.mask_placement))
        self.mask = mask
        self.pad = pad

    def __call__(self, tokens: Tensor, lengths: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """``tokens [B, S]`` without ``<s>`` and ``</s>``, right-padded → ``([B, T], [B])``, T <= ``max_length``."""
        raise NotImplementedError("an up-sampler defines __call__")

    def added(self, upsampled: Tensor) -> Tensor:
        """``[B, T]`` bool: the positions of ``__call__``'s result that glancing training may overwrite without taking
        a source token away; here MASKs and repeats of the position before. Padding may be among them.
        """
        added = upsampled == self.mask
        added[:, 1:] |= upsampled[:, 1:] == upsampled[:, :-1]
        return added


_, register_upsampler, UPSAMPLERS, _ = setup_registry("--upsampler", base_class=Upsampler)
# fairseq would also make the registry a top-level group of its configuration, which has fixed groups. The choice
# belongs to the architecture (it travels in the checkpoint): the option is declared there and the group taken back.
REGISTRIES.pop("upsampler", None)


def build_upsampler(cfg: Any, *, mask: int, pad: int) -> Upsampler:
    """The up-sampler that ``cfg.upsampler`` names.

    Raises:
        UserError: an unknown name, or a ratio that is no number of at least 1.
    """
    if cfg.upsampler not in UPSAMPLERS:
        raise UserError(f"--upsampler {cfg.upsampler}: unknown; registered are {', '.join(sorted(UPSAMPLERS))}")
    try:
        return UPSAMPLERS[cfg.upsampler](cfg, mask=mask, pad=pad)
    except ValueError as error:
        raise UserError(f"--upsample-ratio {cfg.upsample_ratio}: {error}") from error


@register_upsampler("mask_insertion")
class MaskInsertion(Upsampler):
    """Source tokens stay, added positions hold MASK (arXiv 2306.06345)."""

    takes_width = True

    def __call__(
        self, tokens: Tensor, lengths: Tensor, max_length: int, width: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :func:`nat_plugin.upsampling.insert_masks`."""
        return insert_masks(
            tokens,
            lengths,
            self.ratio,
            mask=self.mask,
            pad=self.pad,
            placement=self.placement,  # type: ignore[arg-type]
            max_length=max_length,
            width=width,
        )

    def added(self, upsampled: Tensor) -> Tensor:
        """The MASKs: a source may have equal neighbours of its own."""
        return upsampled == self.mask


@register_upsampler("token_duplication")
class TokenDuplication(Upsampler):
    """Every token repeated; the paper's baseline."""

    takes_width = True

    def __call__(
        self, tokens: Tensor, lengths: Tensor, max_length: int, width: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :func:`nat_plugin.upsampling.duplicate_tokens`."""
        return duplicate_tokens(tokens, lengths, self.ratio, pad=self.pad, max_length=max_length, width=width)
