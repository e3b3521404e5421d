"""``fairseq-interactive``: output line k belongs to input line k, always."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Finished, Runner
from tests.toy import LEXICON, POSITIONS, TASK, Pieces, Toy, sentences, texts, translate

Interactive = Callable[..., Finished]


@pytest.fixture
def interactive(run: Runner, toy: Toy) -> Interactive:
    """``interactive(text, *options)``: translate what is typed, by default with the toy's best model."""

    def call(text: str | bytes, *words: str, data: Path = toy.bin, path: Path = toy.best, **options: Any) -> Finished:
        return run("fairseq-interactive", data, *TASK, "--path", path, *words, input=text, **options)

    return call


def in_order(done: Finished) -> list[str]:
    """The translations; their numbers have to come as 0, 1, 2, …"""
    translations = done.translations()
    assert list(translations) == list(range(len(translations)))
    return list(translations.values())


LONG = " ".join(sentences(30, 6))
PREFIX = translate(" ".join(LONG.split()[: POSITIONS - 1]))


def test_lines_in_are_lines_out(interactive: Interactive) -> None:
    """Empty and over-long lines, odd characters, and no newline at the end, in three buffers."""
    typed = [
        b"w1 w2 w3", b"", b"w4\rw5", LONG.encode(), b"w6 \xff w7", "w8\u2028w9".encode(), b"   ", b"w10\r", b"\tw11 ",
        "w12\u00a0w13\x85w14".encode(), b"last w1",
    ]  # fmt: skip
    done = interactive(b"\n".join(typed), "--buffer-size", "4", "--max-tokens", "3000", fresh=True)
    found = in_order(done)
    assert len(found) == len(typed)
    # words outside the dictionary are <unk>, for which the model has learned nothing
    assert [found[i] for i in (0, 1, 2, 5, 6, 7, 8, 9)] == [
        "W1 W2 W3", "", "W4 W5", "W8 W9", "", "W10", "W11", "W12 W13 W14"
    ]  # fmt: skip
    assert "W6" in found[4]
    assert "W1" in found[10]
    assert found[3]
    assert f"input line 4 has {len(LONG.split())} tokens; only the first {POSITIONS - 1} are translated" in done.log
    assert "input line 5: byte 4 is no UTF-8; replaced by U+FFFD" in done.log
    assert done.lines("S")[3].split() == LONG.split()[: POSITIONS - 1]
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    "batching",
    [
        (),
        ("--buffer-size", "1", "--batch-size", "1"),
        ("--buffer-size", "7", "--batch-size", "3"),
        ("--buffer-size", "100", "--batch-size", "64"),
        ("--buffer-size", "100", "--max-tokens", "50", "--required-batch-size-multiple", "8"),
        ("--buffer-size", "13", "--batch-size", "5", "--required-batch-size-multiple", "64"),
    ],
    ids=" ".join,
)
def test_every_line_in_order_whatever_the_batching(interactive: Interactive, batching: tuple[str, ...]) -> None:
    typed = sentences(40, 77)
    for place in (0, 5, 39):
        typed[place] = ""
    random.Random(1).shuffle(typed)
    done = interactive("".join(f"{line}\n" for line in typed), *batching)
    found = in_order(done)
    assert len(found) == len(typed)
    right = sum(translation == translate(line) for translation, line in zip(found, typed, strict=True))
    assert right >= 39


def test_input_can_be_a_file(interactive: Interactive, tmp_path: Path) -> None:
    (tmp_path / "typed.txt").write_text("w1 w2\n\nw3\n")
    assert in_order(interactive("", "--input", str(tmp_path / "typed.txt"))) == ["W1 W2", "", "W3"]


def test_no_input_no_output(interactive: Interactive) -> None:
    assert interactive("").translations() == {}


def test_names_of_special_symbols_do_not_disturb_other_lines(interactive: Interactive) -> None:
    typed = ["w1", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "w2 <pad> w3", "</s> w4 <s>", "w5"]
    found = in_order(interactive("\n".join(typed), "--buffer-size", "20", "--batch-size", "20"))
    assert len(found) == len(typed)
    assert (found[0], found[8]) == ("W1", "W5")


def test_a_sentence_over_max_tokens_is_translated_and_named(interactive: Interactive) -> None:
    long = "w3 w4 " * 10
    done = interactive(f"w1\nw2\n{long}\nw5\n", "--max-tokens", "12", "--buffer-size", "2")
    found = in_order(done)
    assert len(found) == 4
    assert [found[i] for i in (0, 1, 3)] == ["W1", "W2", "W5"]
    assert found[2].startswith("W3")
    assert "--max-tokens 12 is less than these input lines have, which form batches of their own: line 3" in done.log


def test_constraints_are_refused(interactive: Interactive) -> None:
    message = interactive("w1\tW2\n", "--constraints", expect=1).error()
    assert "--constraints needs a left-to-right model; leave it out with --task ctc_nat" in message


def test_plain_text_in_and_out(interactive: Interactive, pieces: Pieces) -> None:
    typed = [source for source, _ in texts(12, 44)] + ["", "the <mask> house", "  the   green\thouse . "]
    done = interactive(
        "\n".join(typed), "--bpe", "pmlm", "--pmlm-tokenizer", str(pieces.pmlm), "--buffer-size", "6", "--batch-size",
        "4", data=pieces.bin, path=pieces.checkpoint,
    )  # fmt: skip
    assert len(in_order(done)) == len(typed)
    plain = [rest.split("\t")[1] for rest in done.lines("D").values()]
    expected = [target for _, target in texts(12, 44)]
    assert sum(one == other for one, other in zip(plain, expected, strict=False)) >= 10
    assert plain[12] == ""
    assert not re.search("▁", "".join(plain)), "no piece's mark is left"
    assert "Haus" in plain[13]
    assert plain[14].split()[:2] == [LEXICON["the"], LEXICON["green"]]
