"""Pairs that are too long: the prompt loses its beginning, then the completion its end."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin_common.errors import UserError

logger = logging.getLogger(__name__)

Lengths = NDArray[np.int64]

PROMPT_SHARE = 4
"""A quarter of the limit is kept for the prompt."""


@dataclass(frozen=True)
class Truncation:
    """How many tokens a pair may have.

    Attributes:
        max_tokens_per_pair: prompt (head included) and completion together; None for no limit.
    """

    max_tokens_per_pair: int | None

    def kept(
        self, prompt_lengths: Lengths, completion_lengths: Lengths, heads: Lengths, name: str
    ) -> tuple[Lengths, Lengths]:
        """What is kept of each pair of a split: tokens of the prompt, head included, and of the completion; logs it.

        Raises:
            UserError: the limit leaves no room.
        """
        if self.max_tokens_per_pair is None:
            return np.asarray(prompt_lengths), np.asarray(completion_lengths)
        after_head, completions = truncated(prompt_lengths, completion_lengths, heads, self.max_tokens_per_pair)
        prompts = np.minimum(heads, prompt_lengths) + after_head
        _log(name, self.max_tokens_per_pair, prompt_lengths - prompts, completion_lengths - completions)
        return prompts, completions


def truncated(prompt_length: Any, completion_length: Any, head: Any, limit: int) -> tuple[Any, Any]:
    """How many tokens of a prompt after its head, and of its completion, fit into ``limit``: numbers or arrays.

    A pair of more than ``limit`` tokens first loses the beginning of the prompt, after the head; a quarter of the
    limit, or the whole prompt if it is shorter, stays prompt (head included; at least one token after the head). Then
    the completion loses its end, and so its end token, but never all of it.

    Args:
        prompt_length: tokens of the prompt, head included.
        completion_length: at least 1, end token included.
        head: first tokens of the prompt that stay in any case.

    Raises:
        UserError: the limit does not hold the head and one token each of prompt and completion.
    """
    needed = int(np.max(head, initial=0)) + 2
    if limit < needed:
        raise UserError(
            f"`--tokens-per-pair {limit}` leaves no room: what stands in front of a prompt takes {needed - 2} tokens, "
            f"and one each of prompt and completion must fit; give at least {needed}, better some hundreds"
        )
    least = np.minimum(prompt_length, np.maximum(limit // PROMPT_SHARE, np.asarray(head) + 1))
    prompt = np.clip(limit - np.asarray(completion_length), least, prompt_length)
    completion = np.minimum(completion_length, limit - prompt)
    return np.maximum(prompt - head, 0), completion


def _log(name: str, limit: int, prompt_lost: Lengths, completion_lost: Lengths) -> None:
    cut = int(((prompt_lost > 0) | (completion_lost > 0)).sum())
    if cut == 0:
        logger.info("%s: none of %d pairs exceeds %d tokens", name, len(prompt_lost), limit)
        return
    logger.info(
        "%s: %d of %d pairs exceed %d tokens: %d prompts lose their beginning (%d tokens), %d completions their end "
        "(%d tokens)",
        name, cut, len(prompt_lost), limit, (prompt_lost > 0).sum(), prompt_lost.sum(),
        (completion_lost > 0).sum(), completion_lost.sum(),
    )  # fmt: skip
