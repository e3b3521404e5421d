"""Fine-tuning on completions with fairseq's commands, as a user calls them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nid_plugin.causal_lm import source
from nid_plugin.formatting import Formatter, PairFormat
from nid_plugin.pairs import read_pairs
from plugin_common.checkpoint_files import check_and_load
from tests.commands import Runner
from tests.toy_sft import PAIRS, TASK, Sft, difference, figures, make_sft, weights


@pytest.fixture(scope="module")
def sft(run: Runner, once: Callable[[str, Callable[[Path], object]], Path]) -> Sft:
    return make_sft(run, once)


# ---- training -------------------------------------------------------------------------------------------------------


def test_only_adapters_are_trained_and_saved(sft: Sft) -> None:
    state = weights(sft.lora)
    assert len(state) == 2 * 2 * 7
    assert all(".lora_" in name for name in state)
    assert any(tensor.any() for name, tensor in state.items() if "lora_B" in name)


def test_full_training_saves_all_weights(sft: Sft) -> None:
    names = weights(sft.full).keys()
    assert any("embed_tokens" in name for name in names)
    assert not any("lora" in name for name in names)


def _reference_loss(sft: Sft, split: str) -> float:
    """transformers' own loss of the base over the completions of a split, bits a token, pair by pair."""
    model = source.load_weights(sft.base, source.read_config(sft.base), dtype=torch.float32, attention="eager")
    formatter = Formatter(source.load_tokenizer(sft.base), PairFormat(), "base")
    pairs = list(read_pairs(str(sft.data / f"{split}.jsonl")))
    total, count = 0.0, 0
    for pair in formatter.pair_ids([p.prompt for p in pairs], [p.completion for p in pairs]):
        tokens = torch.tensor([pair.prompt + pair.completion])
        labels = tokens.clone()
        labels[:, : len(pair.prompt)] = -100
        with torch.no_grad():
            loss: Tensor = model(tokens, labels=labels).loss
        total, count = total + float(loss) * len(pair.completion), count + len(pair.completion)
    return total / count / math.log(2)


@pytest.mark.parametrize(
    "attention", ["packed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sdpa", "eager"))]
)
def test_the_loss_of_packed_pairs_is_transformers_own(sft: Sft, run: Runner, tmp_path: Path, attention: str) -> None:
    words = ("--max-update", "1", "--lr", "1e-12", "--max-tokens-valid", "2000", "--attention", attention)
    (line,) = figures(sft.train(run, tmp_path, *words).log, "valid")
    assert line["valid_loss"] == pytest.approx(_reference_loss(sft, "valid"), abs=1e-3)  # three digits are shown
    assert line["valid_bsz"] == PAIRS["valid"], "all pairs in one batch"


@pytest.mark.slow
def test_fine_tuning_learns(sft: Sft, run: Runner, tmp_path: Path) -> None:
    for words in ((), ("--tuning", "full"), ("--optimizer", "fused_adamw")):
        lines = figures(
            sft.train(run, tmp_path / "-".join(words or ("lora",)), *words, "--max-epoch", "3").log, "valid"
        )
        assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("--bf16",), ("--memory-efficient-bf16", "--optimizer", "fused_adamw")], ids=" ".join
)
def test_sixteen_bits_learn(sft: Sft, run: Runner, tmp_path: Path, words: tuple[str, ...]) -> None:
    lines = figures(sft.train(run, tmp_path, *words, "--max-epoch", "3").log, "valid")
    assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]
    assert all(torch.equal(tensor, tensor.bfloat16().float()) for tensor in weights(tmp_path).values())


@pytest.mark.slow
def test_checkpointed_gradients_are_the_same(sft: Sft, run: Runner, tmp_path: Path) -> None:
    words = ("--max-update", "2")
    sft.train(run, tmp_path / "plain", *words)
    sft.train(run, tmp_path / "checkpointed", *words, "--gradient-checkpointing")
    assert difference(weights(tmp_path / "plain"), weights(tmp_path / "checkpointed")) < 1e-6


@pytest.mark.slow
def test_accumulated_batches_are_one_big_batch(sft: Sft, run: Runner, tmp_path: Path) -> None:
    """Every token counts alike, whatever the batches' sizes."""
    sft.train(run, tmp_path / "one", "--max-update", "1", "--max-tokens", "100000")
    small = ("--max-tokens", "200", "--update-freq", "100")
    sft.train(run, tmp_path / "many", "--max-update", "1", *small)
    assert difference(weights(tmp_path / "one"), weights(tmp_path / "many")) < 1e-5


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(("--max-epoch", "2"), id="epoch", marks=pytest.mark.slow),
        pytest.param(("--max-update", "7", "--save-interval-updates", "7"), id="update"),
    ],
)
def test_resumed_is_uninterrupted_bit_for_bit(sft: Sft, run: Runner, tmp_path: Path, stop: tuple[str, ...]) -> None:
    options = ("--lora-dropout", "0.1", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "4", "--bf16")
    sft.train(run, tmp_path / "whole", *options, "--max-epoch", "3")
    sft.train(run, tmp_path / "parts", *options, *stop)
    log = sft.train(run, tmp_path / "parts", *options, "--max-epoch", "3").log
    assert "Loaded checkpoint" in log
    assert difference(weights(tmp_path / "whole"), weights(tmp_path / "parts")) == 0.0


