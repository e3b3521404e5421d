"""What is wrong with models, pairs and options is told in a plain message, with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Runner
from tests.toy_causal_lm import make_causal_lm
from tests.toy_sft import PLUGIN, TASK, Sft, figures, make_sft


@pytest.fixture(scope="module")
def sft(run: Runner, once: Callable[[str, Callable[[Path], object]], Path]) -> Sft:
    return make_sft(run, once)


@pytest.fixture
def refuse(run: Runner, sft: Sft, tmp_path: Path) -> Callable[..., str]:
    def message(*words: str | Path, folder: Path | None = None) -> str:
        return sft.train(run, folder or tmp_path / "out", *map(str, words), "--max-epoch", "4", expect=1).error()

    return message


def test_pairs(refuse: Callable[..., str], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a river", "completion": "runs"}\n{"prompt": "a river"\n')
    message = refuse("--train-pairs", pairs)
    assert f"{pairs}, line 2" in message
    assert "not valid JSON" in message


@pytest.mark.slow
def test_no_pairs_and_no_files(refuse: Callable[..., str], tmp_path: Path, sft: Sft, run: Runner) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert f"{empty}" in refuse("--train-pairs", empty)
    assert "no such file" in refuse("--train-pairs", f"{empty}@2,{tmp_path}/none.jsonl")
    words = ("--task", "completion_sft", "--user-dir", PLUGIN, "--cpu", "--arch", "hf_causal_lm", "--max-tokens", "99")
    criterion = ("--criterion", "completion_cross_entropy", "--optimizer", "adam", "--save-dir", tmp_path / "out")
    bare = tmp_path / "bare"
    bare.mkdir()
    message = run("fairseq-train", bare, *words, *criterion, "--model", sft.base, expect=1).error()
    assert f"{bare}: has no valid.jsonl" in message


def test_options_of_adapters_all_at_once(refuse: Callable[..., str]) -> None:
    message = refuse("--lora-rank", "0", "--lora-alpha", "0", "--lora-dropout", "1", "--lora-targets", ",")
    for option in ("--lora-rank 0", "--lora-alpha", "--lora-dropout", "--lora-targets"):
        assert option in message
    message = refuse("--lora-targets", "q_proj,c_attn")
    assert "--lora-targets c_attn: matches no linear layer" in message
    assert "q_proj" in message
    assert "--quantize 4bit needs --tuning lora" in refuse("--quantize", "4bit", "--tuning", "full")


def test_models(refuse: Callable[..., str], tmp_path: Path) -> None:
    assert "no such folder" in refuse("--model", tmp_path / "nowhere" / "model")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert "holds an adapter without its base" in refuse("--model", adapter)


def test_a_model_must_be_named(run: Runner, sft: Sft, tmp_path: Path) -> None:
    words = ("--arch", "hf_causal_lm", "--criterion", "completion_cross_entropy", "--max-tokens", "100")
    done = run("fairseq-train", sft.data, *TASK, *words, "--save-dir", tmp_path, "--lora-rank", "0", expect=1)
    assert "--model is missing" in done.error()
    assert "--lora-rank 0" in done.error()


def test_a_tokenizer_without_template(refuse: Callable[..., str], tmp_path: Path) -> None:
    bare = make_causal_lm(tmp_path / "bare", chat_template=False)
    message = refuse("--model", bare, "--pair-format", "chat")
    assert "chat template" in message
    assert "--pair-format plain" in message


@pytest.mark.slow
@pytest.mark.parametrize("pad", [False, True])
def test_a_tokenizer_with_or_without_pad_is_fine(run: Runner, sft: Sft, tmp_path: Path, pad: bool) -> None:
    base = make_causal_lm(tmp_path / "base", pad=pad)
    sft.train(run, tmp_path / "out", "--model", str(base), "--max-update", "1")
    done = run(
        "fairseq-generate", sft.data, *TASK, "--path", tmp_path / "out" / "checkpoint_last.pt", "--gen-subset", "test",
        "--batch-size", "4", "--beam", "1", "--max-len-b", "4",
    )  # fmt: skip
    assert len(done.translations()) == 7


@pytest.mark.slow
def test_templates(refuse: Callable[..., str], tmp_path: Path) -> None:
    template = tmp_path / "template.txt"
    template.write_text("{completion} without the other")
    assert "{prompt}" in refuse("--pair-format", "template", "--pair-template", template)
    assert "template" in refuse("--pair-format", "template")


@pytest.mark.slow
def test_budgets(refuse: Callable[..., str], run: Runner, sft: Sft, tmp_path: Path) -> None:
    assert "--tokens-per-pair 300: more than the model's 256 positions" in refuse("--tokens-per-pair", "300")
    assert "--tokens-per-pair 200: more than --max-tokens 100" in refuse(
        "--tokens-per-pair", "200", "--max-tokens", "100"
    )
    assert "--tokens-per-pair" in refuse("--tokens-per-pair", "2")
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "the old town " * 60, "completion": "a river runs"}) + "\n")
    words = ("--train-pairs", str(long), "--tokens-per-pair", "40", "--max-update", "1")
    done = sft.train(run, tmp_path / "long-run", *words)
    assert "1 of 1" in done.log.replace("1 prompt", "1 of 1"), done.log[-3000:]
    (line,) = figures(done.log, "train")
    assert line["train_wpb"] == 40, "the whole budget; the prompt lost its beginning"


def test_continuing_with_another_base(refuse: Callable[..., str], sft: Sft, tmp_path: Path) -> None:
    other = make_causal_lm(tmp_path / "other", seed=7)
    folder = Path(shutil.copytree(sft.lora, tmp_path / "lora"))
    assert "is of another base model" in refuse("--model", other, folder=folder)


@pytest.mark.slow
def test_continuing_with_other_options(refuse: Callable[..., str], sft: Sft, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sft.lora, tmp_path / "lora"))
    assert "is of another format of pairs" in refuse("--pair-seam", "as-is", folder=folder)
    assert "is of another kind of training (lora; now full)" in refuse("--tuning", "full", folder=folder)
    message = refuse("--lora-rank", "4", folder=folder)
    assert "this model's is [4," in message
    message = refuse("--lr-scheduler", "cosine", "--max-update", "99", folder=folder)
    assert "the state of its learning-rate schedule does not fit --lr-scheduler cosine" in message
    assert "--reset-lr-scheduler" in message


@pytest.mark.slow
def test_another_format_in_generation(run: Runner, sft: Sft) -> None:
    done = run(
        "fairseq-generate", sft.data, *TASK, "--path", sft.lora / "checkpoint_best.pt", "--gen-subset", "test",
        "--pair-format", "chat", "--max-tokens", "100", expect=1,
    )  # fmt: skip
    assert "--pair-format chat: the model was trained with plain; leave it out" in done.error()


def test_generation_options_all_at_once(run: Runner, sft: Sft) -> None:
    done = run(
        "fairseq-generate", sft.data, *TASK, "--path", sft.lora / "checkpoint_best.pt", "--gen-subset", "test",
        "--max-tokens", "1000", "--print-alignment", "--diverse-beam-groups", "2", "--temperature", "0", expect=1,
    )  # fmt: skip
    for option in ("--print-alignment", "--diverse-beam-groups", "--temperature 0"):
        assert option in done.error()
    done = run(
        "fairseq-generate", sft.data, *TASK, "--path", sft.lora / "checkpoint_best.pt", "--gen-subset", "test",
        "--max-tokens", "1000", "--max-len-b", "300", expect=1,
    )  # fmt: skip
    assert "--max-len-b 300: leaves no room for a prompt" in done.error()
