"""What each process reads of a causal LM that is split over several. Training split models: ``tests/cli``."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from nid_plugin.causal_lm import lora, source
from nid_plugin.causal_lm.sharded import check_processes, empty_lm, layers_of, open_to_split
from plugin_common.compat import hide_broken_torchaudio
from plugin_common.errors import UserError
from plugin_common.sharded_tensors import rows_of
from tests.process_group import alone, member
from tests.toy_causal_lm import make_causal_lm

PROCESSES = 3


@pytest.fixture(scope="module", params=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("base"), tied=request.param == "tied")


def no_change(lm: Any) -> None:
    """For ``change``."""


def whole(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return source.load_weights(folder, source.read_config(folder), dtype=dtype, attention="sdpa")


def part(
    folder: Path, rank: int, *, dtype: torch.dtype = torch.float32, change: Callable[[Any], None] = no_change
) -> dict[str, Tensor]:
    """This process's rows of all parameters after splitting the model itself."""
    with member(rank, PROCESSES):
        lm, split = open_to_split(folder, source.read_config(folder), dtype=dtype, attention="sdpa", change=change)
        split(lm)
        parameters = dict(lm.named_parameters(remove_duplicate=False))
        assert all(isinstance(tensor, DTensor) for tensor in parameters.values())
        return {name: tensor.detach().to_local().clone() for name, tensor in parameters.items()}


def expect_rows(found: dict[str, Tensor], lm: Any, rank: int) -> None:
    expected = dict(lm.named_parameters(remove_duplicate=False))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.detach()[rows_of(rank, PROCESSES, len(tensor))]), name


@pytest.mark.parametrize("rank", range(PROCESSES))
def test_each_process_reads_its_rows(base: Path, rank: int) -> None:
    expect_rows(part(base, rank), whole(base), rank)


def test_in_the_precision_of_the_training(base: Path) -> None:
    expect_rows(part(base, 1, dtype=torch.bfloat16), whole(base, torch.bfloat16), 1)


def test_from_several_files(base: Path, tmp_path: Path) -> None:
    lm = whole(base)
    lm.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    expect_rows(part(tmp_path, 2), lm, 2)


@pytest.mark.parametrize("rank", [0, 2])
def test_adapters_begin_as_they_do_unsplit(base: Path, rank: int) -> None:
    """The same draws, so that a split training can be compared with any other."""

    def change(lm: Any) -> None:
        torch.manual_seed(5)
        lora.add_adapters(lm, lora.LoraOptions(rank=4))

    lm = whole(base)
    change(lm)
    expect_rows(part(base, rank, change=change), lm, rank)


def test_only_adapters_are_trained(base: Path) -> None:
    with member(0, PROCESSES):
        lm, split = open_to_split(
            base, source.read_config(base), dtype=torch.float32, attention="sdpa",
            change=lambda lm: lora.add_adapters(lm, lora.LoraOptions()),
        )  # fmt: skip
        split(lm)
        assert {name for name, tensor in lm.named_parameters() if tensor.requires_grad} == set(lora.adapter_state(lm))


def test_files_with_other_names_are_read_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = make_causal_lm(tmp_path / "base", tied=True)
    lm = whole(base)
    lm.model.save_pretrained(tmp_path / "inner")  # names without the first part, no head
    (tmp_path / "inner" / "config.json").write_text((base / "config.json").read_text())
    with caplog.at_level(logging.WARNING):
        expect_rows(part(tmp_path / "inner", 1), lm, 1)
    assert "takes room for the whole model" in caplog.text


def test_before_it_is_read_a_model_has_no_memory(base: Path) -> None:
    lm = empty_lm(source.read_config(base), dtype=torch.float32, attention="sdpa")
    assert all(tensor.is_meta for tensor in lm.parameters())
    for name, buffer in whole(base).named_buffers():
        assert torch.equal(lm.get_buffer(name), buffer), "positions are computed, not read"


def test_weights_of_another_shape(base: Path, tmp_path: Path) -> None:
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(UserError, match=r"gate_proj.weight is \[48, 32\], its configuration wants \[40, 32\]"):
        part(tmp_path, 0)


def test_each_layer_is_a_part() -> None:
    hide_broken_torchaudio()
    from transformers import GPT2Config, GPT2LMHeadModel

    lm = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=3, n_head=2))
    assert layers_of(lm) == list(lm.transformer.h)
    lm._no_split_modules = None
    with pytest.raises(UserError, match="does not tell the layers of a gpt2 model"):
        layers_of(lm)


def test_one_process_has_nobody_to_share_with() -> None:
    with pytest.raises(UserError, match="torchrun"):
        check_processes()
    with alone(), pytest.raises(UserError, match="torchrun"):
        check_processes()
    with member(0, 2):
        check_processes()
