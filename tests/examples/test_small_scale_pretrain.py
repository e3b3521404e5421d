"""Pretraining of the small-scale reproduction's masked LM: a tiny model on tiny texts, by the example's own command."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.ctc_nat_small_scale import pretrain
from examples.ctc_nat_small_scale.pretrain_checkpoints import last_checkpoint, mark_complete
from examples.ctc_nat_small_scale.pretrain_data import Blocks, MaskBySeed
from plugin_common.errors import UserError
from plugin_common.hf_folder import check_pmlm_folder, load_masked_lm
from tests.commands import Runner
from tests.toy_pretraining import BLOCK, LANGUAGES, make_inputs, read

from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer  # isort: skip

UPDATES = 30
OPTIONS = {
    "updates": UPDATES, "tokens": 20 * BLOCK, "block": BLOCK, "lr": 1e-2, "warmup": 5, "valid-lines": 40,
    "validate-every": 15, "save-every": 10, "log-every": 5, "dropout": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("pretraining"))


@pytest.fixture(scope="module")
def straight(home: Path) -> Path:
    """The folder of a run that was not stopped."""
    pretrain.main(words(home, home / "straight"))
    return home / "straight"


def words(home: Path, folder: Path, **changed: Any) -> list[str]:
    """The command's words; ``folder`` gets model and log."""
    options = {**OPTIONS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    paths = ["--model", home / "shape", "--output", folder / "model", "--log", folder / "loss.jsonl"]
    corpus = ["--text", *(home / f"{name}.txt" for name in LANGUAGES)]
    given_options = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(word) for word in (*paths, *corpus, *given_options, "--cpu")]


def curve(folder: Path) -> list[dict[str, Any]]:
    """The loss curve without what no two runs share."""
    lines = (folder / "loss.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "model").iterdir()}


def assert_same_run(folder: Path, other: Path) -> None:
    assert model_bytes(folder) == model_bytes(other)
    assert curve(folder) == curve(other)


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_curve_has_every_figure(straight: Path) -> None:
    lines = curve(straight)
    steps, validations = [x for x in lines if "loss" in x], [x for x in lines if "valid_loss" in x]
    assert [x["update"] for x in steps] == [5, 10, 15, 20, 25, 30]
    assert [x["tokens"] for x in steps] == [x["update"] * OPTIONS["tokens"] for x in steps]
    assert [x["update"] for x in validations] == [15, 30]
    assert max(x["lr"] for x in steps) <= OPTIONS["lr"]
    assert steps[0]["loss"] > 3.7  # a uniform guess among 73: ln 73 = 4.29
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert validations[1]["valid_loss"] < validations[0]["valid_loss"]
    assert set(validations[0]["by_language"]) == set(LANGUAGES)
    seconds = [json.loads(line)["seconds"] for line in (straight / "loss.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


def test_validation_is_what_the_saved_model_says_of_the_held_out_blocks(home: Path, straight: Path) -> None:
    """Loss and accuracy computed anew, token by token, from the written folder."""
    model = load_masked_lm(straight / "model")
    collate = MaskBySeed(DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(str(home / "shape"))), 2)
    found = curve(straight)[-2]
    for name in LANGUAGES:
        language = read(home, name)
        items = Blocks([language.valid], np.array([[0, i] for i in range(len(language.valid))]))
        size = OPTIONS["tokens"] // BLOCK
        losses, right = [], []
        for at in range(0, len(items), size):
            batch = collate([items[i] for i in range(at, min(at + size, len(items)))])
            with torch.no_grad():
                scores = model(input_ids=batch["input_ids"]).logits.double().log_softmax(-1)
            for row, column in (batch["labels"] != -100).nonzero().tolist():
                label = batch["labels"][row, column]
                losses.append(-scores[row, column, label].item())
                right.append(bool(scores[row, column].argmax() == label))
        assert found["by_language"][name]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert found["by_language"][name]["accuracy"] == pytest.approx(np.mean(right))


def test_the_folder_loads_with_transformers(home: Path, straight: Path) -> None:
    check_pmlm_folder(straight / "model")
    model = AutoModelForMaskedLM.from_pretrained(str(straight / "model"))
    assert model.config.model_type == "xlm-roberta"
    start = AutoModelForMaskedLM.from_pretrained(str(home / "shape"))
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    assert all(moved)
    tokenizer = AutoTokenizer.from_pretrained(str(straight / "model"))
    assert tokenizer("the house").input_ids == AutoTokenizer.from_pretrained(str(home / "shape"))("the house").input_ids
    for name in ("dict.txt", "tokenizer.json"):
        assert (straight / "model" / name).read_bytes() == (home / "shape" / name).read_bytes()


def test_the_folder_is_taken_by_pmlm(straight: Path, tmp_path: Path) -> None:
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import nat_plugin

    nat_plugin.register()
    folder = straight / "model"
    for language in LANGUAGES:
        shutil.copy(folder / "dict.txt", tmp_path / f"dict.{language}.txt")
    given_words = [str(tmp_path), "--source-lang", "en", "--target-lang", "de", "--task", "ctc_nat", "--criterion",
                   "ctc_nat_loss", "--optimizer", "adam", "--arch", "ctc_pmlm", "--pmlm", str(folder)]  # fmt: skip
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), [*given_words, "--batch-size", "2"])
    )
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model).eval()
    expected = load_masked_lm(folder)
    assert torch.equal(model.masked_lm.weight, expected.get_input_embeddings().weight)
    assert len(task.source_dictionary) == expected.config.vocab_size


