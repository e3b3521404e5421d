"""A process whose batches are over at an epoch's end runs one again, without gradient; it must count for nothing."""

from typing import Any

from torch import Tensor


class StandInsCountForNothing:
    """For a fairseq task: put before its base class."""

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> tuple[Tensor, Any, dict[str, Any]]:
        """As fairseq's; a stand-in (``ignore_grad``) has no sample size, and its counts are 0."""
        step: Any = super().train_step  # type: ignore[misc]
        loss, sample_size, log = step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if ignore_grad:
            sample_size, log = 0 * sample_size, {name: 0 * value for name, value in log.items()}
        return loss, sample_size, log
