"""``nat translate``: what it writes to, and files that it must not write to."""

import fcntl
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_plugin.export import Translator
from tests.commands import Finished, Runner
from tests.toy_export import TEXT, exported

__all__ = ["exported"]

COMMAND = [sys.executable, "-m", "nat_plugin.cli", "translate"]


@pytest.fixture
def shell(run: Runner, exported: Path) -> Callable[..., Finished]:
    """``shell("--option < file")``: the command in bash, with redirections; ``{folder}`` is the export folder."""

    def call(rest: str, *, input: bytes = b"", expect: int = 0, folder: Path = exported) -> Finished:
        words = " ".join(f"'{word}'" for word in [*COMMAND, folder])
        return run("bash", "-c", f"{words} --precision fp32 --threads 1 {rest}", input=input, expect=expect)

    return call


@pytest.mark.parametrize(
    ("redirections", "named"),
    [
        ("--input '{text}' --output '{link}'", "--output {link}"),
        ("--output '{text}' < '{text}'", "--output {text}"),
        ("--input '{text}' >> '{text}'", "standard output"),
        ("< '{text}' >> '{link}'", "standard output"),
    ],
)
def test_an_input_is_not_overwritten(
    shell: Callable[..., Finished], tmp_path: Path, redirections: str, named: str
) -> None:
    names = {"text": tmp_path / "text", "link": tmp_path / "link"}
    names["text"].write_text("the dog\n")
    names["link"].symlink_to(names["text"])
    message = shell(redirections.format(**names), expect=1).error()
    assert f"{named.format(**names)}: is also an input; give another output" in message
    assert names["text"].read_text() == "the dog\n"


def test_neither_folder_nor_language_model_is_overwritten(
    shell: Callable[..., Finished], exported: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    for name in ("tokenizer.json", "export.json", "model.int8.onnx"):
        message = shell(f"--output '{copy}/{name}'", folder=copy, expect=1).error()
        assert f"{name}: is a file of {copy}; give another output" in message
        assert (copy / name).read_bytes() == (exported / name).read_bytes()
    (tmp_path / "lm.arpa").write_text("\\data\\\n")
    options = f"--ctc-beam 2 --lm '{tmp_path}/lm.arpa' --lm-weight 1 --output '{tmp_path}/lm.arpa'"
    assert "lm.arpa: is the language model; give another output" in shell(options, expect=1).error()
    assert (tmp_path / "lm.arpa").read_text() == "\\data\\\n"
    shell(f"--output '{copy}/mine'", input=b"dog\n", folder=copy)
    shell(f"--output '{copy}/mine'", input=b"dog\n", folder=copy)  # no file of the export


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_full_pipe_that_does_not_wait_is_waited_for(run: Runner, exported: Path, unbuffered: bool) -> None:
    """Other programs, such as Node and ssh, set a pipe or terminal so for all who share it."""
    lines = [*TEXT[:5], ""] * 120
    env = {name: value for name, value in run.env.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [*COMMAND, str(exported), "--precision", "fp32", "--threads", "1"], stdin=subprocess.PIPE, stdout=writing,
        stderr=subprocess.PIPE, env={**env, "PYTHONUNBUFFERED": "1"} if unbuffered else env,
    )  # fmt: skip
    os.close(writing)
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    process.stdin.close()
    select.select([reading], [], [], 30)
    with pytest.raises(subprocess.TimeoutExpired):  # the pipe is full, and nobody reads
        process.wait(timeout=0.5)
    with open(reading, encoding="utf-8", newline="\n") as stream:  # noqa: PTH123
        found = stream.read()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=20), errors) == (0, b"")
    wanted = Translator(exported, precision="fp32", threads=1).translate(lines)
    assert found == "".join(f"{line}\n" for line in wanted)
    assert len(found.encode()) > 3 * 4096


def test_closed_streams(shell: Callable[..., Finished]) -> None:
    assert "standard input is closed; give a file" in shell("<&-", expect=1).error()
    assert "standard output is closed; give --output FILE" in shell(">&-", expect=1).error()


def test_closed_standard_error_adds_nothing_to_the_output(shell: Callable[..., Finished], tmp_path: Path) -> None:
    assert shell("2>&-", input=b"\r\n\0\n").stdout == "\n\n"
    assert shell("2>&-", folder=tmp_path / "none", expect=1).stdout == ""