def test_a_finished_run_is_not_repeated(
    home: Path, straight: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "train", train_again)
    before = model_bytes(straight)
    pretrain.main(words(home, straight))
    assert "finished already" in capsys.readouterr().err
    assert model_bytes(straight) == before


# ---- stopped and resumed ---------------------------------------------------------------------------------------------


class PowerFailure(BaseException):
    """Nothing of the program runs after it."""


def stop_after(update: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the next run in the middle of that update, after it has been logged."""
    really = pretrain.LossLog.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        really(self, args, state, control, **kwargs)
        if state.global_step == update:
            raise PowerFailure

    monkeypatch.setattr(pretrain.LossLog, "on_step_end", on_step_end)


@pytest.mark.parametrize(("update", "goes_on_at"), [(4, None), (18, 10), (30, 20)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    update: int, goes_on_at: int | None, home: Path, straight: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patched, pytest.raises(PowerFailure):
        stop_after(update, patched)
        pretrain.main(words(home, tmp_path))
    with (tmp_path / "loss.jsonl").open("a") as log:
        log.write('{"update": 99, "lo')  # half a line
    assert not (tmp_path / "model").exists()
    pretrain.main(words(home, tmp_path))
    told = capsys.readouterr().err
    assert ("going on at" in told) == (goes_on_at is not None)
    if goes_on_at is not None:
        assert f"going on at {tmp_path / 'checkpoints' / f'checkpoint-{goes_on_at}'}\n" in told
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("where", ["_save_rng_state", "mark_complete"])
def test_a_checkpoint_that_is_not_complete_is_passed_over(
    where: str, home: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the second checkpoint is written; as after a power failure its files are there but empty."""
    place: Any = pretrain if where == "mark_complete" else Trainer
    really, calls = getattr(place, where), []

    def fail_the_second_time(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise PowerFailure
        really(*args)

    with monkeypatch.context() as patched, pytest.raises(PowerFailure):
        patched.setattr(place, where, fail_the_second_time)
        pretrain.main(words(home, tmp_path))
    torn = tmp_path / "checkpoints" / "checkpoint-20"
    assert (torn / "trainer_state.json").is_file() == (where == "mark_complete")
    for file in torn.iterdir():
        file.write_bytes(b"")
    with (tmp_path / "loss.jsonl").open("ab") as log:
        log.write(b"\0" * 40 + b"\n" + b"\0" * 10)
    assert last_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-10"
    pretrain.main(words(home, tmp_path))
    assert_same_run(tmp_path, straight)


def test_a_checkpoint_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, log = tmp_path / "checkpoint-7", tmp_path / "loss.jsonl"
    checkpoint.mkdir()
    files = {checkpoint / "a", checkpoint / "b", log}
    for file in files:
        file.write_text("x")
    brought: list[Path] = []

    def fsync(descriptor: int) -> None:
        assert last_checkpoint(tmp_path) is None
        brought.append(Path(f"/proc/self/fd/{descriptor}").resolve())

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are read from /proc")
    monkeypatch.setattr("os.fsync", fsync)
    mark_complete(checkpoint, log)
    assert set(brought[:4]) == {file.resolve() for file in {*files, checkpoint}}
    assert last_checkpoint(tmp_path) == checkpoint


def test_the_newest_checkpoint_is_by_number(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nowhere") is None
    for number in (900, 1000, 20):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "complete").touch()
    (tmp_path / "checkpoint-2000").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-1000"


@pytest.mark.slow
def test_a_killed_process_goes_on(home: Path, straight: Path, tmp_path: Path, run: Runner) -> None:
    """The program by its path, from another folder, ended by SIGKILL somewhere after its first checkpoint."""
    command = [sys.executable, pretrain.__file__, *words(home, tmp_path)]
    env = {key: value for key, value in run.env.items() if key != "PYTHONPATH"}
    running = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while last_checkpoint(tmp_path / "checkpoints") is None and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.005)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    done = subprocess.run(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on at" in done.stderr
    assert_same_run(tmp_path, straight)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "messages"),
    [
        ({"block": 2}, ["--block 2: expected 3 to 32"]),
        ({"block": 99, "tokens": 50}, ["--block 99: expected 3 to 32, the positions of ", "--tokens 50: smaller than"]),
        ({"save_every": 7}, ["--save-every 7: expected a multiple of --log-every 5"]),
        ({"log_every": 0, "updates": 0}, ["--log-every 0: expected at least 1", "--updates 0: expected at least 1"]),
        ({"mask": 0, "dropout": 1, "temperature": 1.5},
         ["--mask 0.0: expected 0.01 to 1", "--dropout 1.0: expected 0 to 0.99", "--temperature 1.5: expected 0 to 1"]),
        ({"lr": "nan", "warmup": -1, "workers": -2},
         ["--lr nan: expected at least 0", "--warmup -1: expected", "--workers -2: expected"]),
    ],
)  # fmt: skip
def test_bad_options_are_told_all_at_once(
    changed: dict[str, Any], messages: list[str], home: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        pretrain.main(words(home, tmp_path, **changed))
    for message in messages:
        assert message in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


def test_bad_texts_are_told(home: Path, tmp_path: Path) -> None:
    good = words(home, tmp_path)
    (tmp_path / "en.txt").write_text("the house\n" * 30, encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("grün\n".encode("latin-1") * 100)

    def told(*corpus: Path) -> str:
        at = good.index("--text")
        with pytest.raises(UserError) as caught:
            pretrain.main([*good[: at + 1], *map(str, corpus), *good[at + 3 :]])
        return str(caught.value)

    assert told(tmp_path / "xx.txt") == f"--text {tmp_path / 'xx.txt'}: no such file"
    assert "each text needs a name of its own" in told(home / "en.txt", tmp_path / "en.txt")
    assert "30 lines, expected at least twice --valid-lines 40" in told(tmp_path / "en.txt")
    assert "latin.txt, line 1, byte offset 2: not valid UTF-8" in told(tmp_path / "latin.txt")
    (tmp_path / "gaps.txt").write_text("".join(f"{'new ' * (n % 3)}\n" for n in range(90)), encoding="utf-8")
    assert "gaps.txt: 60 lines, expected at least twice --valid-lines 40" in told(tmp_path / "gaps.txt")
    assert "xx.txt: no such file\n" in told(tmp_path / "xx.txt", tmp_path / "yy.txt")
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_checkpoints_of_other_options_are_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched, pytest.raises(PowerFailure):
        stop_after(12, patched)
        pretrain.main(words(home, tmp_path))
    before = (tmp_path / "loss.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"checkpoints: holds the checkpoints of a run with another lr, seed; give"):
        pretrain.main(words(home, tmp_path, lr=2e-2, seed=3))
    assert (tmp_path / "loss.jsonl").read_bytes() == before
    with monkeypatch.context() as patched, pytest.raises(PowerFailure):
        stop_after(14, patched)  # these options may change
        pretrain.main(words(home, tmp_path, save_every=15, validate_every=13, workers=0))
    assert "going on at" in capsys.readouterr().err


def test_another_output_is_not_overwritten(home: Path, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model: exists and is not the result of these options"):
        pretrain.main(words(home, straight, lr=2e-2))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="exists and is not the result of these options"):
        pretrain.main(words(home, tmp_path))
    assert (tmp_path / "model" / "mine.txt").read_text() == "kept"
