"""``nid audit`` as a user runs it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nid_plugin.cli import main
from tests.commands import Finished, Runner

LABELLED = Path(__file__).parents[1] / "nid_plugin" / "audit" / "labelled_texts.jsonl"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("audit"))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def pairs(run: Runner) -> Path:
    """The labelled completions as pairs."""
    texts = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    path = run.folder / "pairs.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for text in texts:
            if text["side"] == "completion":
                prompt = f"A story about number {text['id']} began in the spring of that year."
                pair = {"id": f"{text['id']:032x}", "prompt": prompt, "completion": text["text"], "teacher": "m"}
                stream.write(json.dumps({**pair, "finish_reason": "stop"}) + "\n")
    return path


def audit(run: Runner, *words: str | Path, expect: int | None = 0) -> Finished:
    return run(sys.executable, "-m", "nid_plugin.cli", "audit", *words, expect=expect)


def test_report_and_filter(run: Runner, pairs: Path) -> None:
    folder, kept, dropped = run.folder / "report", run.folder / "kept.jsonl", run.folder / "dropped.jsonl"
    done = audit(run, pairs, "--report", folder, "--filter", kept, "--dropped", dropped)
    assert sorted(file.name for file in folder.iterdir()) == ["report.json", "report.md", "report.png"]
    assert (folder / "report.png").read_bytes().startswith(PNG)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (pairs, kept, dropped)}
    assert report["pairs"] == lines[pairs] == lines[kept] + lines[dropped]
    assert report["drop"]["kept"] == lines[kept] and report["drop"]["dropped"]["pairs"] == lines[dropped]
    assert f"{kept}: {lines[kept]:,} pairs" in done.stdout
    assert "hold what instruction data is made of" in done.stdout
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Audit of pairs") and "![shares by detector, and lengths](report.png)" in text


def test_what_is_left_has_no_findings(run: Runner, pairs: Path) -> None:
    kept = run.folder / "clean.jsonl"
    audit(run, pairs, "--filter", kept, "--no-language")
    audit(run, kept, "--fail-above", "0", "--no-language")


def test_status_for_pipelines(run: Runner, pairs: Path) -> None:
    message = audit(run, pairs, "--fail-above", "0.05", "--no-language", expect=1).error()
    assert "% of the pairs are to be dropped, more than --fail-above 0.05" in message
    audit(run, pairs, "--fail-above", "0.05", "--drop", "repetitive", "--no-language")


def test_a_report_replaces_an_earlier_one_and_leaves_other_files(run: Runner, pairs: Path) -> None:
    folder = run.folder / "again"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    audit(run, pairs, "--report", folder, "--no-language")
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    audit(run, pairs, "--report", folder, "--no-language")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first
    audit(run, pairs, "--report", folder, "--no-language", "--no-figure")
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", "report.json", "report.md"]


def test_a_judge_without_a_key_is_one_error(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(pairs), "--fail-above", "1", "--judge", "m", "--api-key-env", "NO_SUCH_VARIABLE", "--base-url"]
    assert main(["audit", *words, "http://example.org/v1"]) == 1
    assert "no API key: the environment variable NO_SUCH_VARIABLE is empty" in capsys.readouterr().err


BAD = {
    "nothing to do": ([], 2, "give --report DIR"),
    "unknown names": (
        ["--fail-above", "1", "--drop", "refusals"],
        1,
        "--drop: unknown refusals; there are role-marker",
    ),
    "no share": (["--fail-above", "5"], 1, "--fail-above 5: a share from 0 to 1 is expected"),
    "no folder": (["--filter", "none/kept.jsonl"], 1, "--filter none/kept.jsonl: there is no folder"),
    "same output": (["--filter", "x.jsonl", "--dropped", "x.jsonl"], 1, "--filter and --dropped are both x.jsonl"),
    "report is a file": (["--report", "pairs.jsonl"], 1, "--report pairs.jsonl: is a file; give a folder"),
    "input as output": (["--filter", "pairs.jsonl"], 1, "--filter pairs.jsonl: is also read, and would be lost"),
    "judge's options": (["--fail-above", "1", "--judge-prompt", "p"], 1, "--judge-prompt needs --judge MODEL"),
    "fields alone": (["--fail-above", "1", "--decontaminate-field", "x"], 1, "needs --decontaminate FILE"),
    "no evaluation set": (["--fail-above", "1", "--decontaminate", "none.jsonl"], 1, "none.jsonl"),
    "no halves": (["--fail-above", "1", "--halves", "none.jsonl"], 1, "none.jsonl"),
}


@pytest.mark.parametrize(("words", "status", "message"), BAD.values(), ids=BAD)
def test_bad_options(
    words: list[str],
    status: int,
    message: str,
    pairs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pairs.parent)
    try:
        ended = main(["audit", "pairs.jsonl", "--no-language", "--workers", "1", *words])
    except SystemExit as wrong_use:
        ended = int(str(wrong_use.code))
    assert ended == status
    assert message in capsys.readouterr().err


def test_all_problems_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["none.jsonl", "--fail-above", "2", "--examples", "-1", "--judge-sample", "0", "--judge-ledger", "l"]
    assert main(["audit", *words]) == 1
    said = capsys.readouterr().err
    assert "5 problems" in said
    for part in (
        "none.jsonl: no such file",
        "--examples -1",
        "--judge-sample 0",
        "--fail-above 2",
        "--judge-ledger needs",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pair"),
        ("{\n", "line 1: not valid JSON"),
        ('{"prompt": "a"}\n', 'line 1: a pair needs a text "completion"'),
        ('{"question": "a"}\n', "is this a file of pairs?"),
    ],
)
def test_files_that_hold_no_pairs(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text(content, encoding="utf-8")
    kept = tmp_path / "kept.jsonl"
    assert main(["audit", str(tmp_path / "bad.jsonl"), "--filter", str(kept), "--no-language", "--workers", "1"]) == 1
    assert message in capsys.readouterr().err
    assert not kept.exists()


@pytest.mark.parametrize("package", ["matplotlib", "py3langid", "rensa"])
def test_the_hint_about_a_missing_package_comes_before_the_work(
    package: str, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["audit", str(pairs), "--report", str(tmp_path / "r")]) == 1
    said = capsys.readouterr().err
    assert f"the package {package} is not installed" in said and "pairs/s" not in said
