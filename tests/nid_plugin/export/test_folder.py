"""What stands beside the weights in an exported folder."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nid_plugin.causal_lm import lora, source
from nid_plugin.causal_lm.lm import config_to_json
from nid_plugin.causal_lm.lora import LoraOptions
from nid_plugin.export import folder
from nid_plugin.export.checkpoint import Trained
from nid_plugin.formatting import PairFormat
from tests.toy_causal_lm import make_causal_lm

TOKENS = torch.tensor([[1, 20, 30, 40, 50, 60]])
BOS, EOS, IM_END = 0, 1, 317  # of the toy tokenizer; its chat template ends turns with the third


def trained(base: Path, targets: str = "all-linear", kind: str = "plain") -> tuple[Trained, Any]:
    """Random adapters on a base, and the model with them."""
    config = source.read_config(base)
    model = source.load_weights(base, config, dtype=torch.float32, attention="sdpa")
    options = LoraOptions.from_options(4, 8.0, 0.0, targets)
    lora.add_adapters(model, options)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    told = Trained(
        path=Path("checkpoint.pt"), updates=7, base=str(base), fingerprint=None, lm_config=config_to_json(config),
        pair_format=PairFormat(kind), adapters=options, state=lora.adapter_state(model),  # type: ignore[arg-type]
    )  # fmt: skip
    return told, model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def merged(told: Trained, base: Path, output: Path) -> Path:
    folder.write_merged(told, base, output, dtype=None, name="toy", about=None)
    return output


def adapter(told: Trained, base: Path, output: Path, base_as: str | None = None) -> Path:
    folder.write_adapter(told, base, output, base_as=base_as, name="toy", about=None)
    return output


@pytest.mark.parametrize(
    "targets",
    [
        "q_proj,v_proj",
        "model.layers.0.self_attn.q_proj,model.layers.1.mlp.down_proj",
        "layers.1.self_attn.k_proj,lm_head",
    ],
)
def test_adapters_on_some_layers(tmp_path: Path, targets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import AutoPeftModelForCausalLM

    base = make_causal_lm(tmp_path / "base", tied=False)
    told, model = trained(base, targets)
    adapter(told, base, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["target_modules"] == sorted(targets.split(","))
    monkeypatch.chdir("/")
    loaded = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter"), dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    whole = AutoModelForCausalLM.from_pretrained(merged(told, base, tmp_path / "merged"), dtype=torch.float32)
    torch.testing.assert_close(logits(whole), logits(model), rtol=1e-5, atol=1e-5)


def test_the_same_adapter_is_written_alike(tmp_path: Path) -> None:
    base = make_causal_lm(tmp_path / "base")
    told, _ = trained(base)
    one, other = (adapter(told, base, tmp_path / name, base_as="owner/base") for name in ("one", "other"))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    modules = json.loads((one / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)


def test_generation_ends_where_the_training_did(tmp_path: Path) -> None:
    """The chat template's end of turn is another token than the tokenizer's EOS."""
    base = make_causal_lm(tmp_path / "base")
    for kind, ends in {"chat": [IM_END, EOS], "plain": EOS}.items():
        told, _ = trained(base, kind=kind)
        out = merged(told, base, tmp_path / kind)
        assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == ends
    card = (tmp_path / "chat" / "README.md").read_text()
    assert "| a completion ends with | `<|im_end|>` |" in card


def test_the_bases_generation_settings_are_kept(tmp_path: Path) -> None:
    base = make_causal_lm(tmp_path / "base")
    settings = {"eos_token_id": [EOS, 5], "do_sample": True, "temperature": 0.6, "_from_model_config": True}
    (base / "generation_config.json").write_text(json.dumps(settings))
    told, _ = trained(base, kind="chat")
    found = json.loads((merged(told, base, tmp_path / "out") / "generation_config.json").read_text())
    assert found == {"eos_token_id": [IM_END, EOS, 5], "do_sample": True, "temperature": 0.6}
    (base / "generation_config.json").unlink()
    found = json.loads((merged(told, base, tmp_path / "without") / "generation_config.json").read_text())
    assert found == {"bos_token_id": BOS, "eos_token_id": [IM_END, EOS]}


def front_matter(card: str) -> Any:
    import yaml

    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_names_a_base_of_the_hub_alone(tmp_path: Path) -> None:
    base = make_causal_lm(tmp_path / "base")
    told, _ = trained(base)
    card = (adapter(told, base, tmp_path / "one") / "README.md").read_text()
    assert front_matter(card) == {"library_name": "peft", "pipeline_tag": "text-generation"}
    card = (adapter(told, base, tmp_path / "two", base_as="owner/base-1") / "README.md").read_text()
    assert front_matter(card)["base_model"] == "owner/base-1"
    assert "vllm serve owner/base-1 " in card
    moved = Path(shutil.move(base, tmp_path / "moved"))
    card = (merged(told, moved, tmp_path / "three") / "README.md").read_text()
    assert f"| base | `{moved}` |" in card
    card = (adapter(told, moved, tmp_path / "four", base_as=f"..{os.sep}moved") / "README.md").read_text()
    assert "base_model" not in front_matter(card)


def test_the_tokenizers_files_are_the_bases(tmp_path: Path) -> None:
    base = make_causal_lm(tmp_path / "base")
    out = merged(trained(base)[0], base, tmp_path / "with")
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").read_text() != (base / "chat_template.jinja").read_text()
    assert source.load_tokenizer(out).get_vocab() == source.load_tokenizer(base).get_vocab()
