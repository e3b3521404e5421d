"""The small programs of the reproductions: order of hypotheses, cut corpora, the summary."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_common.errors import UserError
from plugin_common.stages import Workspace
from scripts.nat import clean, drop_long, hypotheses
from scripts.nat.hypotheses import sentences_per_second, translations
from scripts.nat.pipeline import Choices, score_files, speed_commands, stages
from scripts.nat.recipes import RECIPES
from scripts.nat.reproduce import runner
from scripts.nat.summary import summarise, table
from scripts.nat.training import Machine

END = "2026-01-01 | INFO | Translated {:,} sentences (12,345 tokens) in 1.5s ({:.2f} sentences/s, 99.00 tokens/s)"


def generated(texts: list[str], *, seed: int = 1) -> list[str]:
    """Lines as fairseq-generate prints them, in another order."""
    numbers = list(range(len(texts)))
    random.Random(seed).shuffle(numbers)
    return [line for k in numbers for line in (f"S-{k}\tsource", f"H-{k}\t-0.5\tx", f"D-{k}\t-0.5\t{texts[k]}")]


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))), st.integers())
def test_order_is_restored(texts: list[str], seed: int) -> None:
    assert translations(generated(texts, seed=seed), len(texts), "log") == texts


def test_lines_are_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    texts = ["eins", "", "zwei\u2028drei", "vier\rfünf"]
    (tmp_path / "log").write_bytes("\n".join([*generated(texts), END.format(4, 2.5)]).encode())
    (tmp_path / "reference").write_bytes("a\nb\u2028\nc\r\nd\n".encode())
    words = [f"--{name}={tmp_path / name}" for name in ("log", "output")] + [f"--like={tmp_path / 'reference'}"]
    assert hypotheses.main(words) == 0
    assert (tmp_path / "output").read_bytes().decode() == "".join(f"{text}\n" for text in texts)
    assert "4 lines, 1 of them empty" in capsys.readouterr().out
    assert sentences_per_second(tmp_path / "log") == 2.5


def test_incomplete_output_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lines = generated(["a", "b", "c"])
    with pytest.raises(UserError, match=r"log: 1 sentences are missing \(numbers 3, from 0\)"):
        translations(lines, 4, "log")
    with pytest.raises(UserError, match=r"1 sentences are beyond the 2 of the test set \(numbers 2"):
        translations(lines, 2, "log")
    with pytest.raises(UserError, match=r"2 problems:\n.*8 sentences are missing .*3, 4, 5, 6, 7, ….*\n.*once"):
        translations([*lines, "D-1\t0\tb"], 11, "log")
    (tmp_path / "log").write_text("\n".join(lines))
    (tmp_path / "like").write_text("1\n2\n")
    words = [f"--log={tmp_path / 'log'}", f"--like={tmp_path / 'like'}", f"--output={tmp_path / 'output'}"]
    assert hypotheses.main(words) == 1
    assert "hypotheses.py: error: " in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
    with pytest.raises(UserError, match="log: no number of sentences a second"):
        sentences_per_second(tmp_path / "log")


def test_the_first_training_pairs_only(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for split, count in (("train", 9), ("valid", 3), ("test", 2)):
        for language in ("en", "ro"):
            text = "".join(f"This is line {k} of {split}, here.\n" for k in range(count))
            (raw / f"{split}.{language}").write_text(text)
    words = ["wmt16", "--source-lang", "en", "--target-lang", "ro", f"--raw={raw}", f"--output={tmp_path / 'out'}"]
    assert clean.main([*words, "--train-pairs", "4"]) == 0
    counts = {path.name: len(path.read_text().splitlines()) for path in (tmp_path / "out").glob("t*.??")}
    assert counts == {"train.en": 4, "train.ro": 4, "test.en": 2, "test.ro": 2}
    assert "4 training pairs read" in capsys.readouterr().out
    assert clean.main(words) == 0
    assert len((tmp_path / "out" / "train.ro").read_text().splitlines()) == 9
    (raw / "train.ro").unlink()
    assert clean.main([*words, "--train-pairs", "4"]) == 1
    assert f"{raw / 'train.ro'}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [(), ("--train-pairs", "2")])
def test_a_raw_corpus_is_not_written_over(
    limit: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for split in ("train", "valid", "test"):
        for language in ("en", "ro"):
            (tmp_path / f"{split}.{language}").write_text("A line, here.\n" * 9)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    words = ["wmt16", "--source-lang", "en", "--target-lang", "ro", "--raw", str(tmp_path), "--output", str(tmp_path)]
    assert clean.main([*words, *limit]) == 1
    assert "is input and output" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pairs_with_a_long_side_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = [("a b c", "x"), ("a b c d", "x"), ("a", "x y z w"), ("", ""), ("a\u2028b", "x y z")]
    for language, lines in zip(("en", "ro"), zip(*pairs, strict=True), strict=True):
        (tmp_path / f"train.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = [f"--prefix={tmp_path / 'train'}", "--source-lang=en", "--target-lang=ro", "--most=3"]
    assert drop_long.main(words) == 0
    assert (tmp_path / "train.en").read_text(encoding="utf-8") == "a b c\n\na\u2028b\n"
    assert (tmp_path / "train.ro").read_text(encoding="utf-8") == "x\n\nx y z\n"
    assert "2 of 5 pairs dropped: a side of more than 3 tokens" in capsys.readouterr().out
    (tmp_path / "train.ro").write_text("x\n")
    assert drop_long.main(words) == 1
    assert "not the same number of lines" in capsys.readouterr().err
    assert len((tmp_path / "train.en").read_bytes().split(b"\n")) == 4  # untouched
    (tmp_path / "train.ro").unlink()
    assert drop_long.main(words) == 1
    assert "train.ro: cannot be read" in capsys.readouterr().err


def test_a_limit_that_leaves_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for language in ("en", "ro"):
        (tmp_path / f"train.{language}").write_text("a b\nc d\n")
    words = [f"--prefix={tmp_path / 'train'}", "--source-lang=en", "--target-lang=ro"]
    assert drop_long.main([*words, "--most=1"]) == 1
    assert "each of the 2 pairs has a side of more than 1 tokens" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        drop_long.main([*words, "--most=0"])
    assert ended.value.code == 2
    assert "--most 0: expected at least 1" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "train.en": "a b\nc d\n",
        "train.ro": "a b\nc d\n",
    }


@pytest.mark.parametrize(("visible", "slots"), [(None, ["0", "1"]), ("5,7,9", ["5", "7"])])
def test_a_slot_for_each_gpu_that_is_visible(
    visible: str | None, slots: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in runner(2).slots] == slots
    assert list(runner(0).slots) == [{}]


@pytest.fixture
def finished(tmp_path: Path) -> Choices:
    """A run whose figures are there."""
    chosen = Choices(RECIPES["wmt16_enro"], tmp_path, Machine(0, 1, 1, "fp32"), "pmlm", device="test machine")
    (tmp_path / "scores").mkdir()
    (tmp_path / "speed").mkdir()
    for system, path in score_files(chosen).items():
        value = {"at": 30.125, "nat": 31.5}[system]
        content = {"lines": 1999, "empty_hypotheses": 3 if system == "nat" else 0}
        content["scores"] = [{"name": "sacreBLEU", "value": value, "signature": "nrefs:1|case:mixed"}]
        if system == "nat":
            content["significance"] = [{"name": "sacreBLEU", "p_value": 0.01, "signature": "n:1000"}]
        path.write_text(json.dumps(content))
    for number, command in enumerate(speed_commands(chosen)):
        assert command.output is not None
        assert command.errors is not None
        files = (command.output, command.errors)[:: 1 if number % 2 else -1]  # it may be said on either
        files[0].write_text("D-0\t0\ttext\n" + END.format(1999, 10 + number) + "\n")
        files[1].write_text("INFO: this and that\n")
    return chosen


def test_the_summary_holds_scores_signatures_and_median_speeds(finished: Choices) -> None:
    summary = summarise(finished, Workspace(finished.work), stages(finished), name="full")
    at, nat = summary["systems"]["at"], summary["systems"]["nat"]
    assert (at["scores"][0]["value"], nat["scores"][0]["value"]) == (30.125, 31.5)
    assert nat["scores"][0]["signature"] == "nrefs:1|case:mixed"
    # commands 0-2: one at a time; 3-5, 6-8, 9-11: large batches, each round nat, beam 5, beam 1
    assert nat["speed"]["nat"]["one"]["median"] == 10.0
    assert nat["speed"]["nat"]["large"] == {"median": 16.0, "min": 13.0, "max": 19.0, "rounds": 3}
    assert at["speed"].keys() == {"at-beam5", "at-beam1"}
    assert at["speed"]["at-beam1"]["large"]["median"] == 18.0
    assert summary["direction"] == "en-ro"
    text = table(summary)
    assert "  sacreBLEU                                30.12           31.50  nrefs:1|case:mixed" in text
    assert "one pass: 3 of 1,999 translations are empty" in text
    assert "sacreBLEU: p = 0.0100" in text
    assert "test machine" in text


def test_missing_figures_are_named(finished: Choices) -> None:
    score_files(finished)["nat"].write_text("{}")
    with pytest.raises(UserError, match=r"nat\.json: not the scores of a finished run .* --redo score"):
        summarise(finished, Workspace(finished.work), stages(finished), name="full")
