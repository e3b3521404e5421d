"""Lines and settings beyond what a model can take: no more memory or time goes into them than into others."""

import json
import logging
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_plugin.export import Translator, translator
from nat_plugin.export.folder import open_folder, write_settings
from plugin_common.errors import UserError
from tests.toy_export import POSITIONS, TEXT

MOST = translator.CHARACTERS_PER_POSITION * POSITIONS


@pytest.fixture(scope="module")
def fp32(exported: Path) -> Translator:
    return Translator(exported, precision="fp32", threads=1)


# ---- long lines -----------------------------------------------------------------------------------------------------


def long_lines() -> list[str]:
    """Of words, of characters without a space between them, and of both, all of them too long."""
    draw = random.Random(3)
    words = " ".join(TEXT).split()
    characters = sorted(set("".join(words)))
    lines = [" ".join(draw.choices(words, k=2 * MOST)) for _ in range(8)]
    lines += ["".join(draw.choices(characters, k=2 * MOST)) for _ in range(8)]
    lines += ["the dog " + "x" * 2 * MOST, "x" * MOST + " the dog", "the dog " * MOST, "fox" * MOST, "😀 " * MOST]
    return lines


def test_what_is_read_of_a_long_line_is_all_that_matters(fp32: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    given = long_lines()
    found = fp32.translate_with_scores(given)
    assert all(translation.cut for translation in found)
    short = fp32._encode([translator._beginning(line, MOST) for line in given], 1)
    whole = fp32._encode(given, 1)
    assert [row[:POSITIONS].tolist() for row in short] == [row[:POSITIONS].tolist() for row in whole]
    assert all(len(a) < len(b) for a, b in zip(short, whole, strict=True))
    monkeypatch.setattr(translator, "CHARACTERS_PER_POSITION", 10**6)
    assert fp32.translate_with_scores(given) == found


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("", 0),
        ("x" * 100, 100),
        ("the dog " * 12, 96),
        ("x" * 101, 100),
        ("a" * 97 + " bcdef", 97),
        ("a " + "b" * 200, 100),
    ],
)
def test_where_a_line_is_cut(line: str, kept: int) -> None:
    assert translator._beginning(line, 100) == line[:kept]


def test_spaces_at_the_end_are_not_cut(fp32: Translator, caplog: pytest.LogCaptureFixture) -> None:
    found = fp32.translate_with_scores(["the dog" + " " * 100_000, " " * 100_000, "the dog"])
    assert [translation.cut for translation in found] == [False] * 3
    assert found[0] == found[2]
    assert caplog.messages == []


def test_a_line_of_many_megabytes_costs_little(fp32: Translator, caplog: pytest.LogCaptureFixture) -> None:
    line = "the dog " * 2**21
    started = time.process_time()
    (found,) = fp32.translate_with_scores([line])
    assert found.text == fp32.translate(["the dog " * 100])[0]
    assert time.process_time() - started < 2  # the tokenizer would take ten times as long, and gigabytes
    assert caplog.messages[0] == f"line 1 has 16,777,215 characters; only the first {POSITIONS} tokens are translated"


def test_only_the_first_cut_lines_are_told(fp32: Translator, caplog: pytest.LogCaptureFixture) -> None:
    given = ["e" * 60] * 30
    with caplog.at_level(logging.WARNING):
        list(fp32.stream(given, window=7))
    assert len(caplog.messages) == translator.MOST_CUT_TOLD + 1
    assert caplog.messages[-1] == "more lines are that long; they are cut without a message for each"
    cut = translator.CutLines()
    fp32.translate_numbered(given, cut=cut)
    assert cut.count == 30


# ---- settings that cannot be --------------------------------------------------------------------------------------


@pytest.fixture
def altered(exported: Path, tmp_path: Path) -> Callable[..., Path]:
    """``altered(positions=9)``: a copy whose export.json says so; ``bare`` takes the metadata from its model."""

    def make(bare: bool = False, **values: object) -> Path:
        copy = shutil.copytree(exported, tmp_path / "copy")
        if bare:
            strip(copy / "model.onnx")
            write_settings(copy, open_folder(exported).settings, {})
        content = json.loads((copy / "export.json").read_text())
        content["settings"].update(values)
        (copy / "export.json").write_text(json.dumps(content))
        return copy

    return make


def strip(file: Path) -> None:
    import onnx

    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, file)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("positions", 46), ("blank", 2), ("symbols", 200), ("ratio", 3), ("upsampler", "token_duplication")],
)
def test_settings_of_another_model(
    exported: Path, altered: Callable[..., Path], name: str, value: object, precision: str
) -> None:
    before = getattr(open_folder(exported).settings, name)
    message = rf"export.json and model.*\.onnx do not belong together \({name}: {value} and {before}\); make the folder"
    with pytest.raises(UserError, match=message):
        Translator(altered(**{name: value}), precision=precision)


@pytest.mark.parametrize(
    "values",
    [
        {"symbols": 10**10},
        {"symbols": 10**100},
        {"positions": 10**10},
        {"positions": 10**30, "ratio": 10**300},
        {"positions": 100_000, "ratio": 1e9},
        {"positions": 100_000, "ratio": 60},
    ],
    ids=str,
)
def test_absurd_settings_end_in_a_message(altered: Callable[..., Path], values: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"(export\.json: .* cannot be right|model\.onnx: .* cannot run it)"):
        Translator(altered(bare=True, **values), precision="fp32").translate(["the dog"])


def test_a_model_without_settings_in_it_is_taken(altered: Callable[..., Path], fp32: Translator) -> None:
    assert Translator(altered(bare=True), precision="fp32").translate(TEXT) == fp32.translate(TEXT)
