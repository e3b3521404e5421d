"""Packed documents compute what each computes alone: states, loss and gradients, for each way of attention."""

import copy
import functools
import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nid_plugin.causal_lm import packed_attention
from nid_plugin.causal_lm.packed_attention import name_in_transformers, packing_arguments, prepare
from plugin_common.errors import UserError
from plugin_common.hf_folder import quiet_transformers

with quiet_transformers():
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
        modeling_flash_attention_utils,
    )
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=7),
    "qwen2": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
}
LENGTHS = (5, 23, 1, 200, 14)
CPU = torch.device("cpu")
WAYS = ("packed", "sdpa", "eager")


def make(config: Any) -> Any:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager")
    with torch.no_grad():  # sharper attention than that of fresh weights: a wrong mask shows
        for name, parameter in lm.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.mul_(10)
    return lm.train()


def documents() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 61, (length,), generator=generator) for length in LENGTHS]


def outcome(lm: Any, states: Tensor) -> dict[str, Tensor]:
    """States, loss and the gradients of all parameters, of states ``[N, D]``."""
    labels = torch.cat(documents()).roll(3)
    loss = F.cross_entropy(lm.lm_head(states), labels)
    trained = dict(lm.named_parameters())
    gradients = torch.autograd.grad(loss, list(trained.values()))
    return {"states": states.detach(), "loss": loss.detach(), **dict(zip(trained, gradients, strict=True))}


def alone(lm: Any) -> dict[str, Tensor]:
    lm.set_attn_implementation("eager")
    return outcome(
        lm, torch.cat([lm.model(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in documents()])
    )


def packed(lm: Any, **arguments: Any) -> dict[str, Tensor]:
    places = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    tokens = torch.cat(documents())[None]
    read = {"input_ids": tokens, "position_ids": places, "use_cache": False} | arguments
    return outcome(lm, lm.model(**read).last_hidden_state[0])


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest one, each entry on its own scale."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - right).abs().max() / right.abs().max()) for name, right in theirs.items())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", CONFIGS)
def test_packed_is_unpacked(family: str, way: str, checkpointing: bool) -> None:
    lm = make(CONFIGS[family])
    expected = alone(lm)
    if checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    prepare(lm, way)
    assert difference(packed(lm, **packing_arguments(way, LENGTHS, CPU)), expected) < 1e-5


@pytest.mark.parametrize("wrong", ["positions that go on", "mask of ones", "one document", "no window"])
def test_the_comparison_fails_where_documents_mix(wrong: str) -> None:
    lm = make(CONFIGS["mistral"])
    expected = alone(lm)
    total = sum(LENGTHS)
    if wrong == "no window":
        windowless = make(LlamaConfig(**SHAPE))
        windowless.load_state_dict(lm.state_dict())
        lm = windowless
        prepare(lm, "packed")
        result = packed(lm, **packing_arguments("packed", LENGTHS, CPU))
    elif wrong == "one document":
        prepare(lm, "packed")
        result = packed(lm, **packing_arguments("packed", [total], CPU))
    else:
        prepare(lm, "sdpa")
        result = packed(
            lm,
            **{
                "positions that go on": {"position_ids": torch.arange(total)[None]},
                "mask of ones": {"attention_mask": torch.ones(1, total, dtype=torch.bool)},
            }[wrong],
        )
    assert difference(result, expected) > 1e-2


