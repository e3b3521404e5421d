"""``nat download`` as processes: killed at work, and two at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.loopback_corpora import Server, download_words, manifest, running_server


def command(served: Path, output: Path, server: Server) -> list[str]:
    return [sys.executable, "-m", "nat_plugin.cli", *download_words(served, output, server.url)]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_download_is_continued(served, tmp_path, end):
    with running_server(served / "iwslt14", stall_after=[1000]) as server:
        # A background job inherits SIGINT ignored; the child is to be as one in the foreground.
        with subprocess.Popen(
            command(served, tmp_path / "out", server),
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            part = tmp_path / "out" / "archives" / "de-en.tgz.part"
            wait_until(lambda: part.exists() and part.stat().st_size == 1000)
            os.kill(process.pid, end)
        assert process.returncode != 0
        server.go_on.set()
        done = subprocess.run(command(served, tmp_path / "out", server), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert server.requests == [("/de-en.tgz", ""), ("/de-en.tgz", "bytes=1000-")]
    assert manifest(tmp_path / "out")["complete"]
    assert sorted(path.name for path in (tmp_path / "out" / "archives").iterdir()) == ["de-en.tgz"]


def test_two_runs_at_once_on_one_output(served, tmp_path):
    with running_server(served / "iwslt14", stall_after=[1000]) as server:
        first = subprocess.Popen(command(served, tmp_path / "out", server), stderr=subprocess.PIPE, text=True)
        wait_until(lambda: server.requests)
        second = subprocess.Popen(command(served, tmp_path / "out", server), stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert "another run is at work here, waiting" in second.stderr.readline()
        server.go_on.set()
        first.communicate()
        assert "complete already" in second.communicate()[1]
        assert (first.returncode, second.returncode) == (0, 0)
        assert len(server.requests) == 1


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.01)
