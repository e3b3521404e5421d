"""How an update of so many tokens is shared out over GPUs and accumulated."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Processes, tokens that each takes at once, steps that are accumulated."""

    processes: int
    tokens: int
    steps: int


def spread(update: int, *, longest: int, at_once: int, gpus: int) -> Spread:
    """Share out an update; each batch has room for a text of ``longest`` tokens.

    Where there are too many GPUs for that, some are left out: the update keeps its size.

    Args:
        update: tokens of an update.
        longest: see above.
        at_once: most tokens that a GPU (or the CPU) takes; at least twice ``longest``, or accumulation could leave a
            batch too little room.
        gpus: 0 is the CPU.
    """
    processes = min(max(1, gpus), max(1, update // longest))
    steps = math.ceil(update / (processes * at_once))
    return Spread(processes, max(longest, round(update / (processes * steps))), steps)


def left_out(update: int, *, longest: int, at_once: int, gpus: int) -> str:
    """What is to be told of GPUs that a training cannot use, if there are any."""
    used = spread(update, longest=longest, at_once=at_once, gpus=gpus).processes
    if used >= gpus:
        return ""
    return (
        f", on {used} of {gpus} GPUs: an update's {update:,} tokens are no more batches with room for the longest pair "
        f"({longest} tokens)"
    )
