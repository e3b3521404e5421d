"""Bad input ends fairseq's commands with a plain message that names file, line or option, and no traceback."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import PLUGIN, Runner
from tests.toy import SHAPE, TASK, TRAIN, Pieces, Toy, new_corpus

ErrorOf = Callable[..., str]


@pytest.fixture
def train_error(run: Runner, toy: Toy, tmp_path: Path) -> ErrorOf:
    """``train_error(*options, data=…)``: what fairseq-train says; nothing must have been trained."""

    def call(*words: str | Path, data: Path | None = None, status: int = 1, shape: tuple[str, ...] = SHAPE) -> str:
        save = tmp_path / "save"
        message = run(
            "fairseq-train", data or toy.bin, *TASK, *shape, *TRAIN, "--max-tokens", "300", "--max-update", "2",
            "--save-dir", save, *words, expect=status,
        ).error()  # fmt: skip
        assert not list(save.glob("*.pt"))
        return message

    return call


@pytest.fixture
def generate_error(run: Runner, toy: Toy) -> ErrorOf:
    """``generate_error(checkpoint, data=…)``: what fairseq-generate says."""

    def call(path: Path | str, data: Path | None = None, **options: Any) -> str:
        return run("fairseq-generate", data or toy.bin, *TASK, "--path", path, expect=1, **options).error()

    return call


def lines_of(message: str) -> list[str]:
    """The message; a plain one has few lines, the first of which begins with ``error: ``."""
    lines = message.strip().split("\n")
    assert lines[-1].startswith(("error: ", "  - ")), message
    return lines


# ---- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--upsample-ratio", "0.5"),
            "error: --upsample-ratio 0.5: the up-sampling ratio must be a number of at least 1",
        ),
        (
            ("--upsample-ratio", "nan"),
            "error: --upsample-ratio nan: the up-sampling ratio must be a number of at least 1",
        ),
        (("--upsample-ratio", "48"), "error: --upsample-ratio 48.0 is too large: the model has 47 positions"),
        (("--upsampler", "copy"), "error: --upsampler copy: unknown; registered are mask_insertion, token_duplication"),
        (("--max-tokens", "6"), "error: --max-tokens 6 is less than the longest sentence has (9 tokens, lines "),
        (
            ("--restore-file", "missing.pt"),
            "error: --restore-file missing.pt: no such file; give an existing checkpoint",
        ),
        (("--train-subset", "training"), "Dataset not found: training"),
        (("--encoder-attention-heads", "3"), "--encoder-embed-dim 64 is no multiple of --encoder-attention-heads 3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_values_that_make_no_sense(train_error: ErrorOf, words: tuple[str, ...], expected: str) -> None:
    assert expected in lines_of(train_error(*words))[-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--blank-symbol", "<blank>"), "argument --blank-symbol: invalid choice: '<blank>' (choose from"),
        (("--upsample-ratio", "two"), "argument --upsample-ratio: invalid float value: 'two'"),
        (("--mask-placement", "top"), "argument --mask-placement: invalid choice: 'top'"),
        (("--impossible-targets", "drop"), "argument --impossible-targets: invalid choice: 'drop'"),
    ],
)
def test_wrong_use_has_status_2(train_error: ErrorOf, words: tuple[str, ...], expected: str) -> None:
    assert expected in train_error(*words, status=2)


def test_no_architecture(train_error: ErrorOf) -> None:
    assert "--arch is missing: give the architecture, for example --arch ctc_pmlm" in train_error(shape=(), status=2)


def test_a_training_without_model_folder(train_error: ErrorOf) -> None:
    assert "--pmlm is missing: give a folder made by `nat prepare-pmlm`, or --random-init" in train_error(
        shape=("--arch", "ctc_pmlm")
    )


def test_a_fresh_process_ends_just_as_plainly(run: Runner, toy: Toy, tmp_path: Path) -> None:
    command = ("fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--batch-size", "4", "--save-dir", tmp_path)
    message = run(*command, "--upsample-ratio", "0.5", fresh=True, expect=1).error()
    assert message == ("error: --upsample-ratio 0.5: the up-sampling ratio must be a number of at least 1, got 0.5\n")


# ---- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(toy: Toy, tmp_path: Path) -> Path:
    """A copy of the data-bin that a test may spoil."""
    return Path(shutil.copytree(toy.bin, tmp_path / "bin"))


def test_a_missing_data_folder(train_error: ErrorOf, generate_error: ErrorOf, toy: Toy, tmp_path: Path) -> None:
    expected = f"error: {tmp_path}/missing: no such folder; give the --destdir of fairseq-preprocess"
    assert lines_of(train_error(data=tmp_path / "missing")) == [expected]
    assert lines_of(generate_error(toy.best, data=tmp_path / "missing")) == [expected]


def test_a_missing_dictionary(train_error: ErrorOf, spoilt: Path) -> None:
    (spoilt / "dict.de.txt").unlink()
    assert "dict.de.txt is missing; run fairseq-preprocess with --srcdict and --tgtdict" in train_error(data=spoilt)


def test_sides_of_different_line_counts(train_error: ErrorOf, generate_error: ErrorOf, toy: Toy, spoilt: Path) -> None:
    for split in ("train", "test"):
        for kind in ("bin", "idx"):
            shutil.copy(toy.bin / f"valid.en-de.de.{kind}", spoilt / f"{split}.en-de.de.{kind}")
    expected = "the en and de sides of {} do not have the same number of sentences; make both from files of the same"
    assert expected.format("train") in train_error(data=spoilt)
    assert expected.format("test") in generate_error(toy.best, data=spoilt)


def test_the_dictionary_of_other_data(
    generate_error: ErrorOf, run: Runner, toy: Toy, spoilt: Path, tmp_path: Path
) -> None:
    for language in ("en", "de"):
        lines = (spoilt / f"dict.{language}.txt").read_text().splitlines()
        lines[3:5] = reversed(lines[3:5])
        (spoilt / f"dict.{language}.txt").write_text("\n".join(lines) + "\n")
    expected = "the dictionary of data-bin (65 symbols) is not the one that the checkpoint was trained with; give the"
    assert expected in generate_error(toy.best, data=spoilt)
    shutil.copy(toy.best, tmp_path / "checkpoint_last.pt")
    resumed = ("fairseq-train", spoilt, *TASK, *SHAPE, *TRAIN, "--max-tokens", "300", "--save-dir", tmp_path)
    assert expected in run(*resumed, expect=1).error()


def test_a_dictionary_that_is_not_the_model_folders(train_error: ErrorOf, pieces: Pieces) -> None:
    message = train_error("--pmlm", pieces.pmlm, shape=("--arch", "ctc_pmlm"))
    assert (
        "its dict.txt (73 symbols) is not the dictionary of data-bin (65 symbols): the first difference is at row 4"
        in (message)
    )


def test_model_folders_that_are_broken(train_error: ErrorOf, pieces: Pieces, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(pieces.pmlm, tmp_path / "pmlm"))
    (broken / "tokenizer.json").unlink()
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    message = train_error("--pmlm", broken, shape=("--arch", "ctc_pmlm"), data=pieces.bin)
    assert "lacks tokenizer.json; make a PMLM folder with `nat prepare-pmlm" in message
    assert "model.safetensors: damaged or not a safetensors file" in message


def test_targets_that_no_source_can_carry(train_error: ErrorOf, run: Runner, tmp_path: Path) -> None:
    corpus = new_corpus(tmp_path / "corpus")
    corpus.write("train", ["w1", "w2", "w3"], ["W1", " ".join(["W1"] * 60), "W3"])
    message = train_error(data=corpus.preprocess(run, splits=("train",)))
    assert (
        "train: 1 target(s) have more than 47 tokens, the most that any up-sampled source can carry: line 2" in message
    )
    assert "remove or split these lines, or pass --impossible-targets keep" in message


# ---- checkpoints ----------------------------------------------------------------------------------------------------


class RunsOnLoading:
    """Unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def flip_a_bit(data: bytes) -> bytes:
    """In the middle of the file, where the weights are."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


SPOIL: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "the checkpoint is empty (0 bytes): writing it was cut off; copy it again"),
    "truncated": (lambda data: data[: len(data) // 2], "the checkpoint is truncated or damaged"),
    "bit-flipped": (flip_a_bit, "the checkpoint is damaged: the checksum of"),
    "text": (lambda data: b"not a checkpoint", "not a checkpoint that torch can read"),
}


@pytest.mark.parametrize("kind", SPOIL)
def test_spoilt_checkpoints(kind: str, generate_error: ErrorOf, run: Runner, toy: Toy, tmp_path: Path) -> None:
    spoil, expected = SPOIL[kind]
    path = tmp_path / "checkpoint_last.pt"
    path.write_bytes(spoil(toy.best.read_bytes()))
    message = lines_of(generate_error(path))[-1]
    assert message.startswith(f"error: {path}: ")
    assert expected in message
    resumed = ("fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--max-tokens", "300", "--save-dir", tmp_path)
    assert lines_of(run(*resumed, expect=1).error())[-1] == message
    assert path.read_bytes() == spoil(toy.best.read_bytes()), "left as it was"


def test_code_in_a_checkpoint_is_not_run(generate_error: ErrorOf, run: Runner, toy: Toy, tmp_path: Path) -> None:
    trap, path = tmp_path / "the code has run", tmp_path / "checkpoint_last.pt"
    state = torch.load(toy.best, weights_only=False)
    torch.save({**state, "trap": RunsOnLoading(trap)}, path)
    expected = f"{path}: the checkpoint holds pickled code (posix.mkdir) and was not loaded: it could run anything"
    assert expected in generate_error(path)
    resumed = ("fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--max-tokens", "300", "--save-dir", tmp_path)
    assert expected in run(*resumed, expect=1).error()
    assert not trap.exists()


def test_missing_checkpoints_are_all_named(generate_error: ErrorOf, toy: Toy) -> None:
    message = generate_error(f"no/a.pt:{toy.best}:b.pt")
    assert "--path no/a.pt: no such checkpoint" in message
    assert "--path b.pt: no such checkpoint" in message
    assert "checkpoint_best" not in message


def test_a_checkpoint_of_another_shape(run: Runner, toy: Toy, tmp_path: Path) -> None:
    shutil.copy(toy.best, tmp_path / "checkpoint_last.pt")
    command = ("fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--max-tokens", "300", "--save-dir", tmp_path)
    message = run(*command, "--encoder-embed-dim", "32", expect=1).error()
    assert "checkpoint_last.pt: does not fit the model of this command line" in message
    assert "continue with the options it was trained with, or choose another --save-dir or --restore-file" in message


def test_interactive_says_the_same(run: Runner, toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "empty.pt").write_bytes(b"")
    message = run(
        "fairseq-interactive", toy.bin, *TASK, "--path", tmp_path / "empty.pt", input="w1\n", expect=1
    ).error()
    assert "empty.pt: the checkpoint is empty (0 bytes)" in message
    message = run("fairseq-interactive", toy.bin, *TASK, "--path", toy.best, "--input", "missing", expect=1).error()
    assert "--input missing: No such file or directory; give a readable text file, or - for stdin" in message


def test_an_fp16_overflow_on_a_cpu(run: Runner, toy: Toy, tmp_path: Path) -> None:
    command = ("fairseq-train", toy.bin, "--user-dir", PLUGIN, "--task", "ctc_nat", "--cpu", *SHAPE, *TRAIN)
    options = ("--max-tokens", "300", "--save-dir", tmp_path, "--fp16", "--fp16-init-scale", str(2**30),
               "--num-workers", "0")  # fmt: skip
    message = run(*command, *options, expect=1).error()
    assert "--fp16: a gradient overflowed" in message
    assert "use --bf16, or start from a smaller loss scale (--fp16-init-scale 1)" in message
