"""``nid complete`` and ``nid merge`` as commands, against a teacher on loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nid_plugin.pairs import read_pairs
from tests.commands import Finished, Runner
from tests.toy_teacher import Asked, Reply, ToyTeacher, answer, completion_of, error, toy_teacher

NID = (sys.executable, "-m", "nid_plugin.cli")
KEY = "sk-toy-4711-0815-hidden"
DOCUMENTS = [
    f"Document {i} begins here, with the number {i} in it. It tells of rivers and of the towns that lie beside them. "
    f"Then it goes on for a while, as such texts do. In the end it stops after {i} more words or so."
    for i in range(24)
]


@pytest.fixture
def teacher() -> Iterator[ToyTeacher]:
    with toy_teacher() as served:
        yield served


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    return path


def complete(
    run: Runner, teacher: ToyTeacher | str, folder: Path, *words: object, expect: int = 0, key: str = ""
) -> Finished:
    """``nid complete`` with the model and the ledger that all these tests use."""
    url = teacher if isinstance(teacher, str) else teacher.base_url
    command = [*NID, "complete", *map(str, words), "--model", "toy", "--base-url", url, "--ledger", "ledger"]
    env = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": ""}
    return run(*command, cwd=folder, expect=expect, env=env)


def test_from_documents_to_pairs(run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path) -> None:
    done = complete(run, teacher, tmp_path, documents, "--pairs", "pairs.jsonl", "--temperature", "0.7")
    pairs = list(read_pairs(str(tmp_path / "pairs.jsonl")))
    assert len(pairs) == len(DOCUMENTS) == len(teacher.asked)
    for pair, document in zip(pairs, DOCUMENTS, strict=True):
        assert document.startswith(pair.prompt) and 0.3 < len(pair.prompt) / len(document) < 0.7
        assert pair.completion == completion_of(pair.prompt)
        assert (pair.teacher, pair.finish_reason) == ("toy", "stop")
        assert pair.usage == {"prompt_tokens": 10, "completion_tokens": 5}
    assert pairs[2].source.endswith("documents.jsonl:3")
    assert teacher.asked[0].body["temperature"] == 0.7
    assert "24 pairs written to pairs.jsonl" in done.stderr
    again = complete(run, teacher, tmp_path, documents, "--temperature", "0.7")
    assert "24 need no request any more" in again.stderr
    assert len(teacher.asked) == len(DOCUMENTS)


def test_a_dry_run_sends_nothing_and_makes_nothing(
    run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path
) -> None:
    words = [documents, "--dry-run", "--price", 10, 30, "--tokens-per-minute", 1000, "--instruction", "Go on: "]
    done = complete(run, teacher, tmp_path, *words)
    assert "requests left: 24" in done.stdout and "nothing was sent" in done.stdout
    assert "cost: about 0.0" in done.stdout and "at most 0.7" in done.stdout
    assert "minutes at 1,000 tokens a minute" in done.stdout
    assert '"content": "Go on: Document 0 begins' in done.stdout
    assert not teacher.asked and not (tmp_path / "ledger").exists()


def test_status(run: Runner, tmp_path: Path, documents: Path) -> None:
    def reply(asked: Asked) -> Reply:
        number = int(asked.text.split()[1])
        return error(400, "too long") if number == 3 else answer("" if number == 4 else "fine")

    with toy_teacher(reply) as teacher:
        done = complete(run, teacher, tmp_path, documents, "--price", 1000, 1000)
    status = run(*NID, "complete", "--status", "--ledger", "ledger", cwd=tmp_path)
    assert "documents: 24\ndone: 22; empty: 1; refused: 0\n" in status.stdout
    assert "failed: 1 for good, 0 that are asked again (1 http 400)\nleft: 0\n" in status.stdout
    assert "spent: 0.35 dollars" in status.stdout  # 23 answers of 15 tokens at a tenth of a cent
    assert "22 pairs written" in done.stderr


def test_other_settings_and_other_documents(run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path) -> None:
    complete(run, teacher, tmp_path, documents, "--sample", 10, "--seed", 3)
    failed = complete(run, teacher, tmp_path, documents, "--sample", 10, "--seed", 3, "--temperature", 1, expect=1)
    assert "request.sampling.temperature: was null, is 1.0" in failed.error()
    failed = complete(run, teacher, tmp_path, documents, "--sample", 20, "--seed", 3, expect=1)
    assert "sample: was 10, is 20" in failed.error() and "--new-selection" in failed.error()
    complete(run, teacher, tmp_path, documents, "--sample", 20, "--seed", 3, "--new-selection")
    assert len(teacher.asked) == 20, "the ten answers that were there were not paid again"
    assert len(list(read_pairs(str(tmp_path / "ledger/pairs.jsonl")))) == 20


def test_shards_are_merged(run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path) -> None:
    for part in (1, 2, 3):
        words = ["complete", documents, "--shard", f"{part}/3", "--model", "toy", "--base-url", teacher.base_url]
        run(*NID, *map(str, words), "--ledger", f"ledger-{part}", "--price", "1", "1", cwd=tmp_path)
    done = run(*NID, "merge", "ledger-1", "ledger-2", "ledger-3", "--into", "ledger", cwd=tmp_path)
    assert "24 pairs written" in done.stderr and "left: 0" in done.stderr and "spent: 0.00 dollars" in done.stderr
    assert {pair.prompt for pair in read_pairs(str(tmp_path / "ledger/pairs.jsonl"))} == set(teacher.times())
    complete(run, teacher, tmp_path, "--halves", "ledger/halves.jsonl")
    assert len(teacher.asked) == 24
    failed = run(*NID, "merge", "ledger-1", "ledger-1", "--into", "x", cwd=tmp_path, expect=1)
    assert "named twice" in failed.error()
    failed = run(*NID, "merge", "ledger-1", "--into", "ledger", cwd=tmp_path, expect=1)
    assert "is there already" in failed.error()


def test_ledgers_of_other_settings_are_not_merged(
    run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path
) -> None:
    for name, top_p in (("a", "0.5"), ("b", "0.6")):
        words = ["--model", "toy", "--base-url", teacher.base_url, "--top-p", top_p, "--ledger", name]
        run(*NID, "complete", documents, "--take", "2", *words, cwd=tmp_path)
    failed = run(*NID, "merge", "a", "b", "--into", "c", cwd=tmp_path, expect=1)
    assert "b: other settings than a: request.sampling.top_p: was 0.5, is 0.6" in failed.error()
    assert not (tmp_path / "c").exists()


def test_one_error_for_a_wrong_key_and_the_key_nowhere(run: Runner, tmp_path: Path, documents: Path) -> None:
    def reply(asked: Asked) -> Reply:
        return error(401, f"Incorrect API key provided: {asked.headers['authorization']}.")

    with toy_teacher(reply) as teacher:
        failed = complete(run, teacher, tmp_path, documents, expect=1, key=KEY)
    assert "does not accept the API key" in failed.error()
    assert len(teacher.asked) == 1
    everything = failed.log.encode() + b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())
    assert KEY.encode() not in everything


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give documents"),
        (["documents.jsonl", "--halves", "x"], "give documents"),
        (["--halves", "none.jsonl"], "none.jsonl: no such file"),
        (["none.parquet"], "none.parquet"),
        (["documents.jsonl", "--text-column", "body"], "body"),
        (["documents.jsonl", "--max-cost", "3"], "the price of 'toy' is unknown"),
    ],
)
def test_bad_input(
    run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path, words: list[str], message: str
) -> None:
    failed = complete(run, teacher, tmp_path, *words, expect=1)
    assert message in failed.error()
    assert not teacher.asked


def test_all_that_is_wrong_in_one_error(run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path) -> None:
    words = [documents, "--pairs", "none/pairs.jsonl", "--top-p", 0, "--max-cost", 3, "--batch-requests", 0]
    failed = complete(run, teacher, tmp_path, *words, "--shard", "3/2", expect=1)
    for option in ("--pairs none", "--top-p", "--max-cost", "--batch-requests", "--shard"):
        assert failed.error().count(f"  - {option}") == 1, option
    assert not (tmp_path / "ledger").exists()


def test_pairs_never_take_the_place_of_answers(
    run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path
) -> None:
    complete(run, teacher, tmp_path, documents)
    before = (tmp_path / "ledger/results.jsonl").read_bytes()
    failed = complete(run, teacher, tmp_path, documents, "--pairs", "ledger/results.jsonl", expect=1)
    assert "the ledger's own files" in failed.error()
    words = ["merge", "ledger", "--into", "other", "--pairs", "ledger/halves.jsonl"]
    failed = run(*NID, *words, cwd=tmp_path, expect=1)
    assert "the ledger's own files" in failed.error()
    assert (tmp_path / "ledger/results.jsonl").read_bytes() == before


def test_nothing_is_logged_of_the_key(run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path) -> None:
    env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "", "OPENAI_LOG": "debug"}
    words = ["complete", str(documents), "--model", "toy", "--base-url", teacher.base_url, "--ledger", "ledger"]
    done = run(*NID, *words, cwd=tmp_path, env=env)
    assert teacher.asked[0].headers["authorization"] == f"Bearer {KEY}"
    everything = done.log.encode() + b"".join(path.read_bytes() for path in (tmp_path / "ledger").iterdir())
    assert KEY.encode() not in everything


def test_a_second_interrupt_does_not_wait(run: Runner, tmp_path: Path, documents: Path) -> None:
    release = threading.Event()

    def slow(asked: Asked) -> Reply:
        if "Document 0 " not in asked.text:
            release.wait(30)
        return answer("fine")

    with toy_teacher(slow) as teacher:
        command = [*NID, "complete", str(documents), "--model", "toy", "--base-url", teacher.base_url]
        with subprocess.Popen(
            [*command, "--ledger", "ledger", "--concurrency", "4"],
            cwd=tmp_path,
            env={**run.env, "OPENAI_API_KEY": ""},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while len(teacher.asked) < 5:
                assert process.poll() is None
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.3)
            assert process.poll() is None, "the first one waits for what is in flight"
            status = run(*NID, "complete", "--status", "--ledger", "ledger", cwd=tmp_path)
            assert "documents: 24\ndone: 1;" in status.stdout, "a ledger can be looked into meanwhile"
            os.kill(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=20)
        release.set()
    assert process.returncode == 130, said
    assert "Traceback" not in said and "Unclosed" not in said and "never retrieved" not in said, said
    assert (tmp_path / "ledger/results.jsonl").read_text().count("\n") == 1


def test_a_missing_column_lists_those_that_are_there(
    run: Runner, tmp_path: Path, teacher: ToyTeacher, documents: Path
) -> None:
    failed = complete(run, teacher, tmp_path, documents, "--text-column", "body", expect=1)
    assert "text" in failed.error()


def test_status_of_a_folder_that_is_no_ledger(run: Runner, tmp_path: Path) -> None:
    failed = run(*NID, "complete", "--status", "--ledger", "none", cwd=tmp_path, expect=1)
    assert "is no ledger" in failed.error()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_is_in_flight_end(
    run: Runner, tmp_path: Path, documents: Path, number: signal.Signals
) -> None:
    def slow(asked: Asked) -> Reply:
        time.sleep(0.3)
        return answer("fine")

    with toy_teacher(slow) as teacher:
        command = [*NID, "complete", str(documents), "--model", "toy", "--base-url", teacher.base_url]
        with subprocess.Popen(
            [*command, "--ledger", "ledger", "--concurrency", "2"],
            cwd=tmp_path,
            env={**run.env, "OPENAI_API_KEY": ""},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while len(teacher.asked) < 4:
                assert process.poll() is None
                time.sleep(0.02)
            os.kill(process.pid, number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "requests are left; the same command goes on with them" in said
        saved = (tmp_path / "ledger/results.jsonl").read_text().count("\n")
        assert saved == len(teacher.asked) < len(DOCUMENTS)
        complete(run, teacher, tmp_path, documents, "--concurrency", 24)
    assert set(teacher.times().values()) == {1} and len(teacher.asked) == len(DOCUMENTS)


def test_help_is_quick_and_names_every_command(run: Runner) -> None:
    begun = time.monotonic()
    done = run(*NID, "--help")
    assert time.monotonic() - begun < 5
    for name in ("halve", "complete", "merge", "audit", "control", "subset", "compare"):
        assert f"\n    {name} " in done.stdout
    loaded = run(sys.executable, "-X", "importtime", *NID[1:], "--help").stderr
    assert not {"torch", "fairseq", "openai", "datasets", "pyarrow", "matplotlib"} & {
        line.rpartition("|")[2].strip() for line in loaded.splitlines()
    }
