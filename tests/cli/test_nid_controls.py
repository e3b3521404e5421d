"""`nid control`, `nid subset` and `nid compare` as a user runs them."""

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from nid_plugin.cli import main
from tests.commands import Finished, Runner

TEACHER = {"teacher": "gpt", "finish_reason": "stop", "usage": {"prompt_tokens": 5, "completion_tokens": 4}}


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def halves(count: int) -> list[dict]:
    made = []
    for number in range(count):
        prompt, second = f"Text {number} begins.", f" It goes on\nfor {number} words and more."
        name = hashlib.sha256((prompt + second).encode()).hexdigest()[:32]
        made.append({"document": name, "prompt": prompt, "second_half": second, "source": f"corpus.jsonl:{number}"})
    return made


def pairs(count: int, teacher: str = "gpt") -> list[dict]:
    return [
        {"id": f"{teacher}{number:030d}", "prompt": half["prompt"], "completion": f" {teacher} says {number}.",
         "source": half["source"], **TEACHER, "teacher": teacher}
        for number, half in enumerate(halves(count))
    ]  # fmt: skip


@pytest.fixture
def nid(run: Runner, tmp_path: Path):
    def call(*words: str | Path, expect: int = 0) -> Finished:
        return run(sys.executable, "-m", "nid_plugin.cli", *words, cwd=tmp_path, expect=expect)

    return call


def test_control_of_all_documents(nid, tmp_path: Path) -> None:
    write(tmp_path / "halves.jsonl", halves(5))
    done = nid("control", "--halves", "halves.jsonl", "--out", "control.jsonl")
    assert done.stdout == "control.jsonl: 5 pairs, the completion of each is its document's second half\n"
    for half, pair in zip(halves(5), read(tmp_path / "control.jsonl"), strict=True):
        assert hashlib.sha256((pair["prompt"] + pair["completion"]).encode()).hexdigest()[:32] == half["document"]
        assert pair == {
            "id": half["document"], "prompt": half["prompt"], "completion": half["second_half"],
            "source": half["source"], "teacher": "document", "finish_reason": "document", "usage": {},
        }  # fmt: skip


def test_control_like_the_teacher(nid, tmp_path: Path) -> None:
    write(tmp_path / "halves.jsonl", halves(5))
    teacher = [*pairs(4)[::-1], {"prompt": "of another corpus", "completion": "x"}]
    write(tmp_path / "pairs.jsonl", teacher)
    done = nid(
        "control", "--halves", "halves.jsonl", "--like", "pairs.jsonl", "--match-length", "--out", "control.jsonl"
    )
    assert done.stdout.splitlines() == [
        "control.jsonl: 4 pairs, in the order of pairs.jsonl",
        "  1 pairs of pairs.jsonl have no document in halves.jsonl: left out",
        "  1 documents of halves.jsonl have no pair in pairs.jsonl: left out",
        "  4 second halves cut to the teacher's number of words, 0 are shorter",
        "  words a completion: 3.0, the teacher's 3.0",
    ]
    made = read(tmp_path / "control.jsonl")
    assert [pair["prompt"] for pair in made] == [pair["prompt"] for pair in teacher[:4]]
    assert {pair["completion"] for pair in made} == {" It goes on"}


def test_subsets(nid, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(pair) + "\n" for pair in pairs(40))
    done = nid("subset", "pairs.jsonl.gz", "--sizes", "20", "5", "25%", "--seed", "3", "--out", "subsets")
    assert done.stdout.splitlines() == [f"subsets/pairs-{size}.jsonl: {size} of 40 pairs" for size in (5, 10, 20)]
    sets = [{pair["id"] for pair in read(tmp_path / "subsets" / f"pairs-{size}.jsonl")} for size in (5, 10, 20)]
    assert sets[0] < sets[1] < sets[2]
    assert all(pair in pairs(40) for pair in read(tmp_path / "subsets" / "pairs-20.jsonl"))
    assert json.loads((tmp_path / "subsets" / "report.json").read_text()) == {
        "pairs": 40, "repeated_prompts": 0, "seed": 3, "sizes": [5, 10, 20],
    }  # fmt: skip
    assert (
        "holds the files of an earlier run"
        in nid("subset", "pairs.jsonl.gz", "--sizes", "5", "--out", "subsets", expect=1).error()
    )
    nid("subset", "pairs.jsonl.gz", "--sizes", "7", "--out", "subsets", "--overwrite")
    assert sorted(path.name for path in (tmp_path / "subsets").iterdir()) == ["pairs-7.jsonl", "report.json"]


