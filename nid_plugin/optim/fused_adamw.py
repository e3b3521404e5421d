"""``--optimizer fused_adamw``: AdamW (Loshchilov & Hutter 2019) in one pass over the parameters, by torch."""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II

from plugin_common.errors import UserError, raise_all


@dataclass
class FusedAdamWConfig(FairseqDataclass):
    """Options of the optimizer; named as those of fairseq's ``adam``."""

    adam_betas: str = field(
        default="(0.9, 0.95)",
        metadata={
            "help": "decay of the means of gradients and of their squares (default: (0.9, 0.95)). With bfloat16 "
            "parameters keep the second at 0.99 or less: a smaller change of a mean is lost in rounding"
        },
    )
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the denominator (default: 1e-8)"})
    weight_decay: float = field(
        default=0.0, metadata={"help": "share of a parameter taken off at each update, times the rate (default: 0)"}
    )
    lr: list[float] = II("optimization.lr")  # noqa: RUF009 (a text, put in by omegaconf)


def parse_betas(text: Any) -> tuple[float, float]:
    """Two numbers from ``(0.9, 0.95)``.

    Raises:
        UserError: they are not two numbers from 0 to below 1.
    """
    try:
        values = ast.literal_eval(text) if isinstance(text, str) else tuple(text)
        first, second = (float(value) for value in values)
    except (ValueError, TypeError, SyntaxError) as error:
        raise UserError(f'--adam-betas {text}: expected two numbers like "(0.9, 0.95)"') from error
    raise_all(
        f"--adam-betas {text}: {beta} is not at least 0 and less than 1"
        for beta in (first, second)
        if not 0 <= beta < 1
    )
    return first, second


@register_optimizer("fused_adamw", dataclass=FusedAdamWConfig)
class FusedAdamW(FairseqOptimizer):
    """``torch.optim.AdamW(fused=True)``; its state has the precision of the parameters it is given.

    So it holds 8 bytes a parameter under ``--bf16`` (beside the copy of the weights in float32) and without flags, and
    4 under ``--memory-efficient-bf16``. The update itself is computed in float32.

    Raises:
        UserError: options that cannot be, or float16 parameters.
    """

    def __init__(self, cfg: FusedAdamWConfig, params: Iterable[torch.nn.Parameter]) -> None:
        super().__init__(cfg)
        parameters = list(params)
        if any(parameter.dtype == torch.float16 for parameter in parameters):
            raise UserError(
                "--optimizer fused_adamw would keep squares of gradients in float16, too narrow for them: give --fp16 "
                "or --memory-efficient-bf16 instead of --memory-efficient-fp16, or --optimizer adam"
            )
        self._optimizer = torch.optim.AdamW(parameters, fused=True, **self.optimizer_config)
        # Else fairseq puts a checkpoint's tensors back as they were read, on the CPU.
        self._optimizer.disable_mem_eff_fp16_loading_hack = True  # type: ignore[attr-defined]

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What replaces a checkpoint's own settings when training goes on."""
        rate = self.cfg.lr
        return {
            "lr": float(rate[0] if isinstance(rate, Sequence) else rate),
            "betas": parse_betas(self.cfg.adam_betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    @property
    def supports_memory_efficient_fp16(self) -> bool:
        """Asked for ``--memory-efficient-bf16``, too."""
        return True

    @property
    def supports_flat_params(self) -> bool:
        """Each number is updated by itself."""
        return True
