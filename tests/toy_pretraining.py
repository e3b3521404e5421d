"""Tiny texts and a tiny model to pretrain, see :mod:`examples.ctc_nat_small_scale.pretrain`."""

from pathlib import Path

from examples.ctc_nat_small_scale.pretrain_data import Language, read_language
from tests.toy import texts

LANGUAGES = ("en", "de")
BLOCK = 12


def make_inputs(folder: Path) -> Path:
    """Write ``en.txt``, ``de.txt`` and ``shape/``, the model with random weights; the folder."""
    from nat_plugin.cli import main

    for name, lines in zip(LANGUAGES, zip(*texts(400, 1), strict=True), strict=True):
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shape = ["--layers", "1", "--width", "32", "--heads", "2", "--ffn", "64", "--max-positions", "32"]
    corpus = [str(folder / f"{name}.txt") for name in LANGUAGES]
    words = ["prepare-pmlm", "--from-scratch", "--vocab-size", "73", "--corpus", *corpus, *shape]
    assert main([*words, "--output", str(folder / "shape")]) == 0
    return folder


def read(home: Path, name: str, **changed: int) -> Language:
    """A language's blocks as the runs of these tests read them."""
    how = {"block": BLOCK, "valid_lines": 40, "seed": 1, **changed}
    return read_language(home / f"{name}.txt", home / "shape", home / ".tokens", **how)
