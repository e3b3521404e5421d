import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nat_plugin.export.folder import MODEL_FILES, SETTINGS_FILE, Settings, open_folder, sha256, write_settings
from plugin_common.errors import UserError

SETTINGS = Settings(
    symbols=100, bos=0, pad=1, eos=2, unk=3, mask=99, blank=0, upsampler="mask_insertion", ratio=2.0,
    placement="uniform", positions=24, source_lang="en",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with small files in the places of models."""
    root = tmp_path / "exported"
    root.mkdir()
    for name in (*MODEL_FILES.values(), "model.onnx.data", "tokenizer.json"):
        (root / name).write_text(name)
    write_settings(root, SETTINGS, {"scores": {"bleu": 30.5}})
    return root


Change = Callable[[dict[str, Any]], object]


def change(folder: Path, edit: Change) -> None:
    file = folder / SETTINGS_FILE
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_what_is_written_is_read(folder: Path) -> None:
    opened = open_folder(folder)
    assert opened.settings == SETTINGS
    assert opened.about["scores"] == {"bleu": 30.5}
    assert opened.precisions == ["fp32", "int8"]
    assert opened.model_file("int8") == folder / "model.int8.onnx"
    assert set(opened.files) == {"model.onnx", "model.onnx.data", "model.int8.onnx", "tokenizer.json"}
    opened.check(list(opened.files))


def test_no_folder_and_no_settings(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: no such folder; give a folder that `nat export` made"):
        open_folder(tmp_path / "nothing")
    (folder / SETTINGS_FILE).unlink()
    with pytest.raises(UserError, match=r"export\.json is missing, so this is no export folder"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format="else"), "is not the description of an export folder"),
        (lambda c: c.update(version=2), "is of version 2 of the format, this program reads version 1; install"),
        (lambda c: c.pop("version"), "is of version None"),
        (lambda c: c.pop("settings"), "the entry `settings` is missing or holds unknown names"),
        (lambda c: c["settings"].update(more=1), "the entry `settings` is missing or holds unknown names"),
        (lambda c: c["settings"].pop("blank"), "the entry `settings` is incomplete .*blank"),
        (lambda c: c["settings"].update(blank=100), "blank is 100, but there are 100 symbols"),
        (lambda c: c["settings"].update(pad="1"), "pad is '1', expected a whole number"),
        (lambda c: c["settings"].update(positions=0), "positions is 0, expected at least 1"),
        (lambda c: c["settings"].update(ratio=0.5), "ratio is 0.5, expected a number of at least 1"),
        (lambda c: c["settings"].update(upsampler="x"), "upsampler is 'x', expected one of mask_insertion, "),
        (lambda c: c["settings"].update(placement="x"), "placement is 'x', expected one of uniform, "),
        (lambda c: c.pop("files"), "the entry `files` is missing or damaged"),
        (lambda c: c["files"].update({"../model.onnx": {"bytes": 1, "sha256": ""}}), "the entry `files` is missing or"),
        (lambda c: c["files"]["tokenizer.json"].pop("sha256"), "the entry `files` is missing or damaged"),
    ],
)
def test_settings_that_are_wrong(folder: Path, edit: Change, message: str) -> None:
    change(folder, edit)
    with pytest.raises(UserError, match=message) as error:
        open_folder(folder)
    assert str(folder / SETTINGS_FILE) in str(error.value)
    assert "nat export" in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null"])
def test_settings_that_are_no_settings(folder: Path, content: bytes) -> None:
    (folder / SETTINGS_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"export\.json: (cannot be read as JSON|is not the description)"):
        open_folder(folder)


def test_all_files_that_are_not_as_exported_are_named_at_once(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "model.int8.onnx").write_text("longer than before")
    (folder / "model.onnx.data").write_text("model.onnx.dusk")
    opened = open_folder(folder)
    with pytest.raises(UserError) as error:
        opened.check(["tokenizer.json", "model.int8.onnx", "model.onnx", "other"])
    message = str(error.value)
    assert message.startswith("4 problems:")
    assert f"{folder}: tokenizer.json is missing" in message
    assert "model.int8.onnx: has 18 bytes, 15 were exported: the copy is incomplete" in message
    assert "model.onnx.data: is not the file that was exported (its SHA-256 differs)" in message
    assert "does not list other" in message
    opened.check(["model.onnx"], checksums=False)  # the size is the same


def test_precision_that_is_not_there(folder: Path) -> None:
    change(folder, lambda content: content["files"].pop("model.int8.onnx"))
    opened = open_folder(folder)
    assert opened.precisions == ["fp32"]
    with pytest.raises(UserError, match="has no int8 model; it has fp32: give one of these, or export again"):
        opened.model_file("int8")


def test_a_copy_is_as_good(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    opened = open_folder(str(copy))
    opened.check(list(opened.files))


def test_settings_have_no_problem_and_are_plain() -> None:
    assert list(SETTINGS.problems()) == []
    assert json.loads(json.dumps(asdict(SETTINGS))) == asdict(SETTINGS)
    assert len(list(replace(SETTINGS, upsampler="x", placement="y", ratio=float("nan"), positions=-1).problems())) == 4


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
