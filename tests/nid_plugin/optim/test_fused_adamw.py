import io

import pytest
import torch
from omegaconf import OmegaConf

import nid_plugin
from plugin_common.errors import UserError

nid_plugin.register()

from fairseq.dataclass.configs import FairseqConfig  # noqa: E402
from fairseq.optim import FP16Optimizer, MemoryEfficientFP16Optimizer, build_optimizer  # noqa: E402

from nid_plugin.optim.fused_adamw import FusedAdamW, FusedAdamWConfig, parse_betas  # noqa: E402


def config(**options):
    """fairseq's whole configuration with this optimizer."""
    cfg = OmegaConf.structured(FairseqConfig())
    flags = {name: options.pop(name) for name in ("bf16", "memory_efficient_bf16") if name in options}
    cfg.common.update(flags)
    OmegaConf.set_struct(cfg, False)
    cfg.optimizer = OmegaConf.structured(FusedAdamWConfig(**options))
    cfg.optimizer._name = "fused_adamw"
    cfg.optimization.lr = [0.1]
    return cfg


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(*size, generator=generator).to(dtype)) for size in ((5, 3), (7,))]


def step(optimizer, params, seed):
    """An update by gradients that the seed tells."""
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    loss = sum((p * torch.randn(p.shape, generator=generator).to(p.dtype)).sum() for p in params)
    optimizer.backward(loss)
    optimizer.step()


def saved(optimizer):
    """A state as a checkpoint brings it back."""
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def test_it_is_adamw():
    params, plain = parameters(), parameters()
    optimizer = build_optimizer(config(adam_betas="(0.8, 0.9)", adam_eps=1e-6, weight_decay=0.3).optimizer, params)
    assert isinstance(optimizer, FusedAdamW)
    expected = torch.optim.AdamW(plain, lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3, foreach=False)
    for seed in range(4):
        step(optimizer, params, seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in plain:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        expected.step()
    for mine, theirs in zip(params, plain, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_rate_follows_the_scheduler():
    params = parameters()
    optimizer = build_optimizer(config().optimizer, params)
    optimizer.set_lr(0.0)
    before = [p.detach().clone() for p in params]
    step(optimizer, params, 0)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert optimizer.get_lr() == 0.0


@pytest.mark.parametrize("way", ["plain", "bf16", "memory_efficient_bf16"])
def test_going_on_from_a_checkpoint_is_exact(way):
    dtype = torch.float32 if way == "plain" else torch.bfloat16
    state_dtype = torch.float32 if way != "memory_efficient_bf16" else torch.bfloat16

    def build(params):
        if way == "plain":
            return build_optimizer(config().optimizer, params)
        wrapper = FP16Optimizer if way == "bf16" else MemoryEfficientFP16Optimizer
        return wrapper.build_optimizer(config(bf16=True, **({way: True} if way != "bf16" else {})), params)

    params = parameters(dtype)
    optimizer = build(params)
    for seed in range(3):
        step(optimizer, params, seed)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed = build(copies)
    resumed.load_state_dict(saved(optimizer), optimizer.optimizer_config)
    for state in resumed.optimizer.state.values():
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == state_dtype
    if way == "bf16":  # fairseq's model state carries the float32 copies through the parameters
        for mine, theirs in zip(resumed.fp32_params, optimizer.fp32_params, strict=True):
            mine.data.copy_(theirs.data)
    for seed in range(3, 6):
        step(optimizer, params, seed)
        step(resumed, copies, seed)
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))


def test_new_settings_replace_those_of_the_checkpoint():
    optimizer = build_optimizer(config(weight_decay=0.3).optimizer, parameters())
    other = build_optimizer(config(weight_decay=0.1, adam_betas="(0.5, 0.6)").optimizer, parameters())
    other.load_state_dict(saved(optimizer), other.optimizer_config)
    assert other.param_groups[0]["weight_decay"] == 0.1
    assert other.param_groups[0]["betas"] == (0.5, 0.6)


@pytest.mark.parametrize(
    "text", ["0.9", "(0.9,)", "(0.9, x)", "(0.9, 0.99, 0.999)", "__import__('os')", "(0.9, 1.0)", "(-1, 0)"]
)
def test_betas_that_cannot_be(text):
    with pytest.raises(UserError, match="--adam-betas"):
        parse_betas(text)


def test_betas_of_a_configuration_file():
    assert parse_betas([0.9, 0.98]) == parse_betas("(0.9, 0.98)") == (0.9, 0.98)


def test_float16_parameters_are_refused():
    with pytest.raises(UserError, match="too narrow"):
        build_optimizer(config().optimizer, parameters(torch.float16))
