"""Run commands as a user does, and look at what they say."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = str(ROOT / "nat_plugin")
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def log(self) -> str:
        """Both streams (fairseq-train logs to standard output, warnings may go to either)."""
        return self.stdout + self.stderr

    def lines(self, kind: str) -> dict[int, str]:
        """What stands behind ``H-3<tab>`` and its like, by sentence number, in the order printed."""
        found = (line.split("\t", 1) for line in self.stdout.split("\n") if line.startswith(f"{kind}-"))
        return {int(name[len(kind) + 1 :]): rest for name, rest in found}

    def translations(self) -> dict[int, str]:
        """The text of the H- lines."""
        return {number: rest.split("\t", 1)[1] for number, rest in self.lines("H").items()}

    def error(self) -> str:
        """Standard error of a command that has to end in a plain message: no success, no traceback."""
        assert self.status not in (0, None), f"no error: {self.stdout[-2000:]}"
        assert self.status > 0, f"killed by signal {-self.status}: {self.log[-2000:]}"
        assert "Traceback" not in self.log, self.log[-4000:]
        return self.stderr


class Runner:
    """Runs commands of this environment; those of fairseq in warm forks (see ``warm_commands.py``)."""

    WARM = ("fairseq-train", "fairseq-generate", "fairseq-interactive", "fairseq-validate", "fairseq-preprocess")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._server: subprocess.Popen[str] | None = None

    def __call__(
        self,
        *command: str | Path,
        input: str | bytes = b"",
        expect: int | None = 0,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        fresh: bool = False,
    ) -> Finished:
        """Run ``command``; its exit status has to be ``expect`` unless that is None.

        ``fresh`` starts an interpreter of its own for fairseq's commands, too.
        """
        words = tuple(map(str, command))
        given = input.encode() if isinstance(input, str) else input
        warm = words[0] in self.WARM and not fresh
        status, stdout, stderr = (self._run_warm if warm else self._run)(words, given, cwd or self.folder, env or {})
        finished = Finished(words, status, stdout, stderr)
        if expect is not None:
            assert status == expect, f"exit status {status} of {' '.join(words)}\n{finished.log[-6000:]}"
        return finished

    def _run(self, words: Sequence[str], given: bytes, cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
        done = subprocess.run(
            words, input=given, cwd=cwd, env={**self.env, **env}, capture_output=True, timeout=150, check=False
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def _run_warm(self, words: Sequence[str], given: bytes, cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
        if self._server is None:
            with (self.folder / "server.log").open("w") as log:
                self._server = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("warm_commands.py"))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=self.env,
                )
        assert self._server.stdin is not None and self._server.stdout is not None
        streams = {name: self.folder / name for name in ("stdin", "stdout", "stderr")}
        for path in streams.values():
            path.write_bytes(given if path.name == "stdin" else b"")
        argv = [str(SCRIPTS / words[0]), *words[1:]]
        order = {"argv": argv, "cwd": str(cwd), "env": env, **{name: str(path) for name, path in streams.items()}}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return status, streams["stdout"].read_bytes().decode(), streams["stderr"].read_bytes().decode()

    def close(self) -> None:
        """End the warm process."""
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(timeout=20)
