"""``nid complete --batch`` as a user calls it."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nid_plugin.cli import main
from nid_plugin.halving import Half, write_halves
from nid_plugin.pairs import read_pairs
from tests.nid_plugin.completion.batch_server import BatchServer, Plan, answer, batch_server

ROOT = Path(__file__).resolve().parents[3]
Nid = Callable[..., int]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    """A server, and its key in the environment."""
    with batch_server() as state:
        monkeypatch.setenv("OPENAI_API_KEY", state.key)
        monkeypatch.setenv("OPENAI_BASE_URL", state.url)
        yield state


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The words of the command, on ten documents."""
    halves = tmp_path / "halves.jsonl"
    texts = [f"prompt {n}" for n in range(10)]
    names = [hashlib.sha256(f"{text} and so on.".encode()).hexdigest()[:32] for text in texts]
    write_halves(str(halves), (Half(*pair, " and so on.", "made up") for pair in zip(names, texts, strict=True)))
    return ["complete", "--halves", str(halves), "--ledger", str(tmp_path / "ledger"), "--model", "gpt-4-turbo",
            "--batch-poll", "0", "--batch-requests", "4", "--attempts", "1"]  # fmt: skip


def check_pairs(folder: Path) -> None:
    """All ten are there."""
    pairs = list(read_pairs(str(folder / "ledger" / "pairs.jsonl")))
    assert {pair.prompt: pair.completion for pair in pairs} == {f"prompt {n}": answer(f"prompt {n}") for n in range(10)}
    assert len(pairs) == 10 and {pair.teacher for pair in pairs} == {"gpt-4-turbo"}


def test_batches_from_start_to_pairs(
    server: BatchServer, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--batch"]) == 0
    check_pairs(tmp_path)
    log = capsys.readouterr().err
    assert "10 pairs written" in log and "in batches: 100%" in log
    dollars = 10 * (10 * 10 + 20 * 30) / 1e6 / 2
    assert f"spent: {dollars:.2f} dollars\n" in log
    assert server.key not in log


def test_requests_in_a_batch_are_not_asked_alone(
    server: BatchServer, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--batch", "--no-batch-wait"]) == 0
    log = capsys.readouterr().err
    assert re.search(r"in batches under way: 10 requests in 3 batches\n", log)
    assert re.search(r"spent: 0\.00 dollars, at most \d\.\d\d for batches under way\n", log)
    assert main(words) == 1
    log = capsys.readouterr().err
    assert "10 requests are in batches under way and are not asked; --batch collects them" in log
    assert "error: 10 requests are in batches under way; the same command with --batch collects them" in log
    assert not server.calls["POST chat/ID"]
    assert main([*words, "--status"]) == 0
    assert "in batches under way: 10 requests in 3 batches" in capsys.readouterr().out
    assert main([*words, "--batch"]) == 0
    check_pairs(tmp_path)
    assert set(server.run.values()) == {1}


def test_wrong_options_are_told_at_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--batch-requests", "0", "--batch-bytes", "300000000", "--batches-at-once", "0", "--batch-poll", "-1"]
    assert main([*words, "--batch", *wrong, "--continue-length", "2"]) == 1
    log = capsys.readouterr().err
    for line in (
        "--batch-requests 0: 1 to 50000 is expected",
        "--batch-bytes 300000000: 1 to 200000000 is expected",
        "--batches-at-once 0: 1 or more is expected",
        "--batch-poll -1.0: seconds, 0 or more, are expected",
        "--continue-length: a batch cannot continue an answer",
    ):
        assert line in log


def test_a_batch_that_fails_ends_with_an_error(
    server: BatchServer, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.plans = [Plan("failed", errors=(("model_not_found", "no such model"),))]
    assert main([*words, "--batch"]) == 1
    log = capsys.readouterr().err
    assert "model_not_found: no such model" in log and "(10 requests are left)" in log and "Traceback" not in log


def test_an_endpoint_without_batches(server: BatchServer, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    server.fault = lambda call, moment: 404
    assert main([*words, "--batch"]) == 1
    log = capsys.readouterr().err
    assert "does not know files and batches" in log and "without --batch each request goes alone" in log


@pytest.mark.slow
def test_real_kills(server: BatchServer, words: list[str], tmp_path: Path) -> None:
    server.plans = [Plan(looks=100), Plan("expired", run=0.5, looks=60), Plan(looks=20)]
    command = [sys.executable, "-m", "nid_plugin.cli", *words, "--batch", "--batch-poll", "0.02"]
    draw, kills, status = random.Random(1), 0, 1
    while status:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
        try:
            status = process.wait(draw.uniform(0.5, 2.0) if kills < 10 else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills > 4
    check_pairs(tmp_path)
    assert Counter(server.run.values()) == {1: 10}
