"""What a run over requests did."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        answered: results by status.
        failed: requests given up, by reason.
        retried: attempts that failed and were repeated, by reason.
        left_cut: answers kept as ``max_tokens`` cut them, for their continuation failed, by reason.
        stopped: why the run ended early; None where it went through.
        interrupted: whether a signal stopped it.
    """

    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    left_cut: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None
    interrupted: bool = False
