"""What both sides of sft.py are given."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Of a training.

    Attributes:
        tuning: ``lora`` or ``full``.
        dtype: of weights, gradients and the optimizer's state, ``float32`` or ``bfloat16``.
        max_length: most tokens of a pair.
        tokens: about so many are read before an update.
        lr: of AdamW, constant; no weight decay, gradients clipped to norm 1.
        lora_rank, lora_alpha: of the adapters, on all linear layers but the head.
    """

    tuning: str
    dtype: str
    max_length: int = 512
    tokens: int = 2048
    lr: float = 1e-5
    lora_rank: int = 8
    lora_alpha: int = 16

    @property
    def name(self) -> str:
        """As in the report: ``lora_fp32``."""
        return f"{self.tuning}_{ {'float32': 'fp32', 'bfloat16': 'bf16'}[self.dtype] }"
