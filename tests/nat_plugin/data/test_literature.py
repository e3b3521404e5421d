import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat_plugin.data import literature
from nat_plugin.data.literature import Drop, clean_corpus, final_case, judge, normalise, rules_for
from plugin_common.errors import UserError

WORDS = " ".join(["word"] * 300)


def write(folder: Path, splits: dict[str, list[tuple[str, str]]], source="de", target="en") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        for column, language in enumerate((source, target)):
            text = "".join(f"{pair[column]}\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8", newline="\n")
    return folder


def read(folder: Path, split: str, source="de", target="en") -> list[tuple[str, str]]:
    sides = [(folder / f"{split}.{language}").read_text("utf-8").split("\n")[:-1] for language in (source, target)]
    return list(zip(*sides, strict=True))


def test_wmt14_lines():
    rules = rules_for("wmt14", "en", "de")
    assert normalise("„Das\u200bist´s“ – ja\u00a0…", "de", "train", rules) == '"Das ist\'s" - ja ...'
    assert normalise("It’s (here) !", "en", "test", rules) == "It's (here)!"
    assert final_case("Das", rules) == "Das"


def test_wmt16_lines():
    rules = rules_for("wmt16", "en", "ro")
    assert normalise("Ştiinţa „e” aici", "ro", "train", rules) == 'Știința "e" aici'
    assert normalise("Şşţ", "en", "train", rules) == "Şşţ"
    stripped = rules_for("wmt16", "ro", "en", remove_diacritics=True)
    for split in ("train", "valid", "test"):  # the model must see in use what it saw in training
        assert normalise("Ştiinţă în", "ro", split, stripped) == "Stiinta in"
    assert normalise("naïve â", "en", "train", stripped) == "naïve â"


def test_iwslt14_lines():
    rules = rules_for("iwslt14", "de", "en")
    assert normalise(" Das ist’s , ja . ", "de", "test", rules) == "Das ist's, ja."
    assert normalise("Das ist’s , ja .", "de", "train", rules) == "Das ist’s , ja ."
    assert final_case("Das ÄRGERT", rules) == "das ärgert"


@pytest.mark.parametrize(
    ("dataset", "pair", "reason"),
    [
        ("wmt14", ("one two three", "eins zwei"), None),
        ("wmt14", ("one two three four", "eins zwei"), Drop.RATIO),
        ("wmt14", ("a well-known one", "eins zwei drei vier"), None),  # the hyphen makes five of three
        ("wmt14", ("", "eins"), Drop.EMPTY),
        ("wmt14", (WORDS, WORDS), Drop.TOO_LONG),
        ("wmt14", (WORDS[: 250 * 5 - 1], WORDS[: 250 * 5 - 1]), None),
        ("wmt14", ("x" * 1001, "y"), Drop.LONG_WORD),
        ("wmt14", ("x" * 1000, "y"), None),
    ],
)
def test_pairs_that_are_dropped(dataset, pair, reason):
    assert judge(pair, rules_for(dataset, "en", "de")) is reason


PIECES = st.lists(st.sampled_from(["word", "o'clock", "well-known", "3,5", "(x)", "...", "Dr.", "«da»"]), max_size=12)


