"""The task in this process: data, formats and tokens that do not fit each other."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from nid_plugin.causal_lm import packed_attention
from nid_plugin.criterions.completion_cross_entropy import CompletionCrossEntropyConfig
from nid_plugin.models.hf_causal_lm import HfCausalLmConfig
from nid_plugin.tasks.completion_sft import CompletionSftConfig, CompletionSftTask
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_causal_lm, write_toy_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("base"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, (name, count) in enumerate({"train": 9, "valid": 5, "valid1": 4, "valid2": 3}.items()):
        write_toy_pairs(tmp_path / f"{name}.jsonl", count, seed)
    return tmp_path


def model_settings(base: Path, **options: Any) -> Any:
    plain = {"bf16": False, "memory_efficient_bf16": False, "fp16": False, "memory_efficient_fp16": False}
    cfg = OmegaConf.structured(HfCausalLmConfig(model=str(base), **plain, **options))
    OmegaConf.update(cfg, "_name", "hf_causal_lm", force_add=True)
    return cfg


def make_task(data: Path, **options: Any) -> CompletionSftTask:
    sizes = {"max_tokens": 250, "max_tokens_valid": 250, "max_len_b": 5}
    return CompletionSftTask.setup_task(
        OmegaConf.structured(CompletionSftConfig(data=str(data), **{**sizes, **options}))
    )


def training(data: Path, base: Path, **options: Any) -> CompletionSftTask:
    """The task as fairseq-train sets it up."""
    task = make_task(data, **options)
    task.build_model(model_settings(base))
    criterion = OmegaConf.structured(CompletionCrossEntropyConfig())
    OmegaConf.update(criterion, "_name", "completion_cross_entropy", force_add=True)
    task.build_criterion(criterion)
    return task


def test_numbered_validation_sets_are_combined_on_demand(data: Path, base: Path) -> None:
    task = training(data, base)
    task.load_dataset("valid")
    assert len(task.dataset("valid")) == 5
    task.load_dataset("valid", combine=True)
    assert len(task.dataset("valid")) == 5 + 4 + 3
    task.load_dataset("train", combine=True)
    assert len(task.dataset("train")) == 9


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"prompt": "a river"', "not valid JSON"),
        (json.dumps({"prompt": "a river"}), 'a pair needs a text "completion"'),
        (json.dumps({"prompt": "a river", "completion": 3}), 'a pair needs a text "completion", found int'),
        (json.dumps({"prompt": "a river", "completion": " "}), '"completion" is empty'),
        (json.dumps({"prompt": "", "completion": "runs"}), '"prompt" is empty'),
        (json.dumps(["a river", "runs"]), "one JSON object a line is expected"),
        (json.dumps({"prompt": "a \ud800 river", "completion": "runs"}), r"\ud800 without its other half is no valid"),
        (json.dumps({"prompt": "a river", "completion": "r\udc01"}), r"\udc01 without its other half is no valid"),
    ],
)
def test_what_is_no_pair_is_told_with_its_line(data: Path, base: Path, line: str, told: str) -> None:
    good = json.dumps({"prompt": "a river", "completion": "runs"})
    (data / "train.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(UserError) as caught:
        training(data, base).load_dataset("train")
    assert f"{data}/train.jsonl, line 2: " in str(caught.value)
    assert told in str(caught.value)


def test_what_is_no_unicode_matters_in_prompts_and_completions_alone(data: Path, base: Path) -> None:
    pair = {"prompt": "a river", "completion": "runs", "source": "page \ud800"}
    (data / "train.jsonl").write_text(json.dumps(pair))
    task = training(data, base)
    task.load_dataset("train")
    assert len(task.dataset("train")) == 1


def test_a_prompt_as_long_as_the_budget_loses_its_beginning(data: Path, base: Path) -> None:
    (data / "train.jsonl").write_text(json.dumps({"prompt": "the old town " * 60, "completion": "a river runs"}))
    task = training(data, base, tokens_per_pair=40)
    task.load_dataset("train")
    pair = task.dataset("train")[0]
    assert len(pair["tokens"]) == 40
    assert pair["tokens"][0] == 0, "<s> stays"
    assert task.formatter.completion_text(pair["tokens"][pair["prompt_length"] :].tolist()) == "a river runs"
    with pytest.raises(UserError, match=r"--tokens-per-pair 2. leaves no room"):
        training(data, base, tokens_per_pair=2).load_dataset("train")
    with pytest.raises(UserError, match=r"more than the model's 256 positions"):
        training(data, base, tokens_per_pair=300).load_dataset("train")


def with_token(base: Path, folder: Path, token: str) -> Path:
    """The model, whose tokenizer alone gets a token more."""
    from transformers import AutoTokenizer

    shutil.copytree(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.add_tokens([token]) == 1
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_without_embedding_are_told(data: Path, base: Path) -> None:
    task = training(data, with_token(base, data / "base", "river"))
    with pytest.raises(UserError, match=r"train.jsonl: has 'river', token (\d+) .* embeddings for \1 tokens only"):
        task.load_dataset("train")
    (data / "valid.jsonl").write_text(json.dumps({"prompt": "old", "completion": "town"}))
    task.load_dataset("valid")
    with pytest.raises(UserError, match="input line 2: has 'river'"):
        task.get_interactive_tokens_and_lengths(["old", "the river"], None)


def test_an_empty_line_is_the_beginning_of_a_text(data: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the tokenizer puts nothing in front."""
    bare = Path(shutil.copytree(base, data / "bare"))
    settings = json.loads((bare / "tokenizer.json").read_text())
    (bare / "tokenizer.json").write_text(json.dumps({**settings, "post_processor": None}))
    for folder in (base, bare):
        task = training(data, folder)
        with caplog.at_level(logging.WARNING):
            tokens, lengths = task.get_interactive_tokens_and_lengths(["old", "", "town"], None)
        assert "input line 2 is empty" in caplog.text
        assert tokens[1].tolist() == [0], "<s>"
        batch = task.build_dataset_for_inference(tokens, lengths)
        assert len(batch) == 3


