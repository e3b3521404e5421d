"""``fairseq-train`` and ``fairseq-validate`` as a user calls them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from plugin_common.checkpoint_files import check_and_load
from tests.commands import PLUGIN, Finished, Runner
from tests.toy import LINES, SHAPE, TASK, TRAIN, Toy

SETTINGS = (*TASK, *SHAPE, *TRAIN, "--max-tokens", "300")


def epochs(log: str, name: str = "train") -> list[dict[str, str]]:
    """The figures of each ``| train | epoch 001 | loss 7.1 | …`` line."""
    lines = re.findall(rf"\| {name} \| (epoch .*)", log)
    return [dict(part.strip().rsplit(" ", 1) for part in line.split(" | ") if "valid on" not in part) for line in lines]


def weights(folder: Path, name: str = "checkpoint_last.pt") -> dict[str, torch.Tensor]:
    return check_and_load(folder / name)["model"]


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


# ---- a training from beginning to end -------------------------------------------------------------------------------


def test_bleu_chooses_the_best_checkpoint_from_the_first_epoch_on(toy: Toy) -> None:
    scores = [float(figures["bleu"]) for figures in epochs(toy.log, "valid")]
    assert len(scores) == 14
    assert scores[0] == 0, "while all hypotheses are empty"
    assert scores[-1] > 99
    assert float(epochs(toy.log, "valid")[-1]["best_bleu"]) == max(scores)
    assert toy.best.is_file()


def test_each_epoch_sees_every_sentence_and_counts_the_infeasible_one(toy: Toy) -> None:
    updates = 0
    for figures in epochs(toy.log):
        done = int(figures["num_updates"]) - updates
        updates += done
        assert round(float(figures["bsz"]) * done) == pytest.approx(LINES["train"], abs=1)
        assert figures["infeasible"] == "1"
        assert figures["infeasible_pct"] == "0.17"
    assert "train: 1 of 603 targets (0.17 %) are longer than their source up-sampled 2.0 times" in toy.log
    assert ": line 12\n" in toy.log


def test_the_command_prints_no_notices_of_libraries(toy: Toy) -> None:
    assert "Warning" not in toy.log


@pytest.mark.parametrize("multiple", ["1", "8", "64"])
def test_every_sentence_is_trained_on_whatever_the_multiple(
    toy: Toy, run: Runner, tmp_path: Path, multiple: str
) -> None:
    done = run(
        "fairseq-train", toy.bin, *SETTINGS, "--batch-size", "48", "--required-batch-size-multiple", multiple,
        "--max-epoch", "1", "--save-dir", tmp_path, "--no-save",
    )  # fmt: skip
    (figures,) = epochs(done.log)
    assert float(figures["bsz"]) * int(figures["num_updates"]) == pytest.approx(LINES["train"], abs=1)


def test_validation_sees_every_sentence(toy: Toy, run: Runner) -> None:
    done = run(
        "fairseq-validate", toy.bin, *TASK, "--path", toy.best, "--valid-subset", "valid,test", "--batch-size", "16",
        "--log-format", "json",
    )  # fmt: skip
    for name, count in (("valid", LINES["valid"]), ("test", LINES["test"])):
        line = next(line for line in done.log.split("\n") if f'"{name}_loss"' in line)
        figures = json.loads(line[line.index("{") :])
        assert float(figures[f"{name}_bsz"]) == count
        assert 0 < float(figures[f"{name}_loss"]) < 1


# ---- precision ------------------------------------------------------------------------------------------------------


def short_training(run: Runner, toy: Toy, folder: Path, *words: str, **options: Any) -> Finished:
    return run(
        "fairseq-train", toy.bin, *SETTINGS, "--max-update", "16", "--save-dir", folder, "--no-epoch-checkpoints",
        *words, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words", [("--bf16",), ("--memory-efficient-bf16",), ("--fp16", "--fp16-init-scale", "1")], ids=" ".join
)
def test_half_precision_learns_on_a_cpu(run: Runner, toy: Toy, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = short_training(run, toy, tmp_path, *words)
    first, last = epochs(done.log)
    assert 0 < float(last["loss"]) < float(first["loss"])
    kind = torch.float16 if "--fp16" in words else torch.bfloat16
    assert all(torch.equal(value, value.to(kind).float()) for value in weights(tmp_path).values())


# ---- continuing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stop", [("--max-epoch", "2"), ("--max-update", "20", "--save-interval-updates", "20")], ids="-".join
)
def test_resumed_is_uninterrupted_bit_for_bit(run: Runner, toy: Toy, tmp_path: Path, stop: tuple[str, ...]) -> None:
    """Over the end of an epoch, and from within one; with dropout, warm-up and several epochs."""
    options = (
        "--dropout",
        "0.1",
        "--attention-dropout",
        "0.1",
        "--lr-scheduler",
        "inverse_sqrt",
        "--warmup-updates",
        "30",
    )

    def train(folder: str, *words: str) -> str:
        return run("fairseq-train", toy.bin, *SETTINGS, *options, "--save-dir", tmp_path / folder, *words).log

    train("whole", "--max-epoch", "4")
    train("parts", *stop)
    log = train("parts", "--max-epoch", "4")
    assert "Loaded checkpoint" in log
    whole, parts = (check_and_load(tmp_path / folder / "checkpoint_last.pt") for folder in ("whole", "parts"))
    assert difference(whole["model"], parts["model"]) == 0.0
    assert whole["optimizer_history"][-1]["num_updates"] == parts["optimizer_history"][-1]["num_updates"]
    for one, other in zip(
        whole["last_optimizer_state"]["state"].values(), parts["last_optimizer_state"]["state"].values(), strict=True
    ):
        assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])


def test_finetuning_starts_from_the_given_weights(run: Runner, toy: Toy, tmp_path: Path) -> None:
    done = short_training(
        run,
        toy,
        tmp_path,
        "--finetune-from-model",
        str(toy.best),
        "--lr",
        "1e-9",
        "--dropout",
        "0",
        "--max-update",
        "1",
    )
    assert "loading pretrained model from" in done.log
    assert difference(weights(tmp_path), weights(toy.folder / "run", "checkpoint_best.pt")) < 1e-7


# ---- options --------------------------------------------------------------------------------------------------------


def test_the_plugin_may_be_named_by_a_relative_path(run: Runner, toy: Toy, tmp_path: Path) -> None:
    words = [word if word != PLUGIN else "nat_plugin/" for word in SETTINGS]
    run("fairseq-train", toy.bin, *words, "--max-update", "1", "--no-save", cwd=Path(PLUGIN).parent)


def test_help_shows_everything(run: Runner) -> None:
    done = run("fairseq-train", "--user-dir", PLUGIN, "--task", "ctc_nat", "--arch", "ctc_xlmr_base", "--criterion",
               "ctc_nat_loss", "--help")  # fmt: skip
    for option in ("--upsample-ratio", "--pmlm PMLM", "--impossible-targets", "--ctc-chunk-rows", "--max-update"):
        assert option in done.stdout
    assert not done.stderr


def test_ema_and_chunked_loss_and_mask_as_blank(run: Runner, toy: Toy, tmp_path: Path) -> None:
    done = short_training(
        run, toy, tmp_path, "--store-ema", "--ema-decay", "0.9", "--ctc-chunk-rows", "50", "--blank-symbol", "<mask>",
        "--upsampler", "token_duplication", "--upsample-ratio", "1.5",
    )  # fmt: skip
    first, last = epochs(done.log)
    assert float(last["loss"]) < float(first["loss"])
    assert "ema" in check_and_load(tmp_path / "checkpoint_last.pt")["extra_state"]


def test_a_users_own_up_sampler(run: Runner, toy: Toy, tmp_path: Path) -> None:
    """Extending means: a package of one's own that imports the plugin and registers a class."""
    package = tmp_path / "my_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import nat_plugin\n"
        "nat_plugin.register()\n"
        "from nat_plugin.models.upsamplers import MaskInsertion, register_upsampler\n\n\n"
        '@register_upsampler("right_to_left")\n'
        "class RightToLeft(MaskInsertion):\n"
        "    def __call__(self, tokens, lengths, max_length):\n"
        "        return super().__call__(tokens, lengths, max_length)\n"
    )
    words = [word if word != PLUGIN else str(package) for word in SETTINGS]
    save = tmp_path / "run"
    run("fairseq-train", toy.bin, *words, "--upsampler", "right_to_left", "--max-update", "1", "--save-dir", save)
    generate = ("fairseq-generate", toy.bin, "--task", "ctc_nat", "--cpu", "--path", save / "checkpoint_last.pt")
    run(*generate, "--user-dir", package, "--scoring", "sacrebleu")
    message = run(*generate, "--user-dir", PLUGIN, expect=1).error()
    assert "--upsampler right_to_left: unknown; registered are mask_insertion, token_duplication" in message


def test_checkpoints_survive_an_interrupted_copy(run: Runner, toy: Toy, tmp_path: Path) -> None:
    """No temporary file is left, and the copies are the original."""
    run("fairseq-train", toy.bin, *SETTINGS, "--max-epoch", "1", "--save-dir", tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint1.pt", "checkpoint_last.pt"]
    assert (tmp_path / "checkpoint1.pt").read_bytes() == (tmp_path / "checkpoint_last.pt").read_bytes()
