"""``nid audit`` as a user runs it."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nid_plugin.cli import main
from nid_plugin.pairs import read_pairs
from tests.commands import Finished, Runner

LABELLED = Path(__file__).parents[1] / "nid_plugin" / "audit" / "labelled_texts.jsonl"
PLAIN = ("--no-language", "--no-near-duplicates", "--no-figure", "--workers", "1")
Capture = pytest.CaptureFixture[str]
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


def test_pairs_on_standard_output_are_pairs_alone(run: Runner, pairs: Path) -> None:
    done = audit(run, pairs, "--filter", "-", *PLAIN)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines and all("completion" in line for line in lines)
    assert f"-: {len(lines):,} pairs" in done.stderr


def test_outputs_are_compressed_by_their_names(run: Runner, pairs: Path) -> None:
    kept, dropped = run.folder / "kept.jsonl.gz", run.folder / "dropped.jsonl.zst"
    audit(run, pairs, "--filter", kept, "--dropped", dropped, *PLAIN)
    assert len([*read_pairs(str(kept)), *read_pairs(str(dropped))]) == len([*read_pairs(str(pairs))])


def test_nothing_but_an_audit_is_replaced_by_a_report(pairs: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "comparison"
    folder.mkdir()
    for name, text in {"report.md": "mine", "report.json": '{"common_prompts": 1}'}.items():
        (folder / name).write_text(text)
    assert main(["audit", str(pairs), "--report", str(folder), *PLAIN]) == 1
    assert "holds report.json, report.md, not of an audit, which would be lost" in capsys.readouterr().err
    assert (folder / "report.md").read_text() == "mine"
    (folder / "report.md").rename(folder / "notes.md")
    (folder / "report.json").write_bytes(pairs.read_bytes())
    assert main(["audit", str(folder / "report.json"), "--report", str(folder), *PLAIN]) == 1
    assert "its files would take the place of" in capsys.readouterr().err


def test_what_cannot_be_written_shows_before_the_work(pairs: Path, capsys: Capture) -> None:
    assert main(["audit", str(pairs), "--report", "/proc/none/report", "--dropped", "/proc/none.jsonl", *PLAIN]) == 1
    said = capsys.readouterr().err
    assert "2 problems" in said and "--report: nothing can be written to /proc" in said and "pairs/s" not in said


def test_a_bad_input_shows_before_the_judge_is_asked(pairs: Path, tmp_path: Path, capsys: Capture) -> None:
    ledger = tmp_path / "judge"
    judge = ["--judge", "m", "--base-url", "http://127.0.0.1:1/v1", "--judge-ledger", str(ledger), "--attempts", "1"]
    (tmp_path / "bad.jsonl").write_bytes(pairs.read_bytes() + b"{}\n")
    (tmp_path / "set.jsonl").write_text("{}\n")
    for words, message in (
        ([str(tmp_path / "bad.jsonl")], 'a pair needs a text "prompt"'),
        ([str(pairs), "--decontaminate", str(tmp_path / "set.jsonl")], "item 1: has none of the fields"),
        ([str(pairs), "--halves", str(tmp_path / "none.jsonl")], "--halves"),
    ):
        assert main(["audit", *words, "--fail-above", "1", *judge, *PLAIN]) == 1
        assert message in capsys.readouterr().err
        assert not ledger.exists()


def test_what_a_judge_would_cost(pairs: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # none is needed
    words = ["--judge", "gpt-4-turbo", "--judge-sample", "50", "--judge-dry-run", "--requests-per-minute", "10"]
    before = sorted(pairs.parent.rglob("*"))
    assert main(["audit", str(pairs), *words]) == 0
    said = capsys.readouterr().out
    assert "judge: gpt-4-turbo about 50 of" in said and "requests left: 50\n" in said
    assert "cost: about" in said and "time: at least 5 minutes" in said
    assert said.endswith("nothing was sent, and nothing was audited\n")
    assert sorted(pairs.parent.rglob("*")) == before


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
    "costs alone": (["--fail-above", "1", "--max-cost", "5"], 1, "--max-cost needs --judge MODEL"),
    "estimate alone": (["--judge-dry-run"], 1, "--judge-dry-run needs --judge MODEL"),
    "fields alone": (["--fail-above", "1", "--decontaminate-field", "x"], 1, "needs --decontaminate FILE"),
    "no evaluation set": (["--fail-above", "1", "--decontaminate", "none.jsonl"], 1, "none.jsonl"),
    "no halves": (["--fail-above", "1", "--halves", "none.jsonl"], 1, "--halves none.jsonl: no such file"),
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


def test_a_pipe_is_refused_since_pairs_are_read_more_often(capsys: Capture) -> None:
    read, write = os.pipe()
    try:
        assert main(["audit", f"/dev/fd/{read}", "--fail-above", "1"]) == 1
    finally:
        os.close(read)
        os.close(write)
    assert "is no regular file and can be read only once, and pairs are read more often" in capsys.readouterr().err