def test_the_control_has_subsets_of_the_same_prompts(nid, tmp_path: Path) -> None:
    write(tmp_path / "halves.jsonl", halves(30)[::-1])
    write(tmp_path / "pairs.jsonl", pairs(30))
    nid("control", "--halves", "halves.jsonl", "--out", "control.jsonl")
    for name in ("pairs", "control"):
        nid("subset", f"{name}.jsonl", "--sizes", "8", "--out", f"{name} subsets")
    one, other = (read(tmp_path / f"{name} subsets" / "pairs-8.jsonl") for name in ("pairs", "control"))
    assert {pair["prompt"] for pair in one} == {pair["prompt"] for pair in other}


def test_compare(nid, tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", pairs(6, "gpt-4-turbo"))
    write(tmp_path / "other.jsonl", pairs(8, "gpt-3.5-turbo")[::-2])
    write(tmp_path / "halves.jsonl", halves(8))
    done = nid(
        "compare", "one.jsonl", "other.jsonl", "--halves", "halves.jsonl", "--out", "comparison", "--examples", "2"
    )
    assert done.stdout.splitlines() == [
        "3 prompts in common; only in one.jsonl: 3, only in other.jsonl: 1",
        "report: comparison/report.md",
    ]
    a, b = (read(tmp_path / "comparison" / f"{name}.jsonl") for name in "ab")
    assert [pair["id"][-1] for pair in a] == [pair["id"][-1] for pair in b] == ["1", "3", "5"]
    assert [pair["teacher"] for pair in (a[0], b[0])] == ["gpt-4-turbo", "gpt-3.5-turbo"]
    report = json.loads((tmp_path / "comparison" / "report.json").read_text())
    assert report["a"]["dollars"] == pytest.approx(3 * (5 * 10 + 4 * 30) / 1e6)
    text = (tmp_path / "comparison" / "report.md").read_text()
    assert "| overlap with the second half, 1-grams |" in text
    assert text.count("## Example") == 2
    assert sorted(path.name for path in (tmp_path / "comparison").iterdir()) == [
        "a.jsonl", "b.jsonl", "report.json", "report.md",
    ]  # fmt: skip


def test_pairs_on_standard_output_are_pairs_alone(nid, tmp_path: Path) -> None:
    write(tmp_path / "halves.jsonl", halves(3))
    write(tmp_path / "pairs.jsonl", pairs(2))
    for like, count in (([], 3), (["--like", "pairs.jsonl"], 2)):
        done = nid("control", "--halves", "halves.jsonl", *like, "--out", "-")
        assert [json.loads(line)["teacher"] for line in done.stdout.splitlines()] == ["document"] * count
        assert f"-: {count} pairs" in done.stderr


def test_a_control_is_compressed_by_its_name(nid, tmp_path: Path) -> None:
    write(tmp_path / "halves.jsonl", halves(3))
    nid("control", "--halves", "halves.jsonl", "--out", "control.jsonl.gz")
    with gzip.open(tmp_path / "control.jsonl.gz", "rt") as stream:
        assert len(stream.readlines()) == 3


def test_a_pipe_is_refused_where_pairs_are_read_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_end, write_end = os.pipe()
    try:
        assert main(["subset", f"/dev/fd/{read_end}", "--sizes", "1", "--out", str(tmp_path / "x")]) == 1
    finally:
        os.close(read_end)
        os.close(write_end)
    assert "can be read only once, and the pairs are read twice; give a file" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_comparison_does_not_depend_on_the_hash_seed(nid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chatty = "Sure! Here's a list. As an AI language model, I can't assist with that. Write a function that sorts it."
    write(tmp_path / "a.jsonl", [{**pair, "completion": chatty} for pair in pairs(2)])
    reports = set()
    for seed in "1234":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        nid("compare", "a.jsonl", "a.jsonl", "--out", f"out{seed}")
        reports.add((tmp_path / f"out{seed}" / "report.json").read_text())
    assert len(reports) == 1
    assert len(json.loads(reports.pop())["a"]["findings"]) >= 3


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["control", "--halves", "gone.jsonl", "--out", "x.jsonl"], 1, "gone.jsonl"),
        (["control", "--halves", "pairs.jsonl", "--out", "x.jsonl"], 1, "pairs.jsonl, line 1"),
        (["control", "--halves", "empty.jsonl", "--out", "x.jsonl"], 1, "empty.jsonl: holds no document"),
        (["control", "--halves", "halves.jsonl", "--out", "halves.jsonl"], 1, "is also --halves, which would be lost"),
        (["control", "--halves", "halves.jsonl", "--out", "no/x.jsonl"], 1, "there is no folder"),
        (["control", "--halves", "halves.jsonl", "--like", "other.jsonl", "--out", "x.jsonl"], 1, "of its 1 prompts"),
        (["control", "--halves", "halves.jsonl", "--like", "empty.jsonl", "--out", "x.jsonl"], 1, "holds no pair"),
        (["control", "--halves", "halves.jsonl", "--match-length", "--out", "x.jsonl"], 2, "goes with --like"),
        (["subset", "pairs.jsonl", "--sizes", "3", "50", "60", "--out", "x"], 1, "--sizes 60: there are only 3 pairs"),
        (["subset", "pairs.jsonl", "--sizes", "0", "--out", "x"], 2, "0: expected a number of pairs from 1"),
        (["subset", "pairs.jsonl", "--sizes", "120%", "--out", "x"], 2, "or a share such as 10%"),
        (["subset", "empty.jsonl", "--sizes", "1", "--out", "x"], 1, "empty.jsonl: holds no pair"),
        (["subset", "-", "--sizes", "1", "--out", "x"], 1, "can be read only once, and the pairs are read"),
        (["subset", "pairs.jsonl", "--sizes", "1", "--out", "."], 1, "not made by this command"),
        (["subset", "pairs.jsonl", "--sizes", "1", "--out", "pairs.jsonl"], 1, "is a file; give a folder"),
        (["compare", "pairs.jsonl", "other.jsonl", "--out", "x"], 1, "have no prompt in common"),
        (["compare", "pairs.jsonl", "twice.jsonl", "--out", "x"], 1, "twice.jsonl: the id gpt"),
        (["compare", "pairs.jsonl", "empty.jsonl", "--out", "x"], 1, "empty.jsonl: holds no pair"),
        (["compare", "halves.jsonl", "pairs.jsonl", "--out", "x"], 1, 'line 1: a pair needs a text "completion"'),
        (["compare", "pairs.jsonl", "pairs.jsonl", "--examples", "-1", "--out", "x"], 2, "expected 0 or more"),
    ],
)  # fmt: skip
def test_bad_input(nid, tmp_path: Path, words: list[str], status: int, message: str) -> None:
    write(tmp_path / "halves.jsonl", halves(3))
    write(tmp_path / "pairs.jsonl", pairs(3))
    write(tmp_path / "twice.jsonl", [*pairs(3), *pairs(1)])
    write(tmp_path / "other.jsonl", [{"id": "1", "prompt": "of another corpus", "completion": "x"}])
    write(tmp_path / "empty.jsonl", [])
    before = sorted(tmp_path.rglob("*"))
    done = nid(*words, expect=status)
    assert message in done.error()
    assert sorted(tmp_path.rglob("*")) == before  # nothing half made stays
