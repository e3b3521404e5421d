import copy

import pytest
import torch

from nid_plugin.causal_lm import cpu_layers
from plugin_common import compat

compat.hide_broken_torchaudio()

from peft import LoraConfig, inject_adapter_in_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

SHAPE = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "biased": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8),
}


def make(config, *, rank=0, dropout=0.0):
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config)
    if rank:
        inject_adapter_in_model(
            LoraConfig(r=rank, target_modules=["q_proj", "down_proj", "gate_proj"], lora_dropout=dropout), lm
        )
        for name, parameter in lm.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    return lm.train()


def outcome(lm):
    """Loss and gradients of two rows."""
    torch.manual_seed(1)
    tokens = torch.randint(0, 67, (2, 11))
    loss = lm(input_ids=tokens, labels=tokens).loss
    trained = [(name, parameter) for name, parameter in lm.named_parameters() if parameter.requires_grad]
    return loss.detach(), {
        name: p for (name, _), p in zip(trained, torch.autograd.grad(loss, [p for _, p in trained]), strict=True)
    }


def assert_same_outcome(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=0)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        mine = ours[1][name]
        torch.testing.assert_close(mine, gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_changed_model_computes_the_same(name, rank):
    lm = make(CONFIGS[name], rank=rank)
    expected = outcome(lm)
    names = list(lm.state_dict())
    norms = 2 * 2 + 1 + (4 if name == "qwen3" else 0)
    gated = 2
    linear = 2 * 7
    adapted = 2 * 3 if rank else 0
    assert cpu_layers.install(lm) == norms + gated + linear + adapted
    assert_same_outcome(outcome(lm), expected)
    assert list(lm.state_dict()) == names


def test_an_adapter_with_dropout_is_left_to_peft():
    lm = make(CONFIGS["llama"], rank=3, dropout=0.5)
    torch.manual_seed(5)
    expected = lm(input_ids=torch.arange(9)[None]).logits
    cpu_layers.install(lm)
    torch.manual_seed(5)
    torch.testing.assert_close(lm(input_ids=torch.arange(9)[None]).logits, expected)
    assert_same_outcome(outcome(lm.eval()), outcome(make(CONFIGS["llama"], rank=3)))


def test_other_formulas_stay_as_they_are():
    """Gemma's norm multiplies by 1 + weight; GPT-2 has neither such norms nor gates."""
    gemma = make(Gemma2Config(**SHAPE, head_dim=8))
    expected = outcome(gemma)
    assert cpu_layers.install(gemma) == 2 * 7
    assert_same_outcome(outcome(gemma), expected)
    assert cpu_layers.install(make(GPT2Config(vocab_size=67, n_embd=32, n_layer=2, n_head=4))) == 0


def test_a_layer_that_only_looks_alike_is_left_alone():
    class DoublingRMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(32))
            self.variance_epsilon = 1e-6

        def forward(self, states):
            return 2 * torch.nn.functional.rms_norm(states, (32,), self.weight, self.variance_epsilon)

    lm = make(CONFIGS["llama"])
    lm.model.norm = DoublingRMSNorm()
    expected = outcome(lm)
    cpu_layers.install(lm)
    assert "forward" not in vars(lm.model.norm)
    assert_same_outcome(outcome(lm), expected)


def test_bfloat16_stays_near(name="llama"):
    lm = make(CONFIGS[name]).bfloat16()
    exact = outcome(make(CONFIGS[name]).bfloat16().double())
    expected = outcome(lm)
    cpu_layers.install(lm)
    ours = outcome(lm)

    def error(result):
        return max(float((result[1][n].double() - g).norm() / g.norm()) for n, g in exact[1].items())

    assert error(ours) < 1.3 * error(expected)


def test_a_copy_computes_with_its_own_weights():
    lm = make(CONFIGS["llama"])
    cpu_layers.install(lm)
    other = copy.deepcopy(lm)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert float(other(input_ids=torch.arange(5)[None]).logits.abs().max()) == 0.0
    assert float(lm(input_ids=torch.arange(5)[None]).logits.abs().max()) > 0.0


def test_autocast_goes_the_usual_way():
    lm = make(CONFIGS["llama"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = lm(input_ids=torch.arange(9)[None]).logits
        cpu_layers.install(lm)
        torch.testing.assert_close(lm(input_ids=torch.arange(9)[None]).logits, expected)
