"""``nat translate``: lines in are lines out, each in its place, whatever they hold."""

import logging
import random
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from nat_plugin.export import Translator
from tests.commands import Runner
from tests.toy_export import TEXT, exported

__all__ = ["exported"]

LINES = 10_000
ODD = [
    "\r", "\0", "\x0b", "\x0c", "\x1b", "\x1c", "\x85", "\t", " ", "\u00a0", "\u2028", "\u2029", "\ufeff", "\u0301",
    "\u202e", "\u200f", "\u200d", "\u3000", "▁", "⁇", "\ufffd", "\uffff", "<mask>", "</s>", "<s>", "<pad>", "<unk>",
    "[SEP]",
]  # fmt: skip
KNOWN = sorted(set("".join(TEXT)))


def any_character(draw: random.Random) -> str:
    """Any of Unicode but a newline; surrogates are none."""
    code = draw.randrange(0x110000 - 0x800 - 1)
    code += code >= ord("\n")
    return chr(code + 0x800 * (code >= 0xD800))


KINDS: list[Callable[[random.Random], str]] = [
    any_character,
    lambda draw: draw.choice(KNOWN),
    lambda draw: draw.choice(ODD),
    lambda draw: chr(draw.randrange(0x590, 0x700)),  # Hebrew and Arabic, with their combining marks
    lambda draw: chr(draw.randrange(0x300, 0x370)),
    lambda draw: chr(draw.randrange(0x1F300, 0x1FA00)),
    lambda draw: draw.choice(TEXT),
]


def any_line(draw: random.Random) -> str:
    """0 to 300 characters; short ones, which the model distinguishes best, are frequent."""
    kinds = draw.choices(
        KINDS, [draw.random() ** 3 for _ in KINDS], k=draw.choice([0, 1, 3, 10, 20, draw.randrange(301)])
    )
    return "".join(kind(draw) for kind in kinds)[:300]


def as_read(line: str, number: int) -> str:
    """What the command makes of a line before it is translated."""
    line = line.removesuffix("\r")
    if number == 1:
        line = line.removeprefix("\ufeff")
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", " ", line)


@pytest.mark.parametrize("seed", [1])
def test_ten_thousand_lines_none_shifted(
    run: Runner, exported: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Each output line is what the line gives when it is translated alone."""
    draw = random.Random(seed)
    given = [any_line(draw) for _ in range(LINES)]
    command = [sys.executable, "-m", "nat_plugin.cli", "translate", exported, "--precision", "fp32", "--threads", "1"]
    done = run(*command, input="".join(f"{line}\n" for line in given))
    found = done.stdout.split("\n")
    assert found.pop() == ""
    assert len(found) == LINES

    caplog.set_level(logging.ERROR)
    translator = Translator(exported, precision="fp32", threads=1)
    wanted = [translator.translate([as_read(line, number)])[0] for number, line in enumerate(given, start=1)]
    assert [(k, given[k]) for k in range(LINES) if found[k] != wanted[k]] == []
    # A shift by one line would show: neighbours have different translations.
    assert sum(a != b for a, b in pairwise(wanted)) > 0.5 * LINES
