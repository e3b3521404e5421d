"""Embedding distillation: the student's state at a target token's position is drawn to what the frozen LM makes of it.

The frozen LM (the teacher) reads the target sentence; its state of each target token is the goal for the student's
state at the position that an alignment gives the token (arXiv 2306.06345, section 3). Pure tensor functions: T
positions, L target tokens, D width, V symbols; lengths are int64 tensors and everything is right-padded.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nat_plugin.ctc import local_labels, viterbi_alignment

AlignmentMethod = Literal["argmax", "viterbi", "assignment"]
Distance = Literal["cosine", "mse", "kl"]

# The two output distributions of KL are made for so many tokens at a time.
_KL_BLOCK_ELEMENTS = 1 << 24


def align(
    method: AlignmentMethod, log_probs: Tensor, targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor
) -> Tensor:
    """The position that stands for each target token.

    ``argmax`` (the paper's): where the student gives the token its highest probability, each token for itself.
    ``viterbi``: of the positions at which the best CTC path emits the token, the most probable; positions rise with the
    tokens. ``assignment``: the one-to-one choice of positions with the highest total log-probability.

    Args:
        log_probs: ``[B, T, 1 + L]`` of :func:`nat_plugin.ctc.local_log_probs`; column j + 1 belongs to target j.
        targets: ``[B, L]``; hidden_lengths, target_lengths: ``[B]``. A sentence that is not to be aligned (an
            infeasible one) has target length 0.

    Returns:
        ``[B, L]`` int64 positions; -1 where there is none: at padding, in sentences without positions, for ``viterbi``
        in infeasible ones and for ``assignment`` where tokens outnumber positions.
    """
    return _METHODS[method](log_probs.detach(), targets, hidden_lengths, target_lengths)


def _argmax_alignment(log_probs: Tensor, targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    if log_probs.size(1) == 0:
        return torch.full_like(targets, -1)
    real = _within(hidden_lengths, log_probs.size(1))
    best = log_probs[:, :, 1:].masked_fill(~real[:, :, None], -torch.inf).argmax(dim=1)
    aligned = _within(target_lengths, targets.size(1)) & (hidden_lengths > 0)[:, None]
    return best.masked_fill(~aligned, -1)


def _viterbi_alignment(log_probs: Tensor, targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    if targets.size(1) == 0:
        return torch.full_like(targets, -1)
    labels = local_labels(targets, target_lengths)
    return viterbi_alignment(log_probs, labels, hidden_lengths, target_lengths, blank=0)


def _assignment(log_probs: Tensor, targets: Tensor, hidden_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    result = torch.full_like(targets, -1, device="cpu")
    # scipy solves one sentence at a time, on the CPU; all go there in one copy.
    scores = log_probs[:, :, 1:].float().cpu().clamp(min=torch.finfo(torch.float32).min).numpy()
    sizes = zip(hidden_lengths.tolist(), target_lengths.tolist(), strict=True)
    for row, (positions, tokens) in enumerate(sizes):
        if 0 < tokens <= positions:
            _, chosen = linear_sum_assignment(scores[row, :positions, :tokens].T, maximize=True)
            result[row, :tokens] = torch.from_numpy(chosen)
    return result.to(targets.device)


_METHODS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "argmax": _argmax_alignment,
    "viterbi": _viterbi_alignment,
    "assignment": _assignment,
}


def at_positions(states: Tensor, positions: Tensor) -> Tensor:
    """``[M, D]``: of ``states [B, T, D]`` those at ``positions [B, L]``, without the -1, sentence by sentence."""
    aligned = positions >= 0
    rows = torch.arange(len(positions), device=positions.device)[:, None].expand_as(positions)
    return states[rows[aligned], positions[aligned]]


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``[M]``: 1 − cosine of each pair of states ``[M, D]``, in float32 or better; between 0 and 2."""
    return 1 - F.cosine_similarity(_wide(student), _wide(teacher), dim=-1)


def mean_squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``[M]``: mean over D of the squared differences of states ``[M, D]``, in float32 or better."""
    return (_wide(student) - _wide(teacher)).square().mean(dim=-1)


class Projection(NamedTuple):
    """States in front of a vocabulary projection, and the projection."""

    hidden: Tensor  # [M, D]
    weight: Tensor  # [V, D]
    bias: Tensor | None  # [V]


def kl_divergence(student: Projection, teacher: Projection) -> Tensor:
    """``[M]``: KL(teacher ‖ student) of the two output distributions over V symbols, in nats, in float32 or better.

    The teacher gets no gradient. Distributions are made for a block of tokens at a time and again in the backward pass.
    """
    rows = max(1, _KL_BLOCK_ELEMENTS // len(student.weight))
    blocks = [
        checkpoint(
            _kl_block,
            student.hidden[start : start + rows],
            student.weight,
            student.bias,
            teacher._replace(hidden=teacher.hidden[start : start + rows]),
            use_reentrant=False,
        )
        for start in range(0, len(student.hidden), rows)
    ]
    return torch.cat(blocks) if blocks else _wide(student.hidden).sum(dim=-1)


def _kl_block(hidden: Tensor, weight: Tensor, bias: Tensor | None, teacher: Projection) -> Tensor:
    with torch.no_grad():
        goal = _wide(F.linear(*teacher)).log_softmax(dim=-1)
    ours = _wide(F.linear(hidden, weight, bias)).log_softmax(dim=-1)
    return F.kl_div(ours, goal, reduction="none", log_target=True).sum(dim=-1)


def _wide(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _within(lengths: Tensor, width: int) -> Tensor:
    """``[B, width]`` bool: which positions are real."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]
