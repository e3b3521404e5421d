"""A small export folder with random weights: it translates any text to something, other text to something else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nat_plugin.export.folder import TOKENIZER_FILE, Settings, metadata_of, write_settings

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "der schnelle braune Fuchs springt über den faulen Hund",
    "Änderungen können nicht rückgängig gemacht werden!",
    "日本語 の 文字 と 한국어 글자",
    "שלום עולם, مرحبا بالعالم: 100 % (20–30 €)",
    "Открыть файл, закрыть окно; nouveau mot de passe oublié?",
]
"""What the tokenizer's pieces are made from; other characters are unknown to it."""

POSITIONS, BLANK = 47, 0
"""Most positions of the up-sampled source."""


def random_model(symbols: int) -> Any:
    """The model in torch, always with the same weights; they are large, so that its output depends on its input."""
    import torch

    from nat_plugin.models.masked_lm import random_masked_lm, shape_config

    config = shape_config(
        "xlm-roberta", vocab_size=symbols, layers=1, dim=32, ffn_dim=64, heads=2, positions=POSITIONS + 1
    )
    masked_lm = random_masked_lm(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in masked_lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5, generator=generator)
    return masked_lm


def make_export(folder: Path) -> None:
    """Fill ``folder`` with a fp32 and an int8 model, the tokenizer and the settings."""
    from nat_plugin.cli import main
    from nat_plugin.export.onnx_graph import quantize, write_onnx
    from plugin_common.dictionary_file import read_dictionary

    text, pmlm = folder / "text", folder / "pmlm"
    text.write_text("".join(f"{line}\n" for line in TEXT * 4), encoding="utf-8")
    shape = ["--layers", "1", "--width", "16", "--heads", "2", "--ffn", "16", "--max-positions", str(POSITIONS + 1)]
    assert main(["prepare-pmlm", "--from-scratch", "--vocab-size", "250", "--corpus", str(text), *shape,
                 "--output", str(pmlm)]) == 0  # fmt: skip
    symbols = 4 + len(read_dictionary(pmlm / "dict.txt"))
    settings = Settings(
        symbols=symbols, bos=0, pad=1, eos=2, unk=3, mask=symbols - 1, blank=BLANK, upsampler="mask_insertion",
        ratio=2.0, placement="uniform", positions=POSITIONS, source_lang="en", target_lang="de",
    )  # fmt: skip
    model = SimpleNamespace(masked_lm=random_model(symbols), blank=BLANK)
    write_onnx(model, folder / "model.onnx", metadata_of(settings))
    quantize(folder / "model.onnx", folder / "model.int8.onnx")
    shutil.copy(pmlm / TOKENIZER_FILE, folder)
    shutil.rmtree(pmlm)
    text.unlink()
    write_settings(folder, settings, {})


@pytest.fixture(scope="session")
def exported(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The folder that :func:`make_export` makes; do not change it."""
    return once("export", make_export)