@pytest.mark.parametrize("family", CONFIGS)
def test_each_document_by_itself_gives_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of other devices and of dropout."""
    lm = make(CONFIGS[family])
    expected = alone(lm)
    prepare(lm, "packed")
    monkeypatch.setattr(packed_attention, "_way", lambda *_: packed_attention._each_by_itself)
    assert difference(packed(lm, **packing_arguments("packed", LENGTHS, CPU)), expected) < 1e-5


def test_dropout_drops_in_training_alone() -> None:
    lm = make(LlamaConfig(**SHAPE, attention_dropout=0.5))
    prepare(lm, "packed")
    arguments = packing_arguments("packed", LENGTHS, CPU)
    first, second = packed(lm, **arguments), packed(lm, **arguments)
    assert difference(first, second) > 1e-2
    lm.eval()
    assert difference(packed(lm, **arguments), alone(lm)) < 1e-5


def test_bfloat16_stays_near() -> None:
    lm = make(CONFIGS["mistral"])
    expected = alone(lm)
    for way in WAYS:
        rounded = make(CONFIGS["mistral"]).bfloat16()
        prepare(rounded, way)
        result = packed(rounded, **packing_arguments(way, LENGTHS, CPU))
        assert float((result["states"] - expected["states"]).norm() / expected["states"].norm()) < 0.05
        assert abs(float(result["loss"] - expected["loss"])) < 0.02


def test_generation_is_that_of_sdpa() -> None:
    """Prompts of different lengths, padded on the left, with a cache; the window is shorter than they are."""
    tokens = torch.randint(3, 61, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    for row, padding in enumerate((0, 4, 9)):
        tokens[row, :padding], mask[row, :padding] = 0, 0
    for family in CONFIGS:
        lm = make(CONFIGS[family]).eval()
        options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        lm.set_attn_implementation("sdpa")
        expected = lm.generate(tokens, **options)
        prepare(lm, "packed")
        assert torch.equal(lm.generate(tokens, **options), expected)


def test_a_mask_of_the_whole_row_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make(CONFIGS["mistral"])
    prepare(lm, "packed")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a mask was made")

    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, name_in_transformers("packed"), refuse)
    packed(lm, **packing_arguments("packed", LENGTHS, CPU))


def test_flash_attention_is_told_where_documents_end() -> None:
    arguments = packing_arguments("flash_attention_2", LENGTHS, CPU)
    assert arguments["attention_mask"] is None
    assert arguments["cu_seq_lens_q"].tolist() == arguments["cu_seq_lens_k"].tolist() == [0, 5, 28, 29, 229, 243]
    assert arguments["cu_seq_lens_q"].dtype == torch.int32
    assert arguments["max_length_q"] == arguments["max_length_k"] == 200


def kernel(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    """What the kernels of flash-attn and torch, which need CUDA, are documented to compute, word for word.

    ``q [N, H, D]``, ``k, v [N, K, D]``; a query sees ``window_size`` keys to its left and right, all for -1.
    """
    assert dropout_p == 0.0
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    outputs = []
    for at in range(len(cu_seqlens_q) - 1):
        begin, end = int(cu_seqlens_q[at]), int(cu_seqlens_q[at + 1])
        assert (begin, end) == (int(cu_seqlens_k[at]), int(cu_seqlens_k[at + 1]))
        assert end - begin <= max_seqlen_q == max_seqlen_k  # a kernel starts as many threads, and reads no rows beyond
        keys, values = (x[begin:end].repeat_interleave(q.size(1) // k.size(1), dim=1) for x in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q[begin:end], keys) * (softmax_scale or q.size(-1) ** -0.5)
        ahead = torch.arange(end - begin) - torch.arange(end - begin)[:, None]
        left, right = window_size
        hidden = (ahead > 0) & causal
        hidden |= (ahead < -left) & (left >= 0)
        hidden |= (ahead > right) & (right >= 0)
        outputs.append(torch.einsum("hij,jhd->ihd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values))
    return torch.cat(outputs)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_flash_attention_is_unpacked_with_a_kernel_that_does_what_it_says(
    family: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of transformers' way to flash-attn and back, but for the kernel."""
    calls = []

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(kwargs["causal"])
        return kernel(*args, **kwargs)

    functools.update_wrapper(counted, kernel)  # transformers looks at what a kernel takes
    utilities = modeling_flash_attention_utils
    parts = (None, counted, None, utilities._pad_input, utilities._unpad_input)
    monkeypatch.setattr(utilities, "_lazy_imports", lambda *_, **__: parts)
    for name in ("_flash_fn", "_flash_varlen_fn", "_flash_with_kvcache_fn", "_pad_fn", "_unpad_fn"):
        monkeypatch.setattr(utilities, name, None)
    monkeypatch.setattr(utilities, "_process_flash_kwargs_fn", None)
    monkeypatch.setattr(utilities, "_process_with_kvcache_kwargs_fn", None)
    monkeypatch.setattr(utilities, "_loaded_implementation", None)
    monkeypatch.setattr(packed_attention, "has_flash_attention", lambda: True)
    lm = make(CONFIGS[family])
    expected = alone(lm)
    if checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    lm.config._attn_implementation = "flash_attention_2"  # transformers would look for the package
    prepare(lm, "flash_attention_2")
    result = packed(lm, **packing_arguments("flash_attention_2", LENGTHS, CPU))
    assert difference(result, expected) < 1e-5
    assert calls == [True] * lm.config.num_hidden_layers * (2 if checkpointing else 1)
    one_document = packing_arguments("flash_attention_2", [sum(LENGTHS)], CPU)
    assert difference(packed(lm, **one_document), expected) > 1e-2


