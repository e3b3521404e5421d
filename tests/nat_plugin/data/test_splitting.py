import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.data.cleaning import Pair
from nat_plugin.data.splitting import Leaks, find_leaks, group_pairs, split_pairs
from plugin_common.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
WORDS = ["open", "close", "file", "page", "new", "old", "the", "user", "save", "delete", "{}", "all"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
corpora = st.lists(st.tuples(texts, texts), min_size=4, max_size=60, unique=True)


def corpus(size: int) -> list[Pair]:
    """Pairs that have nothing in common."""
    return [(f"alpha{letters} beta{letters}", f"gamma{letters}") for letters in map(_letters, range(size))]


def _letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:04}")


def test_groups_by_source_target_and_near_duplicates() -> None:
    pairs = [
        ("Open file", "Datei öffnen"),
        ("open FILE 2!", "Öffne die Datei"),  # the same source but for case, digits, punctuation
        ("Load a document", "Öffne die Datei"),  # the same target as the one before: a chain
        ("Delete the old page", "Alte Seite löschen"),
        ("Delete the new page", "Neue Seite löschen"),  # one word in four
        ("Something else", "Etwas anderes"),
    ]
    assert group_pairs(pairs) == [[0, 1, 2], [3, 4], [5]]


@settings(max_examples=60)
@given(corpora, st.integers(0, 3), st.integers(0, 3), st.integers(0, 5))
def test_no_leak_and_nothing_lost(pairs: list[Pair], valid: int, test: int, seed: int) -> None:
    try:
        sides = split_pairs(pairs, valid_size=valid, test_size=test, seed=seed)
    except UserError:
        return
    assert (len(sides["valid"]), len(sides["test"])) == (valid, test)
    assert sorted(pair for side in sides.values() for pair in side) == sorted(pairs)
    assert find_leaks(sides) == Leaks(0, 0, 0)


def test_find_leaks_sees_each_kind() -> None:
    train = [("Open file", "Datei öffnen"), ("Delete the old page", "Alte Seite löschen")]
    assert find_leaks({"train": train, "test": [("open file!", "Anderes")]}) == Leaks(1, 0, 0)
    assert find_leaks({"train": train, "test": [("Load it", "Datei {} öffnen")]}) == Leaks(0, 1, 0)
    assert find_leaks({"train": train, "test": [("Delete the new page", "Anderes")]}) == Leaks(0, 0, 1)
    assert find_leaks({"train": train, "test": [("Quit", "Beenden")]}).total == 0


def test_the_order_of_the_input_does_not_matter_and_the_seed_does() -> None:
    pairs = corpus(60)
    forwards = split_pairs(pairs, valid_size=5, test_size=5, seed=1)
    assert split_pairs(pairs[::-1], valid_size=5, test_size=5, seed=1) == forwards
    assert split_pairs(pairs, valid_size=5, test_size=5, seed=2)["test"] != forwards["test"]


def test_the_same_whatever_pythons_hash_seed() -> None:
    code = (
        "from nat_plugin.data.splitting import split_pairs\n"
        "pairs = [(f'open {a} the {b}', f'{b} {a}') for a in 'abcdefg' for b in 'hijklmnop']\n"
        "print(split_pairs(pairs, valid_size=1, test_size=0, near=0.9))\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(runs) == 1
    assert "open" in runs.pop()


def test_too_little_text() -> None:
    with pytest.raises(UserError, match=r"cannot hold out 2 \+ 2 of 4 pairs"):
        split_pairs(corpus(4), valid_size=2, test_size=2)
    alike = [(f"delete the old page {word}", word) for word in ("aa", "bb", "cc", "dd", "ee", "ff")]
    with pytest.raises(UserError, match="test: only 0 of 1 pairs could be held out"):
        split_pairs(alike, valid_size=1, test_size=1)


@pytest.mark.parametrize("pair", ["en-de", "en-ro"])
def test_the_shipped_corpus_has_no_leak(pair: str) -> None:
    folder = ROOT / "examples" / "quickstart" / "data" / pair
    sides = {}
    for side in ("train", "valid", "test"):
        sources, targets = ((folder / f"{side}.{code}").read_text("utf-8").splitlines() for code in pair.split("-"))
        sides[side] = list(zip(sources, targets, strict=True))
        assert len(sides[side]) >= 400
        assert all(source.strip() and target.strip() for source, target in sides[side])
    assert find_leaks(sides) == Leaks(0, 0, 0)
