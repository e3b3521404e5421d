"""The detectors: what each finds and misses on labelled texts, and what holds for any text."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nid_plugin.audit.accuracy import ANY_STRICT, MEASURED, measure
from nid_plugin.audit.detectors import BY_NAME, DETECTORS, GROUPS, SIDES, find_all
from nid_plugin.audit.matching import without_long_blanks, without_quotes

LABELLED = [
    json.loads(line)
    for line in Path(__file__).with_name("labelled_texts.jsonl").read_text(encoding="utf-8").splitlines()
]
PARTS = ("dev", "test", "found")
NAMES = [detector.name for detector in DETECTORS]


def part(name: str) -> list[dict]:
    return [text for text in LABELLED if name in ("all", text["half"])]


def test_the_labelled_texts_are_many_and_varied() -> None:
    assert len(LABELLED) >= 300
    assert len({text["kind"] for text in LABELLED}) >= 30
    assert sum(not text["labels"] for text in LABELLED) >= 100
    assert {label for text in LABELLED for label in text["labels"]} == set(NAMES)
    assert {text["side"] for text in LABELLED} == set(SIDES)
    assert len({text["text"] for text in LABELLED}) == len(LABELLED)


@pytest.mark.parametrize("name", ["all", *PARTS])
def test_precision_and_recall_are_those_that_the_program_states(name: str) -> None:
    assert measure(part(name)) == {detector: parts[name] for detector, parts in MEASURED.items()}


def test_the_user_guide_states_the_same() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "user-guide" / "audit.md").read_text(encoding="utf-8")
    for name, parts in MEASURED.items():
        counts = [f"{one.right}/{one.wrong}/{one.missed}" for one in (parts[part] for part in PARTS)]
        shares = [f"{parts['all'].precision:.2f}", f"{parts['all'].recall:.2f}"]
        first = f"`{name}` | {BY_NAME[name].group}" if name in BY_NAME else "any of assistant, instruction | "
        assert f"| {first} | {' | '.join(counts + shares)} |" in guide
    assert all(detector.description in guide for detector in DETECTORS)
    assert f"{len(LABELLED)} texts labelled by hand" in guide


@pytest.mark.parametrize("name", NAMES)
def test_floors(name: str) -> None:
    """Over all labelled texts; a change of a rule that trades these away is noticed."""
    whole = MEASURED[name]["all"]
    assert whole.right >= 8
    assert whole.precision >= 0.8
    assert whole.recall >= 0.8


def test_floors_of_what_instruction_data_is_made_of() -> None:
    """The three parts apart: of a real model's completions the rules find half and more, and are right."""
    parts = {name: MEASURED[ANY_STRICT][name] for name in PARTS}
    assert all(one.precision >= 0.95 for one in parts.values())
    assert parts["dev"].recall >= 0.9 and parts["test"].recall >= 0.9 and parts["found"].recall >= 0.5


@pytest.mark.parametrize("name", NAMES)
def test_documented_examples_and_counter_examples(name: str) -> None:
    detector = BY_NAME[name]
    assert all(detector.find(text) for text in detector.examples), detector.examples
    assert not any(detector.find(text) for text in detector.counter_examples), detector.counter_examples


def test_every_group_has_a_detector_and_names_are_unique() -> None:
    assert {detector.group for detector in DETECTORS} == set(GROUPS)
    assert len(BY_NAME) == len(DETECTORS)
    assert not set(BY_NAME) & set(GROUPS)


PIECES = """\
Please|write|a|function|that|you|?|1.|-|User:|Assistant:|Q:|A:|"|“|”|'|I|can't|sorry,|Here is|the text|continues
First,|open|.|Sure!|###|As an AI|model|to|list|\n|the"""
WORDS = st.sampled_from([*PIECES.replace("\n", "|").split("|"), "\n"])
TEXTS = st.one_of(
    st.text(max_size=300), st.lists(WORDS, max_size=60).map(" ".join), st.lists(WORDS, max_size=60).map("".join)
)


@given(TEXTS)
def test_matches_lie_in_the_text_and_are_not_empty(text: str) -> None:
    for side in SIDES:
        for name, matches in find_all(text, side).items():
            assert side in BY_NAME[name].sides
            assert matches and all(0 <= match.start < match.end <= len(text) for match in matches)


BLANKS = st.lists(st.sampled_from(["a", ".", "\n", " ", " " * 99, "\t" * 60, "\n" * 150, " " * 300]), max_size=12)


@given(BLANKS.map("".join))
@example("\n" + " " * 300 + "a")
@example(" " * 99 + "\n" * 150 + " " * 99 + "a")
def test_filling_long_blanks_keeps_every_place_and_line(text: str) -> None:
    filled = without_long_blanks(text)
    assert len(filled) == len(text)
    assert all(one == other or other.isspace() for one, other in zip(filled, text, strict=True))
    assert max((len(run) for run in re.findall(r"\s+", filled)), default=0) <= 101
    assert re.findall(r"\n\s*[a.]", text) == [] or re.findall(r"\n\s*[a.]", filled)
    assert len(re.findall(r"\n[^\S\n]*[a.]", filled)) >= len(re.findall(r"\n[^\S\n]{0,100}[a.]", text))
    assert text == filled or re.search(r"\s{102}", text)


def test_what_follows_long_blanks_is_found() -> None:
    for gap in (" " * 5000, "\n" * 5000, " " * 3000 + "\n" + " " * 3000):
        assert find_all(f"It rained.{gap}I can't assist with that.", "completion").keys() == {"refusal"}
    steps = "\n".join(f"{number}. Open the lid." + " " * 400 for number in range(1, 4))
    assert "step-list" in find_all(steps, "prompt")


@given(TEXTS)
def test_hiding_quotes_keeps_every_place(text: str) -> None:
    hidden = without_quotes(text)
    assert len(hidden) == len(text)
    assert all(one == other or one == "·" for one, other in zip(hidden, text, strict=True))


REPEATED = [
    *(
        "a ",
        "“",
        "'a",
        "?",
        "please ",
        "1. Open the lid\n",
        "can you ",
        "if you ",
        "I can't ",
        "I ",
        "as an AI ",
        "write ",
    ),
    *("\n", " ", "the text ", "User: a\n", '"a', "very ", "First, open the lid. ", "here is a ", "1. ", "* ", "Q: a\n"),
]


@pytest.mark.parametrize("piece", REPEATED)
def test_no_text_takes_long(piece: str) -> None:
    """A hundred thousand characters in a fraction of a second; quadratic rules would take minutes."""
    begun = time.process_time()
    find_all("You are a " + piece * (100_000 // len(piece)), "completion")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("blank", [" ", "\n", "\t ", " \n"])
@pytest.mark.parametrize("start", ["", "Foo: ", "1. ", "Q", "if you have", "Hope this", "please", "I can't"])
def test_no_blanks_take_long(start: str, blank: str) -> None:
    """White space that several parts of a rule could take: found by trying; some took minutes."""
    begun = time.process_time()
    find_all(f"So. {start}{blank * (50_000 // len(blank))}x", "completion")
    assert time.process_time() - begun < 2