def test_the_format_of_the_training_stays(data: Path, base: Path) -> None:
    cfg = model_settings(base)
    make_task(data, pair_seam="as-is").build_model(cfg)
    assert json.loads(cfg.trained_format)["seam"] == "as-is"
    make_task(data).build_model(cfg, from_checkpoint=True)
    make_task(data, pair_seam="as-is").build_model(cfg, from_checkpoint=True)
    with pytest.raises(UserError) as caught:
        make_task(data, pair_seam="space", pair_format="chat").build_model(cfg, from_checkpoint=True)
    assert "--pair-seam space: the model was trained with as-is" in str(caught.value)
    assert "--pair-format chat: the model was trained with plain" in str(caught.value)


def test_continuing_needs_the_settings_of_the_training(data: Path, base: Path) -> None:
    task = make_task(data)
    cfg = model_settings(base)
    task.build_model(cfg)
    task.check_checkpoint_settings(cfg)
    task.check_checkpoint_settings({})
    with pytest.raises(UserError, match=r"is of another --lora-alpha \(32.0; now 16.0\)"):
        task.check_checkpoint_settings({**cfg, "lora_alpha": 32.0})
    full = model_settings(base, tuning="full")
    task.build_model(full)
    task.check_checkpoint_settings({**full, "lora_alpha": 32.0, "base_fingerprint": "of the weights before"})


def test_the_base_is_found_from_other_working_folders(data: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    cfg = model_settings(Path(base.name))
    make_task(data).build_model(cfg)
    assert cfg.model == str(base)
    monkeypatch.chdir(data)
    make_task(data).build_model(cfg, from_checkpoint=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_leave_the_positions_exact(data: Path, base: Path, dtype: torch.dtype) -> None:
    """The trainer converts the whole module; frequencies of rotary positions stay those of transformers."""
    model = make_task(data).build_model(model_settings(base, tuning="full"))
    rotary = model.causal_lm.lm.model.rotary_emb
    exact = rotary.inv_freq.clone()
    model.to(dtype=dtype)
    assert all(weight.dtype == dtype for weight in model.parameters())
    assert rotary.inv_freq.dtype == torch.float32
    assert torch.equal(rotary.inv_freq, exact)


def test_files_of_the_training_are_read_again_with_a_warning(
    data: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """fairseq-validate fills in the training's options: DATA alone would seem to be read."""
    cfg, options = model_settings(base), {"valid_pairs": str(data / "valid1.jsonl")}
    task = make_task(data, **options)
    task.build_model(cfg)
    task.load_dataset("valid")
    assert "of the training" not in caplog.text
    task = make_task(data, **options)
    task.build_model(cfg, from_checkpoint=True)
    task.load_dataset("valid")
    assert "of the training" not in caplog.text, "fairseq-generate takes the options that are given"
    task.build_criterion(OmegaConf.structured(CompletionCrossEntropyConfig()))
    task.load_dataset("valid")
    assert f"reads --valid-pairs {options['valid_pairs']} (of the training, if not given now)" in caplog.text
    assert f"nothing of {data};" in caplog.text


def test_flash_attention_that_cannot_be_is_told_before_the_weights_are_read(
    data: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attention, "has_flash_attention", lambda: False)
    with pytest.raises(
        UserError, match=r"needs CUDA and `pip install flash-attn`(.|\n)*needs weights of 16 bits: add --bf16"
    ):
        make_task(data).build_model(model_settings(base, attention="flash_attention_2"))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_training_with_flash_attention_is_read_without(
    data: Path, base: Path, tuning: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = model_settings(base, tuning=tuning)
    make_task(data).build_model(cfg)
    cfg.attention = "flash_attention_2"
    monkeypatch.setattr(packed_attention, "has_flash_attention", lambda: False)
    with caplog.at_level(logging.INFO):
        model = make_task(data).build_model(cfg, from_checkpoint=True)
    assert model.causal_lm.attention == "packed"
    assert "packed computes the same" in caplog.text
    settings = {**json.loads(cfg.lm_config), "model_type": "gemma2", "attn_logit_softcapping": 50.0}
    if tuning == "full":  # nothing of the base is read
        cfg.lm_config = json.dumps(settings)
        assert make_task(data).build_model(cfg, from_checkpoint=True).causal_lm.attention == "eager"
