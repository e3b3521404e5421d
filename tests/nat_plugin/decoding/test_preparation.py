import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fairseq.dataclass.configs import GenerationConfig
from fairseq.hub_utils import GeneratorHubInterface
from omegaconf import OmegaConf

from nat_plugin.decoding.preparation import prepare_models
from plugin_common.errors import UserError

NewModel = Callable[..., tuple[Any, Any]]
SENTENCES = [torch.tensor([7, 9, 11, 2]), torch.tensor([8, 2])]


def hub(model: Any, task: Any, *, path: str | None = None, **common: Any) -> GeneratorHubInterface:
    """fairseq's interface with the configuration of a checkpoint whose training had the options ``common``."""
    cfg = {
        "common": {"bf16": False, **common}, "common_eval": {"path": path}, "tokenizer": None, "bpe": None,
        "generation": OmegaConf.structured(GenerationConfig()), "dataset": {"max_tokens": None, "batch_size": 4},
    }  # fmt: skip
    return GeneratorHubInterface(OmegaConf.create(cfg), task, [model])


def tokens(hypotheses: list[list[dict[str, Any]]]) -> list[list[int]]:
    return [best["tokens"].tolist() for best, *_ in hypotheses]


# ---- fairseq's hub interface ----------------------------------------------------------------------------------------


def test_how_a_model_was_trained_does_not_decide_how_it_decodes(new_model: NewModel) -> None:
    expected = tokens(hub(*new_model()).generate(SENTENCES))
    model, task = new_model()
    interface = hub(model, task, bf16=True)
    assert tokens(interface.generate(SENTENCES)) == expected
    assert model.masked_lm.weight.dtype == torch.float32
    assert tokens(interface.generate(SENTENCES)) == expected, "each call builds a generator"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_that_a_user_gives_the_model_stays(new_model: NewModel, dtype: torch.dtype) -> None:
    model, task = new_model()
    interface = hub(model, task, bf16=True).to(dtype)
    for _ in range(2):
        assert len(interface.generate(SENTENCES)) == 2
        assert model.masked_lm.weight.dtype == dtype


def test_bf16_on_the_command_line_counts(new_model: NewModel) -> None:
    model, task = new_model()
    hub(model, task, path="model.pt", bf16=True).generate(SENTENCES)
    assert model.masked_lm.weight.dtype == torch.bfloat16


# ---- once and for all -----------------------------------------------------------------------------------------------


def test_the_same_again_changes_nothing(new_model: NewModel) -> None:
    model, task = new_model()
    sample = {"net_input": {"src_tokens": SENTENCES[0][None], "src_lengths": torch.tensor([4])}}
    first = task.build_generator([model], GenerationConfig()).generate([model], sample)
    modules = list(model.modules())
    second = task.build_generator([model, model], GenerationConfig()).generate([model], sample)
    assert tokens(first) == tokens(second)
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))


@pytest.mark.parametrize(("first", "then"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_another_precision_is_refused(new_model: NewModel, first: str, then: str) -> None:
    model, task = new_model()
    task.cfg.decode_precision = first
    task.build_generator([model], GenerationConfig())
    task.cfg.decode_precision = then
    message = f"the model is prepared for decoding in {first} on cpu, not {then} on cpu; load it again"
    with pytest.raises(UserError) as caught:
        task.build_generator([model, model], GenerationConfig())
    assert str(caught.value) == message


def test_a_model_converted_or_moved_afterwards_is_refused(new_model: NewModel) -> None:
    model, _ = new_model()
    prepare_models([model], precision="fp32", compile=False)
    model.half()
    with pytest.raises(UserError, match="for decoding in fp32 on cpu and was converted to fp16 afterwards; load it"):
        prepare_models([model], precision="fp32", compile=False)
    model.float().to("meta")
    with pytest.raises(UserError, match="for decoding in fp32 on cpu, not fp32 on meta; load it again"):
        prepare_models([model], precision="fp32", compile=False)


def test_a_packed_model_is_not_compiled(new_model: NewModel) -> None:
    model, _ = new_model()
    prepare_models([model], precision=None, compile=False)
    with pytest.raises(UserError, match="in fp32 on cpu, not fp32 on cpu, compiled; load it again"):
        prepare_models([model], precision=None, compile=True)


def test_compiling_leaves_lock_files_out_of_the_log(new_model: NewModel, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("filelock")
    before = logger.level
    monkeypatch.setenv("CXX", sys.executable)  # found, and not called before the first pass
    try:
        logger.setLevel(logging.DEBUG)
        prepare_models([new_model()[0]], precision=None, compile=True)
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
    finally:
        logger.setLevel(before)