@pytest.mark.parametrize("family", CONFIGS)
def test_torchs_own_kernel_is_unpacked_if_it_does_what_it_says(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of 16 bits on CUDA, but for the kernel."""
    calls = []

    def varlen_attn(query: Tensor, key: Tensor, value: Tensor, *places: Any, **options: Any) -> Tensor:
        calls.append(options["window_size"])
        assert options["enable_gqa"] == (query.size(1) != key.size(1))
        return kernel(query, key, value, *places, softmax_scale=options["scale"], window_size=options["window_size"])

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(packed_attention, "_way", lambda *_: packed_attention._varlen)
    lm = make(CONFIGS[family])
    expected = alone(lm)
    prepare(lm, "packed")
    assert difference(packed(lm, **packing_arguments("packed", LENGTHS, CPU)), expected) < 1e-5
    assert len(calls) == lm.config.num_hidden_layers


def test_torchs_own_kernel_takes_what_it_is_given() -> None:
    """Its arguments have the order, its options the names that the code relies on."""
    from torch.nn.attention.varlen import varlen_attn

    assert packed_attention._has_varlen()
    taken = inspect.signature(varlen_attn).parameters
    assert [*taken][:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


def test_what_cannot_be_is_refused() -> None:
    lm = make(CONFIGS["llama"])
    if not packed_attention.has_flash_attention():
        with pytest.raises(UserError, match="needs CUDA and `pip install flash-attn`"):
            prepare(lm, "flash_attention_2")
    lm.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UserError, match=r"linear_attention.*would mix packed documents"):
        prepare(lm, "packed")


def test_soft_capped_scores_are_refused_by_name() -> None:
    lm = make(Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=50.0))
    prepare(lm, "packed")
    with pytest.raises(UserError, match=r"gemma2 model changes its attention scores.*softcap.*eager"):
        packed(lm, **packing_arguments("packed", LENGTHS, CPU))
    expected = alone(lm)
    prepare(lm, "eager")
    assert difference(packed(lm, **packing_arguments("eager", LENGTHS, CPU)), expected) < 1e-5


def test_a_model_that_keeps_the_lengths_to_itself_is_refused() -> None:
    lm = make(CONFIGS["llama"])
    prepare(lm, "packed")
    with pytest.raises(UserError, match="where packed documents end"):
        packed(lm)


def test_lengths_that_are_not_those_of_the_row() -> None:
    lm = make(CONFIGS["llama"])
    prepare(lm, "packed")
    with pytest.raises(ValueError, match="documents of 242 tokens"):
        packed(lm, **packing_arguments("packed", (*LENGTHS[:-1], 13), CPU))
