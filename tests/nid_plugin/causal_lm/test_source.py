"""Opening causal LMs: what is taken, what is refused and how it is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nid_plugin.causal_lm import source
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_causal_lm


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("lm") / "toy")


@pytest.fixture
def copied(toy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy, tmp_path / "copied"))


def test_a_folder_gives_its_model(toy: Path) -> None:
    folder = source.local_folder(str(toy))
    config = source.read_config(folder)
    model = source.load_weights(folder, config, dtype=torch.float32, attention="sdpa")
    assert model(torch.tensor([[5, 6]])).logits.shape == (1, 2, config.vocab_size)
    assert not model.training
    assert source.load_tokenizer(folder).eos_token_id is not None
    assert source.positions(config) == 256


def test_what_is_no_folder_is_told(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        source.local_folder(str(tmp_path / "nowhere"))
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"nid import-gguf .*model.gguf --output DIR"):
        source.local_folder(str(gguf))
    other = tmp_path / "model.bin"
    other.write_bytes(b"x")
    with pytest.raises(UserError, match="is a file"):
        source.local_folder(str(other))


def test_a_name_that_is_not_on_the_hub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="could not be loaded from the model hub"):
        source.local_folder("nobody/no-such-model-here")


def test_an_adapter_without_its_base_is_told(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(UserError, match=r"adapter without its base .* give the folder of the base model, some/base"):
        source.local_folder(str(tmp_path))


def test_pickled_weights_are_not_opened(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin, which can hold code"):
        source.local_folder(str(copied))


def test_no_causal_lm_is_told(copied: Path) -> None:
    (copied / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UserError, match="no causal language model"):
        source.read_config(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot use its config\.json"):
        source.read_config(copied)


def test_a_tokenizer_without_end_of_text_is_told(copied: Path) -> None:
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    settings["eos_token"] = None
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    (copied / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="no end-of-text token"):
        source.load_tokenizer(copied)
    (copied / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer cannot be loaded"):
        source.load_tokenizer(copied)


def test_missing_and_damaged_weights_are_told(copied: Path) -> None:
    file = copied / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "q_proj" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, file, {"format": "pt"})
    config = source.read_config(copied)
    with pytest.raises(UserError, match=f"weights lack {name}"):
        source.load_weights(copied, config, dtype=torch.float32, attention="sdpa")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        source.load_weights(copied, config, dtype=torch.float32, attention="sdpa")
    with pytest.raises(UserError, match="damaged"):
        source.fingerprint(copied)


def test_the_fingerprint_is_of_the_weights_alone(copied: Path, toy: Path, tmp_path: Path) -> None:
    known = source.fingerprint(toy)
    file = copied / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, file, {"format": "pt"})
    assert source.fingerprint(copied) == known, "another precision"
    names = sorted(tensors)
    file.unlink()
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, copied / part, {"format": "pt"})
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    assert source.fingerprint(copied) == known, "several files"
    assert source.fingerprint(make_causal_lm(tmp_path / "other", seed=1)) != known
    (copied / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors is missing"):
        source.fingerprint(copied)


def test_another_base_is_told(toy: Path, tmp_path: Path) -> None:
    other = make_causal_lm(tmp_path / "other", seed=1)
    known = source.fingerprint(toy)
    assert source.base_of_checkpoint(str(toy), known, hint="") == toy
    with pytest.raises(UserError, match=r"another model than the checkpoint was trained on .*; name it so"):
        source.base_of_checkpoint(str(other), known, hint="name it so")
    with pytest.raises(UserError, match=r"no such folder.*; name it so"):
        source.base_of_checkpoint(str(tmp_path / "gone"), known, hint="name it so")
