"""``nat ngram-lm`` as a user runs it."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from nat_plugin.cli import main
from nat_plugin.decoding.ngram_lm import NgramLm

LINES = ["▁the ▁file ▁was s aved", "▁the ▁file", "", "▁a ▁file ▁was ▁the ▁file", "<unk> ▁was"] * 3
PIECES = ["▁the", "▁file", "▁was", "s", "aved", "▁a", "▁more"]
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *PIECES]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.de").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    (tmp_path / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES), encoding="utf-8")
    return tmp_path


def score(lm: NgramLm, *words: str) -> float:
    total, state = 0.0, lm.start(1)
    for word in words:
        log_prob, state = lm.score(state, np.array([SYMBOLS.index(word)]))
        total += float(log_prob[0])
    return total + float(lm.end(state)[0])


def test_estimate_for_a_dictionary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ngram-lm", "--corpus", "train.de", "--dict", "dict.txt", "--output", "lm.npz"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("lm.npz: order 4, 9 + 14 + 12 + 10 n-grams, ")
    assert "15 lines, 42 pieces, 6 different ones" in shown.err
    assert "order 4: 10 n-grams; discounts 0.500 1.000 1.500" in shown.err
    assert "2 of the dictionary's 11 symbols score as <unk>" in shown.err  # <pad> and ▁more
    lm = NgramLm.from_file("lm.npz", SYMBOLS)
    assert lm.order == 4
    assert score(lm, "▁the", "▁file") > score(lm, "▁file", "▁the")


def test_arpa_compressed_arpa_and_npz_are_one_model(folder: Path) -> None:
    options = ["--order", "3", "--corpus", "train.de"]
    assert main(["ngram-lm", *options, "--output", "lm.arpa"]) == 0
    assert main(["ngram-lm", *options, "--output", "lm.arpa.gz"]) == 0
    assert main(["ngram-lm", *options, "--output", "lm.npz", "--dict", "dict.txt"]) == 0
    assert main(["ngram-lm", "--from", "lm.arpa.gz", "--output", "converted.npz", "--dict", "dict.txt"]) == 0
    assert main(["ngram-lm", "--from", "lm.arpa.gz", "--output", "unpacked.arpa"]) == 0
    assert Path("unpacked.arpa").read_bytes() == Path("lm.arpa").read_bytes()
    texts = [("▁the", "▁file"), ("s", "▁was", "▁a", "<unk>"), ("▁more", "▁more"), ()]
    for text in texts:
        scores = [
            score(NgramLm.from_file(name, SYMBOLS), *text)
            for name in ("lm.arpa", "lm.arpa.gz", "lm.npz", "converted.npz")
        ]
        assert scores == pytest.approx([scores[0]] * 4, abs=1e-5)


def test_standard_input_several_files_and_pruning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("▁a ▁a\n".encode())))
    command = ["ngram-lm", "--corpus", "train.de", "-", "--order", "2", "--prune", "0", "1", "--output", "lm.arpa"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "16 lines, 44 pieces" in shown.err
    assert "order 2: 16 n-grams, 2 pruned" in shown.err  # "▁a ▁a" and "▁a </s>"
    assert "▁a ▁a" not in Path("lm.arpa").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "train.de", "--output", "lm.bin"], "the name has to end in .arpa, .arpa.gz or .npz"),
        (["--corpus", "train.de", "--output", "lm.npz"], "--dict goes with an --output that ends in .npz"),
        (["--corpus", "train.de", "--output", "lm.arpa", "--dict", "dict.txt"], "--dict goes with an --output"),
        (["--from", "lm.arpa", "--order", "3", "--output", "lm2.arpa"], "--order and --prune go with --corpus"),
        (["--from", "lm.npz", "--output", "lm2.arpa"], "expected an ARPA file"),
        (["--corpus", "train.de", "--order", "0", "--output", "lm.arpa"], "0: expected 1 to 9"),
        (["--corpus", "train.de", "--order", "x", "--output", "lm.arpa"], "argument --order: invalid order value: 'x'"),
        (["--corpus", "train.de", "--prune", "y", "--output", "lm.arpa"], "argument --prune: invalid count value: 'y'"),
        (["--corpus", "train.de", "--prune", "0", "-1", "--output", "lm.arpa"], "-1"),
        (["--output", "lm.arpa"], "one of the arguments --corpus --from is required"),
    ],
)
def test_wrong_use_ends_with_status_2(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ngram-lm", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            ["--corpus", "none.de", "--output", "no/lm.arpa"],
            ["none.de: no such file", "there is no folder no; make it"],
        ),
        (["--from", "train.de", "--output", "lm.arpa"], ["train.de: no line \\data\\; expected an n-gram model"]),
        (["--corpus", "train.de", "--output", "lm.arpa", "--prune", "1"], ["--prune 1: expected up to 4 counts"]),
        (["--corpus", "train.de", "--output", "lm.npz", "--dict", "train.de"], ["train.de, line 1: expected `symbol"]),
        (["--corpus", "lm.arpa", "--output", "lm.arpa"], ["is also read; give another name"]),
        (["--corpus", "empty", "--output", "lm.arpa"], ["empty: no words; expected token text"]),
        (["--corpus", "words", "--dict", "dict.txt", "--output", "lm.npz"], ["words: 3 of its 3 words are not in the"]),
        (["--corpus", "marks", "--output", "lm.arpa"], ["marks, line 2: holds <s> or </s>"]),
    ],
)
def test_bad_input_is_named_and_nothing_is_left(
    folder: Path, options: list[str], messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").write_text("\n\n")
    Path("words").write_text("the file was\n")
    Path("marks").write_text("a\nb </s>\n")
    before = sorted(path.name for path in folder.iterdir())
    if "lm.arpa" in options[1]:
        Path("lm.arpa").write_text("a\n")
    assert main(["ngram-lm", *options]) == 1
    error = capsys.readouterr().err
    for message in messages:
        assert message in error
    assert "Traceback" not in error
    assert sorted({path.name for path in folder.iterdir()} - {"lm.arpa"}) == before


def test_a_failed_run_leaves_the_previous_model(folder: Path) -> None:
    Path("lm.arpa").write_text("before")
    Path("marks").write_text("</s>\n")
    assert main(["ngram-lm", "--corpus", "marks", "--output", "lm.arpa"]) == 1
    assert Path("lm.arpa").read_text() == "before"
