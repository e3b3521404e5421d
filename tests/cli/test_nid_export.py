"""``nid export``: what comes out computes what was trained, in the libraries that will load it."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nid_plugin import cli
from nid_plugin.causal_lm import lora, source
from nid_plugin.causal_lm.lora import LoraOptions
from tests.commands import Runner
from tests.toy_causal_lm import make_causal_lm
from tests.toy_sft import TASK, Sft, make_sft, weights

TOKENS = torch.tensor([[1, 20, 30, 40, 50, 60]])


@pytest.fixture(scope="module")
def sft(run: Runner, once: Callable[[str, Callable[[Path], object]], Path]) -> Sft:
    return make_sft(run, once)


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def base(sft: Sft) -> torch.nn.Module:
    return source.load_weights(sft.base, source.read_config(sft.base), dtype=torch.float32, attention="sdpa")


def trained(sft: Sft, folder: Path) -> Tensor:
    """Logits of the checkpoint by way of transformers and peft, without the export."""
    state = {name.removeprefix("causal_lm.lm."): tensor for name, tensor in weights(folder).items()}
    model = base(sft)
    if folder == sft.full:
        model.load_state_dict(state)
    else:
        lora.add_adapters(model, LoraOptions())
        lora.load_adapter_state(model, state, "the checkpoint")
    found = logits(model)
    assert not torch.allclose(found, logits(base(sft)), atol=1e-3), "training changed the model"
    return found


def export(folder: Path, output: Path, *words: str | Path, expect: int = 0) -> str:
    """What ``nid export`` prints; where it has to fail, its message."""
    return nid("--checkpoint", folder / "checkpoint_last.pt", "--output", output, *words, expect=expect)


def nid(*words: str | Path, expect: int = 0) -> str:
    """Run ``nid export`` within this process: to import its libraries takes longer than its work."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(["export", *map(str, words)])
    assert status == expect, err.getvalue()
    return (err if expect else out).getvalue()


def test_an_adapter_loads_in_peft_with_equal_logits(sft: Sft, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    out = tmp_path / "adapter"
    told = export(sft.lora, out)
    assert f"adapter of {sft.base}" in told
    model = AutoPeftModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    torch.testing.assert_close(logits(model), trained(sft, sft.lora), rtol=0, atol=0)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (8, 16, True)
    assert source.load_tokenizer(out).get_vocab() == source.load_tokenizer(sft.base).get_vocab()
    assert "library_name: peft" in (out / "README.md").read_text()


def test_a_merged_model_loads_in_transformers_with_equal_logits(sft: Sft, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = tmp_path / "merged"
    about = tmp_path / "about.md"
    about.write_text("Toy pairs.\n")
    assert "whole model" in export(sft.lora, out, "--merge", "--about", about, "--model-name", "toy-1")
    model = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    torch.testing.assert_close(logits(model), trained(sft, sft.lora), rtol=1e-5, atol=1e-5)
    card = (out / "README.md").read_text()
    for part in ("# toy-1", "Toy pairs.", "LoRA, rank 8", "all-linear", "library_name: transformers", "updates"):
        assert part in card
    export(sft.lora, tmp_path / "half", "--merge", "--dtype", "bfloat16")
    half = AutoModelForCausalLM.from_pretrained(str(tmp_path / "half"))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(logits(half).float(), trained(sft, sft.lora), rtol=0.1, atol=0.1)


def test_weights_in_several_files_stay_in_several(sft: Sft, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(str(sft.base)).save_pretrained(sharded, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(sft.base / name, sharded / name)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    out = tmp_path / "merged"
    export(sft.lora, out, "--merge", "--base", sharded)
    assert len(list(out.glob("*.safetensors"))) == len(list(sharded.glob("*.safetensors")))
    model = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    torch.testing.assert_close(logits(model), trained(sft, sft.lora), rtol=1e-5, atol=1e-5)


def test_a_full_model_loads_with_equal_logits(sft: Sft, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = tmp_path / "full"
    export(sft.full, out)
    model = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    torch.testing.assert_close(logits(model), trained(sft, sft.full), rtol=0, atol=0)


@pytest.mark.slow
def test_an_exported_model_can_be_trained_on(run: Runner, sft: Sft, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    export(sft.lora, out, "--merge")
    made = Sft(out, sft.data, sft.lora, sft.full)
    made.train(run, tmp_path / "again", "--max-update", "1")


def test_what_cannot_be_exported_is_told(sft: Sft, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    assert "exists and is not empty" in export(sft.lora, taken, expect=1)
    out = tmp_path / "out"
    assert "--dtype: is for whole models" in export(sft.lora, out, "--dtype", "float32", expect=1)
    assert "--merge: is for adapters" in export(sft.full, out, "--merge", expect=1)
    other = make_causal_lm(tmp_path / "other", seed=5)
    message = export(sft.lora, out, "--base", other, expect=1)
    assert "is another model than the checkpoint was trained on" in message
    assert "name it with --base FOLDER" in message
    foreign = tmp_path / "foreign.pt"
    torch.save({"model": {"x": torch.zeros(1)}, "cfg": {"model": {"_name": "ctc_pmlm"}}}, foreign)
    message = nid("--checkpoint", foreign, "--output", out, expect=1)
    assert "is a checkpoint of ctc_pmlm, expected one of `fairseq-train --task completion_sft" in message
    assert not out.exists()


@pytest.mark.slow
def test_a_moved_base_is_named_by_hand(run: Runner, sft: Sft, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(sft.base, tmp_path / "moved"))
    made = Sft(moved, sft.data, tmp_path / "lora", sft.full)
    made.train(run, made.lora, "--max-update", "2")
    now = moved.rename(tmp_path / "now")
    message = export(made.lora, tmp_path / "out", expect=1)
    assert "the checkpoint's base" in message
    assert "no such folder" in message
    export(made.lora, tmp_path / "out", "--base", now)
    words = ("--path", made.lora / "checkpoint_last.pt", "--max-len-b", "3", "--beam", "1")
    line = "the old town\n"
    failed = run("fairseq-interactive", sft.data, *TASK, *words, input=line, expect=1)
    assert "--model-overrides" in failed.error()
    overrides = ("--model-overrides", repr({"model": str(now)}))
    assert run("fairseq-interactive", sft.data, *TASK, *words, *overrides, input=line).translations()
