"""``nat export`` with a trained toy model: the folders it makes, its own check, and what it refuses."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from nat_plugin import cli
from nat_plugin.export.folder import open_folder
from nat_plugin.export.translator import Translator
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from tests.commands import Runner
from tests.toy import TASK, Pieces, Toy


def export(pieces: Pieces, output: Path, *options: str | Path, status: int = 0) -> None:
    words = ["export", pieces.checkpoint, "--data", pieces.bin, "--pmlm-tokenizer", pieces.pmlm, "--output", output]
    assert cli.main([str(word) for word in [*words, *options]]) == status


@pytest.fixture(scope="module")
def exported(pieces: Pieces, once: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        (folder / "about.md").write_text("Word lists, **free** to use.\n")
        export(pieces, folder / "model", "--about", folder / "about.md")

    return once("exported", make) / "model"


def test_translations_are_those_of_fairseq(exported: Path, pieces: Pieces, run: Runner, tmp_path: Path) -> None:
    sources = [source for source, _ in pieces.test]
    done = run(
        "fairseq-interactive", str(pieces.bin), *TASK, "--path", str(pieces.checkpoint), "--bpe", "pmlm",
        "--pmlm-tokenizer", str(pieces.pmlm), input="\n".join(sources) + "\n", cwd=tmp_path,
    )  # fmt: skip
    expected = [rest.split("\t")[1] for rest in done.lines("D").values()]
    assert Translator(exported, precision="fp32").translate(sources) == expected
    assert len(set(expected)) > 10
    similar = sum(a == b for a, b in zip(Translator(exported).translate(sources), expected, strict=True))
    assert similar >= 0.8 * len(sources)


def test_the_folder_describes_itself(exported: Path, pieces: Pieces) -> None:
    folder = open_folder(exported)
    folder.check(["model.onnx", "model.int8.onnx", "tokenizer.json", "README.md"])
    assert sorted(path.name for path in exported.iterdir()) == sorted([*folder.files, "export.json"])
    assert folder.precisions == ["fp32", "int8"]
    assert (folder.settings.source_lang, folder.settings.target_lang) == ("en", "de")
    assert folder.settings.positions == 63 and folder.settings.ratio == 2
    fairseq, fp32, int8 = folder.about["scores"]
    assert fp32["equal"] == fp32["sentences"] == len(pieces.test) == fairseq["sentences"]
    assert fp32["bleu"] == fairseq["bleu"] > 20 and abs(int8["bleu"] - fp32["bleu"]) < 5
    assert fairseq["signature"].startswith("nrefs:1|case:mixed")
    card = (exported / "README.md").read_text()
    for part in (
        "en → de",
        "**free** to use",
        f"{fp32['bleu']:.2f}",
        "mask_insertion",
        folder.files["model.onnx"]["sha256"],
    ):
        assert part in card
    assert str(pieces.folder) not in card + (exported / "export.json").read_text()


def test_the_report(pieces: Pieces, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, reference = tmp_path / "test.en", tmp_path / "test.de"
    source.write_text("".join(f"{one}\n" for one, _ in pieces.test) + "\n")
    reference.write_text("".join(f"{one}\n" for _, one in pieces.test) + "\n")
    output = tmp_path / "out"
    export(pieces, output, "--precision", "int8", "--test-source", source, "--test-reference", reference)
    printed = capsys.readouterr().out
    assert "int8: model.int8.onnx, " in printed and "fp32: model.onnx" not in printed
    assert "fp32: 21 of 21 sentences have the tokens of fairseq; BLEU " in printed  # what int8 is made of
    assert "check on 21 sentences (test.en)" in printed and "BLEU's signature: nrefs:1" in printed
    assert "of 21 sentences have the tokens of fairseq; BLEU " in printed
    assert not (output / "model.onnx").exists()
    # Without any text the check runs on random symbols.
    bare = tmp_path / "bin"
    bare.mkdir()
    for file in pieces.bin.glob("dict.*"):
        shutil.copy(file, bare)
    words = ["export", pieces.checkpoint, "--data", bare, "--pmlm-tokenizer", pieces.pmlm, "--output", output]
    (output / "lm.npz").write_text("the user's own")
    assert cli.main([*map(str, words), "-s", "en", "-t", "de", "--precision", "fp32", "--overwrite"]) == 0
    assert (output / "lm.npz").read_text() == "the user's own"
    assert "fp32: 100 of 100 sentences have the tokens of fairseq\n" in capsys.readouterr().out
    assert not (output / "model.int8.onnx").exists()


def test_hugging_face_format(pieces: Pieces, tmp_path: Path, load_models: Callable, capsys) -> None:
    output = tmp_path / "hf"
    export(pieces, output, "--format", "hf")
    assert "a masked-LM folder for transformers" in capsys.readouterr().out
    (model,), task = load_models(pieces.bin, pieces.checkpoint)
    lm = AutoModelForMaskedLM.from_pretrained(output, local_files_only=True).eval()
    text = pieces.test[0][0]
    ids = AutoTokenizer.from_pretrained(output, local_files_only=True)(text, return_tensors="pt")["input_ids"]
    assert " ".join(task.source_dictionary.symbols[i] for i in ids[0, 1:-1]) == PieceTokenizer.from_folder(
        pieces.pmlm
    ).encode(text)
    ours = model.masked_lm
    with torch.inference_mode():
        states = ours(ids, torch.ones_like(ids, dtype=torch.bool))
        expected = torch.nn.functional.linear(states, ours.weight, ours.bias)
        assert torch.allclose(lm(input_ids=ids).logits, expected, atol=1e-4)
    assert (output / "dict.txt").read_text() == (pieces.pmlm / "dict.txt").read_text()
    export(pieces, output, "--format", "hf", status=1)
    assert "--overwrite" in capsys.readouterr().err


def test_what_is_refused(pieces: Pieces, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def error(*options: str | Path, checkpoint: Path = pieces.checkpoint, data: Path = pieces.bin) -> str:
        words = ["export", checkpoint, "--data", data, "--output", tmp_path / "out", *options]
        capsys.readouterr()
        assert cli.main([str(word) for word in words]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    tokenizer = ("--pmlm-tokenizer", pieces.pmlm)
    assert "no such folder" in error(*tokenizer, data=tmp_path / "none")
    assert "none.pt" in error(*tokenizer, checkpoint=tmp_path / "none.pt")
    assert "lacks tokenizer.json and dict.txt" in error("--pmlm-tokenizer", tmp_path)
    assert "is not the checkpoint's dictionary" in error(*tokenizer, checkpoint=toy.best, data=toy.bin)
    assert "lacks" in error(*tokenizer, "--gen-subset", "dev")
    assert "about.md" in error(*tokenizer, "--about", tmp_path / "about.md")
    (tmp_path / "three").write_text("a\nb\nc\n")
    (tmp_path / "two").write_text("a\nb\n")
    lines = error(*tokenizer, "--test-source", tmp_path / "three", "--test-reference", tmp_path / "two")
    assert "has 2 lines" in lines and "3" in lines
    (tmp_path / "two").write_text("")
    assert "has no line" in error(*tokenizer, "--test-source", tmp_path / "two")


def test_an_output_that_holds_something_else_stays(pieces: Pieces, tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    export(pieces, tmp_path, status=1)
    assert "is not empty" in capsys.readouterr().err
    export(pieces, tmp_path, "--overwrite", status=1)
    assert "export folders only" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(SystemExit, match="2"):
        export(pieces, tmp_path, "--format", "hf", "--precision", "int8")
    with pytest.raises(SystemExit, match="2"):
        export(pieces, tmp_path, "--test-reference", "x")
    assert "--test-reference needs --test-source" in capsys.readouterr().err


def test_a_custom_upsampler_is_exported_for_transformers_only(pieces: Pieces, load_models: Callable) -> None:
    from nat_plugin.export.checkpoint import Exportable
    from plugin_common.errors import UserError

    (model,), task = load_models(pieces.bin, pieces.checkpoint)
    model.cfg.upsampler = "mine"
    with pytest.raises(UserError, match=r"--upsampler mine.*--format hf"):
        Exportable(pieces.checkpoint, model, task, None, pieces.pmlm).settings()  # type: ignore[arg-type]


def test_int8_that_loses_too_much_is_told() -> None:
    from nat_plugin.export.checks import Outcome, warnings_of
    from plugin_common.errors import UserError

    fairseq = Outcome("fairseq", 1000, 1000, 0, 30.0, 50.0, "s")
    good = [Outcome("fp32", 1000, 1000, 0, 30.0, 50.0, "s"), Outcome("int8", 1000, 800, 0, 29.8, 50.0, "s")]
    assert warnings_of([fairseq, *good]) == []
    bad = [Outcome("fp32", 1000, 999, 0, 30.0, 50.0, "s"), Outcome("int8", 1000, 800, 0, 29.6, 50.0, "s")]
    told = warnings_of([fairseq, *bad])
    assert "1 of 1,000 sentences differ" in told[0] and "loses 0.40 BLEU" in told[1]
    with pytest.raises(UserError, match="2 of 1,000 sentences otherwise than fairseq"):
        warnings_of([fairseq, Outcome("fp32", 1000, 998, 0, 30.0, 50.0, "s")])
    unscored = Outcome("fairseq", 1000, 1000, 1000, None, None, None)
    told = warnings_of([unscored, Outcome("int8", 1000, 499, 1000, None, None, None)])
    assert "to nothing" in told[0] and "only 499 of 1,000" in told[1]


def test_scores_in_the_description_are_plain_numbers(exported: Path) -> None:
    content = json.loads((exported / "export.json").read_text())
    assert all(isinstance(score["equal"], int) for score in content["scores"])
    assert np.isfinite([score["bleu"] for score in content["scores"]]).all()


def test_the_export_goes_on_where_nobody_reads_the_report(pieces: Pieces, run: Runner, tmp_path: Path) -> None:
    words = ["nat", "export", pieces.checkpoint, "--data", pieces.bin, "--pmlm-tokenizer", pieces.pmlm]
    line = shlex.join(str(word) for word in [*words, "--precision", "fp32", "--output", tmp_path / "out"])
    done = run("bash", "-c", f"set -o pipefail; {line} | true")
    assert "Traceback" not in done.log and "Broken pipe" not in done.log
    assert Translator(tmp_path / "out").precision == "fp32"


def test_a_disk_without_room_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nat_plugin.export import onnx_folder
    from plugin_common.errors import UserError

    free = shutil._ntuple_diskusage(10**9, 10**9 - 10**7, 10**7)  # type: ignore[attr-defined]
    monkeypatch.setattr(onnx_folder.shutil, "disk_usage", lambda folder: free)
    onnx_folder.check_room("out", tmp_path, 700_000, int8=True)
    onnx_folder.check_room("out", tmp_path, 2_400_000, int8=False)
    with pytest.raises(UserError, match=r"--output out: the disk is full \(10 MB are free, about 34 MB are needed"):
        onnx_folder.check_room("out", tmp_path, 2_400_000, int8=True)


def test_a_disk_that_fills_on_the_way_is_told(tmp_path: Path) -> None:
    from nat_plugin.export.onnx_folder import export_folder
    from plugin_common.errors import UserError

    output = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"--output .*/out: the disk is full"), export_folder(output, overwrite=False):
        raise Exception("I/O error: No space left on device (os error 28)")
    with pytest.raises(KeyError, match="other"), export_folder(output, overwrite=False):
        raise KeyError("other")
    assert list(tmp_path.iterdir()) == []


def test_models_carry_the_settings(exported: Path) -> None:
    import onnx

    for name in ("model.onnx", "model.int8.onnx"):
        entries = {entry.key: entry.value for entry in onnx.load(str(exported / name)).metadata_props}
        assert entries["fairseq-onepass.positions"] == "63" and entries["fairseq-onepass.upsampler"] == "mask_insertion"
