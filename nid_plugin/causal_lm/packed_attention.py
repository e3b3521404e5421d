"""Attention within packed documents: several in one row, none of which sees another.

transformers has four ways. ``packed`` is registered here: each document by itself, nothing of size ``[N, N]``.
``flash_attention_2`` is told where documents begin. ``sdpa`` and ``eager`` get a mask ``[1, 1, N, N]``, which
transformers makes when positions restart and no other mask is given.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nid_plugin.causal_lm import cpu_layers
from nid_plugin.causal_lm.blocked_attention import blocked_attention
from plugin_common.errors import UserError, raise_all

IMPLEMENTATIONS = ("packed", "flash_attention_2", "sdpa", "eager")

_NAME = "nid_packed"  # in transformers' registries
_LAYER_TYPES = {"full_attention", "sliding_attention"}
_HALVES = (torch.bfloat16, torch.float16)
_NO_FLASH_ATTENTION = (
    "--attention flash_attention_2 needs CUDA and `pip install flash-attn`; --attention packed needs neither"
)
# What some models hand to their attention that changes it; where one does, only their own code is right.
_CHANGES_SCORES = ("softcap", "s_aux", "position_bias")


def name_in_transformers(implementation: str) -> str:
    """The value of ``attn_implementation`` for one of ``IMPLEMENTATIONS``; registers ``packed`` with transformers."""
    if implementation != "packed":
        return implementation
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _packed_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    return _NAME


def prepare(lm: Any, implementation: str) -> None:
    """Let a transformers causal LM keep packed documents apart by one of ``IMPLEMENTATIONS``.

    With ``packed`` its other layers, too, use the faster functions that there are on a CPU (see ``cpu_layers``); the
    other ways leave the model as transformers made it.

    Raises:
        UserError: the model has layers that would mix documents, or flash-attn is not installed.
    """
    config = lm.config
    problems = []
    if not getattr(lm, "_supports_attention_backend", False):
        problems.append(f"a {config.model_type} model has attention of its own, which would mix packed documents")
    foreign = sorted(set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES)
    if foreign:
        problems.append(
            f"a {config.model_type} model has layers ({', '.join(foreign)}) that would mix packed documents"
        )
    if implementation == "flash_attention_2" and not has_flash_attention():
        problems.append(_NO_FLASH_ATTENTION)
    raise_all(problems)
    name = name_in_transformers(implementation)
    if config._attn_implementation != name:
        lm.set_attn_implementation(name)
    if implementation == "packed":
        cpu_layers.install(lm)


def flash_attention_problems(dtype: torch.dtype) -> list[str]:
    """Why ``flash_attention_2`` cannot train weights of a precision here."""
    problems = [] if has_flash_attention() else [_NO_FLASH_ATTENTION]
    if dtype not in _HALVES:
        problems.append(
            "--attention flash_attention_2 needs weights of 16 bits: add --bf16 or --fp16 (not --amp), or give "
            "--attention packed"
        )
    return problems


def has_flash_attention() -> bool:
    """Whether flash-attn and a GPU for it are there."""
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def packing_arguments(implementation: str, document_lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What the model is called with beside ``input_ids [1, N]``, ``position_ids [1, N]`` and ``use_cache=False``.

    Args:
        implementation: the one that the model was prepared for.
        document_lengths: in order; their sum is N.
        device: of the model's inputs.
    """
    if implementation == "packed":
        # Any mask of four dimensions keeps transformers from making one of [N, N]; the attention below passes it over.
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        return {"attention_mask": mask, "document_lengths": tuple(document_lengths)}
    if implementation == "flash_attention_2":
        ends = _ends(document_lengths, device)
        longest = max(document_lengths)
        return {
            "attention_mask": None,
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    return {"attention_mask": None}


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    """``[documents + 1]`` int32: 0, then where each document ends."""
    return F.pad(torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0)).to(device)


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    document_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: ``query [1, H, N, D]``, ``key, value [1, K, N, D]`` → ``[1, N, H, D]``.

    Without ``document_lengths`` (generation) as ``sdpa``.
    """
    model_type = getattr(getattr(module, "config", None), "model_type", type(module).__name__)
    if document_lengths is None:
        if module.training:
            raise UserError(
                f"a {model_type} model keeps from its attention where packed documents end: --attention sdpa"
            )
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    changed = [name for name in _CHANGES_SCORES if kwargs.get(name) is not None]
    if changed:
        raise UserError(
            f"a {model_type} model changes its attention scores ({', '.join(changed)}), which --attention packed does "
            "not know: give --attention eager, or flash_attention_2 where it is installed"
        )
    if query.size(0) != 1 or sum(document_lengths) != query.size(2):
        raise ValueError(f"documents of {sum(document_lengths)} tokens in all, but queries {[*query.shape]}")
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    attend = _way(query, key, value, dropout)
    return attend(query[0], key[0], value[0], document_lengths, scale, sliding_window, dropout)[None], None


def _way(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Any:
    """The fastest function that takes such inputs."""
    plain = dropout == 0.0 and query.dtype == key.dtype == value.dtype and query.size(-1) == value.size(-1)
    if plain and query.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return _in_blocks
    if plain and query.is_cuda and query.dtype in _HALVES and query.size(-1) <= 256 and _has_varlen():
        return _varlen
    return _each_by_itself


def _in_blocks(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float, window: int | None, dropout: float
) -> Tensor:
    return blocked_attention(query, key, value, lengths, scale=scale, window=window)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float, window: int | None, dropout: float
) -> Tensor:
    """torch's own flash attention over documents of different lengths, on CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    ends = _ends(lengths, query.device)
    longest = max(lengths)
    result = varlen_attn(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.size(0) != key.size(0),
    )
    assert isinstance(result, Tensor)  # nothing more was asked for
    return result


@functools.cache
def _has_varlen() -> bool:
    """Whether torch's function knows windows and shared keys; it came without."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)


def _each_by_itself(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float, window: int | None, dropout: float
) -> Tensor:
    """One call of torch's attention for each document: any device, precision and dropout."""
    shared = query.size(0) // key.size(0)
    if shared > 1:
        key, value = (part.repeat_interleave(shared, dim=0) for part in (key, value))
    documents = zip(*(part.split(list(lengths), dim=1) for part in (query, key, value)), strict=True)
    outputs = []
    for q, k, v in documents:
        length = q.size(1)
        mask = None
        if window is not None and length > window:
            back = torch.arange(length, device=q.device)[:, None] - torch.arange(length, device=q.device)
            mask = (back >= 0) & (back < window)
        done = F.scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale
        )
        outputs.append(done[0].transpose(0, 1))
    return torch.cat(outputs)
