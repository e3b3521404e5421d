"""Completions of a batch are those of its prompts one by one, for each way to know positions."""

import copy
from typing import Any

import pytest
import torch

from nid_plugin.decoding.causal_lm_generator import CausalLmGenerator
from nid_plugin.decoding.options import GenerationOptions
from nid_plugin.models.hf_causal_lm import HfCausalLm, HfCausalLmConfig
from plugin_common.errors import UserError
from plugin_common.hf_folder import quiet_transformers

PAD, END, POSITIONS = 50, 2, 64
SHAPE = {
    "vocab_size": PAD, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "initializer_range": 0.3,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": END, "pad_token_id": None,
}  # fmt: skip
FAMILIES = {
    "llama": SHAPE,
    "qwen2": SHAPE,  # has biases in its attention
    "mistral": {**SHAPE, "sliding_window": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, "vocab_size": PAD,
             "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": END},
}  # fmt: skip
PROMPTS = [[1, 5, 9], [1, 30, 31, 32, 33, 34, 35, 36, 37], [1, 7]]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> HfCausalLm:
    return make(request.param)


def make(family: str) -> HfCausalLm:
    with quiet_transformers():
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(1)
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family]))
    return HfCausalLm(HfCausalLmConfig(tuning="full"), lm)


def sample(prompts: list[list[int]]) -> dict[str, Any]:
    width = max(map(len, prompts))
    rows = [[PAD] * (width - len(prompt)) + prompt for prompt in prompts]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return {"net_input": {"src_tokens": torch.tensor(rows), "src_lengths": lengths}}


def complete(model: HfCausalLm, prompts: list[list[int]], **options: Any) -> list[list[dict[str, Any]]]:
    found = GenerationOptions(**options)
    return CausalLmGenerator(found, end_ids=[END], pad=PAD, positions=POSITIONS).generate([model], sample(prompts))


@pytest.mark.parametrize("options", [{}, {"beam": 3, "best": 3}, {"max_len_a": 2.0, "max_len_b": 3}], ids=str)
def test_a_batch_is_its_prompts_one_by_one(model: HfCausalLm, options: dict[str, Any]) -> None:
    options = {"max_len_b": 12, **options}
    together = complete(model, PROMPTS, **options)
    for prompt, rows in zip(PROMPTS, together, strict=True):
        (alone,) = complete(model, [prompt], **options)
        assert [row["tokens"].tolist() for row in rows] == [row["tokens"].tolist() for row in alone]
        for row, single in zip(rows, alone, strict=True):
            torch.testing.assert_close(row["positional_scores"], single["positional_scores"], rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_a_pass_over_prompt_and_completion(model: HfCausalLm) -> None:
    for prompt, (row,) in zip(PROMPTS, complete(model, PROMPTS, max_len_b=8), strict=True):
        whole = torch.tensor([[*prompt, *row["tokens"].tolist()]])
        with torch.no_grad():
            log_probs = model.causal_lm.lm(whole, use_cache=False).logits[0].log_softmax(dim=-1)
        expected = log_probs[len(prompt) - 1 : -1].gather(1, row["tokens"][:, None])[:, 0]
        torch.testing.assert_close(row["positional_scores"], expected, rtol=1e-4, atol=1e-5)
        assert row["score"] == pytest.approx(float(expected.mean()), abs=1e-5)
        assert torch.equal(row["tokens"], log_probs[len(prompt) - 1 : -1].argmax(dim=-1)), "greedy"


def test_a_long_neighbour_takes_no_room(model: HfCausalLm) -> None:
    """Each may reach its own limit, and none goes beyond the model's positions."""
    prompts = [[1, 5], [1] + [7] * 59]
    options = {"max_len_a": 10.0, "max_len_b": 1, "min_len": POSITIONS}
    assert [len(row["tokens"]) for (row,) in complete(model, prompts, **options)] == [21, 4]


def test_the_bases_own_generation_settings_do_not_apply() -> None:
    model = make("llama")
    plain = complete(model, PROMPTS, max_len_b=20)
    penalised = copy.deepcopy(model)
    penalised.causal_lm.lm.generation_config.repetition_penalty = 100.0
    penalised.causal_lm.lm.generation_config.suppress_tokens = list(range(3, 40))
    again = complete(penalised, PROMPTS, max_len_b=20)
    assert [row["tokens"].tolist() for (row,) in again] == [row["tokens"].tolist() for (row,) in plain]


def test_draws_follow_the_seed_and_are_as_many_as_asked() -> None:
    model = make("llama")
    options = {"sampling": True, "beam": 2, "best": 2, "top_p": 0.9, "temperature": 2.0, "max_len_b": 10}

    def draw(seed: int) -> list[list[list[int]]]:
        torch.manual_seed(seed)
        return [[row["tokens"].tolist() for row in rows] for rows in complete(model, PROMPTS, **options)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert all(len(rows) == 2 for rows in draw(1))


def test_what_it_does_not_know_is_refused() -> None:
    model = make("llama")
    generator = CausalLmGenerator(GenerationOptions(), end_ids=[END], pad=PAD, positions=POSITIONS)
    with pytest.raises(UserError, match="--path names 2 checkpoints"):
        generator.generate([model, model], sample(PROMPTS))
    with pytest.raises(UserError, match="--prefix-size"):
        generator.generate([model], sample(PROMPTS), prefix_tokens=torch.ones(3, 1))