@pytest.mark.parametrize(("dataset", "target"), [("wmt14", "de"), ("wmt16", "ro"), ("iwslt14", "de")])
@given(pair=st.tuples(PIECES.map(" ".join), PIECES.map(" ".join)))
def test_the_quick_way_keeps_only_what_the_tokeniser_would(dataset, target, pair):
    rules = rules_for(dataset, "en", target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(literature, "_surely_kept", lambda pair, rules: False)
        expected = judge(pair, rules)
    assert judge(pair, rules) is expected


def test_limits_of_the_other_two():
    wmt16, iwslt = rules_for("wmt16", "en", "ro"), rules_for("iwslt14", "en", "de")
    assert judge((WORDS[:399], WORDS[:399]), wmt16) is None
    assert judge((WORDS[:400] + "x", WORDS[:400]), wmt16) is Drop.TOO_LONG
    assert judge(("a b c d e f g h i", "a"), wmt16) is None
    assert judge(("a b c d e f g h i j", "a"), wmt16) is Drop.RATIO
    assert judge((WORDS[: 175 * 5 - 1], WORDS[: 175 * 5 - 1]), iwslt) is None
    assert judge((WORDS[: 176 * 5 - 1], WORDS[: 175 * 5 - 1]), iwslt) is Drop.TOO_LONG


def test_iwslt14_takes_every_23rd_kept_pair_for_valid(tmp_path):
    pairs = [(f"Satz Nummer {number} .", f"Sentence number {number} .") for number in range(100)]
    pairs[5] = ("", "Nothing there .")
    pairs[7] = ("Zu kurz", "This one is far too long")
    raw = write(tmp_path / "raw", {"train": pairs, "test": [("Ja , gut .", "Yes , it’s good ."), ("", "")]})
    report = clean_corpus("iwslt14", "de", "en", raw, tmp_path / "clean")
    kept = [(f"satz nummer {k} .", f"sentence number {k} .") for k in range(100) if k not in (5, 7)]
    assert read(tmp_path / "clean", "valid") == kept[22::23]
    assert read(tmp_path / "clean", "train") == [pair for k, pair in enumerate(kept, 1) if k % 23]
    assert read(tmp_path / "clean", "test") == [("ja, gut.", "yes, it's good."), ("", "")]
    assert report.dropped == {"a side is empty": 1, "lengths differ too much": 1}
    assert report.read == 100 == sum(report.dropped.values()) + report.lines["train"] + report.lines["valid"]
    assert report.lines == {"train": 94, "valid": 4, "test": 2}
    stored = json.loads((tmp_path / "clean" / "report.json").read_text())
    assert stored["rules"]["valid_every"] == 23 and stored["dropped"] == report.dropped
    assert "dropped, a side is empty: 1" in report.as_lines()


def test_lengths_are_measured_before_lower_casing(tmp_path):
    """In lower case Moses would leave the full stop on "gut." and count a token less: 2 to 4, which is dropped."""
    pair = ("Gut. Ja", "One. Two")
    raw = write(tmp_path / "raw", {"train": [pair, ("Gut. So", "x y z a")], "test": []})
    report = clean_corpus("iwslt14", "de", "en", raw, tmp_path / "clean")
    assert (report.lines["train"], report.dropped.total()) == (2, 0)


def test_valid_and_test_are_normalised_but_never_filtered(tmp_path):
    held_out = [("„x“", "a b c d e f g"), ("", "empty source"), ("\u200b", "invisible"), (WORDS, "short")]
    raw = write(tmp_path / "raw", {"train": [("a", "b")], "valid": held_out, "test": held_out[::-1]})
    report = clean_corpus("wmt14", "de", "en", raw, tmp_path / "clean")
    expected = [('"x"', "a b c d e f g"), ("", "empty source"), ("", "invisible")]
    assert read(tmp_path / "clean", "valid")[:3] == expected
    assert len(read(tmp_path / "clean", "test")) == 4
    assert report.emptied == {"valid.de": 1, "test.de": 1}
    assert report.changed["valid.de"] == 2


def test_duplicates_are_dropped_only_on_demand(tmp_path):
    raw = write(tmp_path / "raw", {"train": [("a", "b"), ("a  ", "b"), ("a", "c")], "valid": [], "test": []})
    assert clean_corpus("wmt14", "de", "en", raw, tmp_path / "all").lines["train"] == 3
    report = clean_corpus("wmt14", "de", "en", raw, tmp_path / "clean", deduplicate=True)
    assert read(tmp_path / "clean", "train") == [("a", "b"), ("a", "c")]
    assert report.dropped == {"duplicate pair": 1}


def test_several_processes_give_what_one_gives(tmp_path):
    pairs = [(f"Satz {number} „da“ .", "word " * (number % 9)) for number in range(4500)]
    raw = write(tmp_path / "raw", {"train": pairs, "valid": pairs[:50], "test": pairs[:9]})
    one = clean_corpus("wmt14", "de", "en", raw, tmp_path / "one")
    two = clean_corpus("wmt14", "de", "en", raw, tmp_path / "two", workers=2)
    assert one == two and one.dropped.total() > 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=8))
def test_any_text_keeps_lines_and_counts(tmp_path, pairs):
    clean = [tuple("".join(side.split()).replace("\x00", "") for side in pair) for pair in pairs]
    clean = [tuple(side.encode("utf-8", "replace").decode() for side in pair) for pair in clean]
    raw = write(tmp_path / "raw", {"train": [*clean, ("a", "b")], "valid": clean, "test": clean})
    for dataset in ("wmt14", "iwslt14"):
        report = clean_corpus(dataset, "de", "en", raw, tmp_path / dataset)
        assert len(read(tmp_path / dataset, "test")) == len(clean)
        assert report.read == len(clean) + 1 == report.lines["train"] + report.dropped.total()
        text = (tmp_path / dataset / "train.de").read_text("utf-8")
        assert text.splitlines() == text.split("\n")[:-1]


def test_sides_of_different_length_write_nothing(tmp_path):
    raw = write(tmp_path / "raw", {"train": [("a", "b")] * 3, "valid": [], "test": []})
    (raw / "train.en").write_text("b\nb\n")
    with pytest.raises(UserError, match=r"train\.en ends after 2 lines, .*train\.de goes on"):
        clean_corpus("wmt14", "de", "en", raw, tmp_path / "clean")
    assert list((tmp_path / "clean").iterdir()) == []


def test_missing_files_are_listed_at_once(tmp_path):
    raw = write(tmp_path / "raw", {"train": [("a", "b")]})
    with pytest.raises(UserError) as error:
        clean_corpus("wmt14", "de", "en", raw, raw)
    assert str(error.value).startswith("5 problems:")
    assert "valid.de: no such file; `nat download wmt14` makes it" in str(error.value)
    assert "is input and output" in str(error.value)


def test_nothing_left_is_an_error(tmp_path):
    raw = write(tmp_path / "raw", {"train": [("", "b")], "valid": [], "test": []})
    with pytest.raises(UserError, match="no pair left after cleaning: dropped, a side is empty: 1"):
        clean_corpus("wmt14", "de", "en", raw, tmp_path / "clean")


def test_diacritics_of_other_sources_are_refused():
    with pytest.raises(UserError, match=r"--remove-diacritics is about Romanian source text.*the source is en"):
        rules_for("wmt16", "en", "ro", remove_diacritics=True)
