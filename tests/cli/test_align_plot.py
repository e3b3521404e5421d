"""``nat align-plot`` and ``nat plot-log`` with trained toy models."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from nat_plugin import cli
from plugin_common.checkpoint_files import check_and_load
from tests.toy import Pieces, Toy, translate


def nat(*words: str | Path, status: int = 0) -> None:
    assert cli.main([str(word) for word in words]) == status


def refused(capsys: pytest.CaptureFixture, *words: str | Path) -> str:
    capsys.readouterr()
    nat(*words, status=1)
    return capsys.readouterr().err


@pytest.mark.parametrize("method", ["argmax", "viterbi", "assignment"])
def test_a_line_of_a_subset(toy: Toy, tmp_path: Path, load_models, capsys, method: str):
    line = next(i for i, text in enumerate(toy.read("test.en"), start=1) if len(text.split()) >= 5)
    figure, numbers = tmp_path / "figure.png", tmp_path / "numbers.json"
    nat("align-plot", toy.best, "--data", toy.bin, "--line", line, "--alignment", method, "--output", figure, "--json",
        numbers)  # fmt: skip
    assert figure.read_bytes().startswith(b"\x89PNG")
    source = toy.read("test.en")[line - 1]
    found = json.loads(numbers.read_text())
    assert [token for token in found["source"] if token is not None] == source.split()
    assert found["target"] == translate(source).split()
    assert found["translation"] == translate(source)
    assert f"output: {translate(source)}" in capsys.readouterr().out

    (model,), task = load_models(toy.bin, toy.best)
    tokens = task.source_dictionary.encode_line(source, add_if_not_exist=False).long()[None]
    with torch.inference_mode():
        probabilities = model.get_normalized_probs(model(tokens, torch.tensor([tokens.size(1)])), False)[0]
    assert found["output"] == [
        None if i == model.blank else task.target_dictionary[i] for i in probabilities.argmax(-1)
    ]
    columns = [model.blank, *(task.target_dictionary.index(word) for word in found["target"])]
    assert np.allclose(found["probabilities"], probabilities[:, columns].numpy(), atol=1e-6)
    assert [found["path"][position] for position in found["positions"]] == list(range(len(found["target"])))
    best_path = sum(math.log(found["probabilities"][t][j + 1]) for t, j in enumerate(found["path"]))
    assert 0 < found["nats"] <= -best_path + 1e-4


def test_texts_with_the_tokenizer_and_a_teacher(pieces: Pieces, tmp_path: Path):
    source, target = next(pair for pair in pieces.test if len(pair[0].split()) == 4)
    figure, numbers = tmp_path / "figure.svg", tmp_path / "numbers.json"
    nat("align-plot", pieces.checkpoint, "--data", pieces.bin, "--pmlm", pieces.pmlm, "--source", source,
        "--target", target, "--teacher", pieces.pmlm, "--output", figure, "--json", numbers)  # fmt: skip
    found = json.loads(numbers.read_text())
    assert "".join(found["target"]).replace("▁", " ").strip() == target
    assert len(found["similarities"]) == len(found["target"])
    assert all(-1 <= value <= 1 for value in found["similarities"])
    drawn = figure.read_text(encoding="utf-8")
    assert all(token in drawn for token in found["target"])
    assert "cosine to the teacher" in drawn


def test_a_teacher_of_another_width_and_a_missing_folder_are_refused(pieces: Pieces, tmp_path: Path, capsys):
    narrow = Path(shutil.copytree(pieces.pmlm, tmp_path / "narrow"))
    config = AutoConfig.from_pretrained(narrow)
    config.hidden_size, config.num_attention_heads = 32, 2
    AutoModelForMaskedLM.from_config(config).save_pretrained(narrow)
    words = ("align-plot", pieces.checkpoint, "--data", pieces.bin, "--subset", "test", "--line", "1",
             "--output", tmp_path / "figure.png")  # fmt: skip
    error = refused(capsys, *words, "--teacher", narrow)
    assert "its states are 32 wide, the checkpoint's 64; only states of equal width can be compared" in error
    error = refused(capsys, *words, "--json", tmp_path / "none" / "numbers.json")
    assert "there is no folder" in error
    assert not (tmp_path / "figure.png").exists()


def test_what_cannot_be_aligned_is_refused(toy: Toy, pieces: Pieces, tmp_path: Path, capsys):
    command = ("align-plot", toy.best, "--data", toy.bin, "--output", tmp_path / "f.png")
    empty = next(i for i, text in enumerate(toy.read("test.en"), start=1) if not text)
    assert "the source has no token" in refused(capsys, *command, "--line", empty)
    half = next(i for i, pair in enumerate(zip(toy.read("test.en"), toy.read("test.de"), strict=True), start=1)
                if pair[0] and not pair[1])  # fmt: skip
    assert "the target has no token" in refused(capsys, *command, "--line", half)
    assert "--line 30: test has the lines 1 to 29" in refused(capsys, *command, "--line", "30")
    assert "--line 0: test has" in refused(capsys, *command, "--line", "0")
    assert "no subset dev; it has test, train, valid" in refused(capsys, *command, "--line", "1", "--subset", "dev")
    texts = (
        "align-plot",
        pieces.checkpoint,
        "--data",
        pieces.bin,
        "--pmlm",
        pieces.pmlm,
        "--output",
        tmp_path / "f.png",
    )
    message = refused(capsys, *texts, "--source", "red", "--target", "die Datei und das neue Passwort nicht öffnen")
    assert "the target cannot be aligned: its" in message
    assert "give a shorter target, or train with a higher --upsample-ratio" in message
    assert "tokens, the model reads" in refused(capsys, *texts, "--source", "new " * 80, "--target", "neu")
    assert not (tmp_path / "f.png").exists()


def test_wrong_files_are_refused(toy: Toy, pieces: Pieces, tmp_path: Path, capsys):
    line, output = ("--line", "1"), ("--output", tmp_path / "f.png")
    assert "no such checkpoint" in refused(capsys, "align-plot", tmp_path / "no.pt", "--data", toy.bin, *line, *output)
    missing = refused(capsys, "align-plot", toy.best, "--data", tmp_path / "no", *line, *output)
    assert "no such folder; give the --destdir" in missing
    other = refused(capsys, "align-plot", toy.best, "--data", pieces.bin, *line, *output)
    assert "is not the one that the checkpoint was trained with" in other
    state = check_and_load(toy.best)
    state["cfg"]["task"]["_name"] = "translation"
    torch.save(state, tmp_path / "other.pt")
    message = refused(capsys, "align-plot", tmp_path / "other.pt", "--data", toy.bin, *line, *output)
    assert "not a one-pass model (its task is translation, expected ctc_nat)" in message
    teacher = refused(capsys, "align-plot", toy.best, "--data", toy.bin, *line, *output, "--teacher", pieces.pmlm)
    assert "is not the checkpoint's dictionary" in teacher
    suffix = refused(capsys, "align-plot", toy.best, "--data", toy.bin, *line, "--output", tmp_path / "f.bmp")
    assert "cannot tell the format" in suffix


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "give --source, --target and --pmlm, or --line"),
        (["--source", "a", "--target", "b"], "give --source, --target and --pmlm, or --line"),
        (["--line", "1", "--source", "a"], "give either --line or --source"),
        (["--line", "1", "-s", "en"], "give both of --source-lang"),
        (["--line", "1", "--alignment", "best"], "invalid choice"),
    ],
)
def test_wrong_use_ends_with_status_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["align-plot", "c.pt", "--data", "bin", "--output", "f.png", *words])
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("command", ["align-plot", "plot-log"])
def test_without_matplotlib_the_message_says_what_to_install(toy: Toy, tmp_path: Path, monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = {"align-plot": [toy.best, "--data", toy.bin, "--line", "1"], "plot-log": [toy.folder / "train.log"]}[
        command
    ]
    assert "pip install matplotlib" in refused(capsys, command, *words, "--output", tmp_path / "f.png")


def test_curves_of_two_runs(toy: Toy, pieces: Pieces, tmp_path: Path, capsys):
    logs = (toy.folder / "train.log", pieces.folder / "train.log")
    nat("plot-log", *logs, "--labels", "toy", "pieces", "--output", tmp_path / "curves.svg")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{tmp_path}/curves.svg: loss, bleu, lr of 2 runs"
    assert printed[1].startswith(f"  {logs[0]}: ")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    for word in ("toy: training", "pieces: validation", "BLEU", "learning rate", "updates"):
        assert word in drawn
    nat("plot-log", logs[0], "--metrics", "infeasible_pct,wps", "--output", tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_equal_file_names_get_their_folders_names(toy: Toy, pieces: Pieces, tmp_path: Path):
    logs = (toy.folder / "train.log", pieces.folder / "train.log")
    nat("plot-log", *logs, "--output", tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert f"{toy.folder.name}: training" in drawn
    assert f"{pieces.folder.name}: training" in drawn


def test_plot_log_refuses_what_is_no_log(toy: Toy, tmp_path: Path, capsys):
    output = ("--output", tmp_path / "f.png")
    assert "no statistics of fairseq-train" in refused(capsys, "plot-log", toy.folder / "dict.txt", *output)
    log = toy.folder / "train.log"
    message = refused(capsys, "plot-log", log, "--metrics", "loss,ctc,distill", *output)
    assert "no log has ctc, distill; logged are loss, " in message
    with pytest.raises(SystemExit) as end:
        cli.main(["plot-log", str(log), "--labels", "a", "b", "--output", "f.png"])
    assert end.value.code == 2