@pytest.mark.slow
def test_files_with_weights(sft: Sft, run: Runner, tmp_path: Path) -> None:
    files = f"{sft.data}/train.jsonl@2,{sft.data}/valid.jsonl"
    log = sft.train(run, tmp_path, "--train-pairs", files, "--max-epoch", "1", "--max-tokens", "100000").log
    (line,) = figures(log, "train")
    assert line["train_bsz"] * line["train_num_updates"] == 2 * PAIRS["train"] + PAIRS["valid"]


@pytest.mark.slow
def test_padding_and_lost_batches_there_are_none(sft: Sft, run: Runner, tmp_path: Path) -> None:
    log = sft.train(run, tmp_path, "--max-epoch", "1").log
    (line,) = figures(log, "train")
    assert line["train_bsz"] * line["train_num_updates"] == pytest.approx(PAIRS["train"], abs=1)
    assert line["train_wpb"] <= 256


# ---- validation and generation --------------------------------------------------------------------------------------


def test_validate_gives_the_trainings_own_loss(sft: Sft, run: Runner) -> None:
    for folder in (sft.lora, sft.full):
        path = folder / "checkpoint_best.pt"
        done = run(
            "fairseq-validate", sft.data, *TASK, "--path", path, "--valid-subset", "valid,test", "--max-tokens", "512",
            "--log-format", "json",
        )  # fmt: skip
        best = check_and_load(path)["extra_state"]["best"]
        (line,) = figures(done.log, "valid")
        assert line["valid_loss"] == pytest.approx(best, abs=2e-3)
        assert figures(done.log, "test")


def _generate(run: Runner, sft: Sft, folder: Path, *words: str) -> dict[int, str]:
    done = run(
        "fairseq-generate", sft.data, *TASK, "--path", folder / "checkpoint_best.pt", "--gen-subset", "test",
        "--batch-size", "4", "--max-len-b", "12", *words,
    )  # fmt: skip
    assert sorted(done.lines("H")) == list(range(PAIRS["test"])), "each prompt once"
    return done.translations()


def test_generation_in_batches_is_generation_one_by_one(sft: Sft, run: Runner) -> None:
    together = _generate(run, sft, sft.lora, "--beam", "1")
    alone = _generate(run, sft, sft.lora, "--beam", "1", "--batch-size", "1")
    assert together == alone
    assert any(together.values())


@pytest.mark.slow
def test_a_full_checkpoint_generates(sft: Sft, run: Runner) -> None:
    assert any(_generate(run, sft, sft.full, "--beam", "2").values())


@pytest.mark.slow
def test_sampling_follows_the_seed(sft: Sft, run: Runner) -> None:
    words = ("--beam", "1", "--sampling", "--sampling-topp", "0.9", "--temperature", "0.8")
    one, again, other = (_generate(run, sft, sft.lora, *words, "--seed", seed) for seed in ("1", "1", "2"))
    assert one == again
    assert one != other


def test_scores_are_the_models_log_probabilities(sft: Sft, run: Runner) -> None:
    """Those of the P- lines, against the whole softmax of the merged computation."""
    done = run(
        "fairseq-generate", sft.data, *TASK, "--path", sft.full / "checkpoint_best.pt", "--gen-subset", "test",
        "--batch-size", "3", "--max-len-b", "6", "--beam", "1",
    )  # fmt: skip
    state = {
        name.removeprefix("causal_lm.lm."): tensor for name, tensor in weights(sft.full, "checkpoint_best.pt").items()
    }
    model = source.load_weights(sft.base, source.read_config(sft.base), dtype=torch.float32, attention="eager")
    model.load_state_dict(state)
    formatter = Formatter(source.load_tokenizer(sft.base), PairFormat(), "base")
    prompts = [pair.prompt for pair in read_pairs(str(sft.data / "test.jsonl"))]
    for index, ids in enumerate(formatter.prompt_ids(prompts)):
        tokens = torch.tensor([ids])
        expected = []
        with torch.no_grad():
            for _ in range(6):
                scores, best = model(tokens).logits[0, -1].log_softmax(dim=-1).max(dim=-1)
                expected.append(float(scores) / math.log(2))
                tokens = torch.cat([tokens, best.view(1, 1)], dim=1)
                if int(best) == formatter.end_ids[-1]:
                    break
        shown = [float(value) for value in done.lines("P")[index].split()]
        assert shown == pytest.approx(expected, abs=2e-4)
        assert float(done.lines("H")[index].split("\t")[0]) == pytest.approx(sum(expected) / len(expected), abs=1e-3)


def test_interactive_answers_each_line_in_order(sft: Sft, run: Runner) -> None:
    lines = ["the old town", r"a river\nruns", "", "birds sing in green trees"]
    done = run(
        "fairseq-interactive", sft.data, *TASK, "--path", sft.lora / "checkpoint_best.pt", "--beam", "1",
        "--max-len-b", "5", "--buffer-size", "4", "--batch-size", "2", input="\n".join(lines) + "\n",
    )  # fmt: skip
    assert list(done.lines("H")) == [0, 1, 2, 3]
    assert r"a river\nruns" in done.lines("S")[1]
    assert "input line 3 is empty" in done.log


@pytest.mark.slow
def test_all_beams_can_be_seen(sft: Sft, run: Runner) -> None:
    done = run(
        "fairseq-interactive", sft.data, *TASK, "--path", sft.lora / "checkpoint_best.pt", "--beam", "3", "--nbest",
        "3", "--max-len-b", "4", input="the old town\n",
    )  # fmt: skip
    assert done.stdout.count("H-0\t") == 3
