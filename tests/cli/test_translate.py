"""``nat translate`` as a process."""

import contextlib
import gzip
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nat_plugin.cli import COMMANDS
from nat_plugin.export import Translator
from tests.commands import ROOT, Finished, Runner
from tests.toy_export import POSITIONS, TEXT, exported

__all__ = ["exported"]

COMMAND = [sys.executable, "-m", "nat_plugin.cli", "translate"]
Translate = Callable[..., Finished]


@pytest.fixture
def translate(run: Runner, exported: Path) -> Translate:
    """``translate(text, *options)``: with the fp32 model; ``folder`` takes another than the exported one."""

    def call(text: str | bytes, *words: str | Path, folder: Path = exported, expect: int | None = 0) -> Finished:
        return run(*COMMAND, folder, "--precision", "fp32", "--threads", "1", *words, input=text, expect=expect)

    return call


@pytest.fixture(scope="module")
def wanted(exported: Path) -> Callable[[list[str]], str]:
    """What comes out for lines."""
    translator = Translator(exported, precision="fp32", threads=1)
    return lambda lines: "".join(f"{line}\n" for line in translator.translate(lines))


@pytest.fixture
def start(exported: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """``start(*options)``: a process to talk with; it heeds Ctrl-C, which background jobs and their children do not."""
    started = []

    def call(*words: str | Path, **streams: object) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [*COMMAND, str(exported), "--precision", "fp32", "--threads", "1", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def test_standard_input_to_standard_output(translate: Translate, wanted: Callable[[list[str]], str]) -> None:
    done = translate("\n".join([*TEXT, "", "  ", "the dog"]))  # the last line lacks its newline
    assert done.stdout == wanted([*TEXT, "", "  ", "the dog"])
    assert len(set(done.stdout.split("\n"))) > len(TEXT)
    assert translate("").stdout == ""
    assert translate("\n\n").stdout == "\n\n"
    assert translate("the dog\n").stderr == ""


def test_files_are_translated_one_after_the_other(
    translate: Translate, tmp_path: Path, wanted: Callable[[list[str]], str]
) -> None:
    (tmp_path / "one").write_text("the\ndog")
    with gzip.open(tmp_path / "two.gz", "wt") as stream:
        stream.write("\ufefffox\n")
    out = tmp_path / "out"
    done = translate("over", "--input", tmp_path / "one", tmp_path / "two.gz", "-", "--output", out)
    assert out.read_text() == wanted(["the", "dog", "fox", "over"])
    assert done.stdout == ""
    assert done.stderr == "nat translate: 1 byte order marks removed\n"


def test_scores(translate: Translate, exported: Path) -> None:
    done = translate("the dog\n\nfox\n", "--scores")
    found = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
    wanted = Translator(exported, precision="fp32", threads=1).translate_with_scores(["the dog", "", "fox"])
    assert [text for _, text in found] == [translation.text for translation in wanted]
    assert [float(score) for score, _ in found] == pytest.approx([t.score for t in wanted], abs=1e-4)
    assert found[1] == ["0.0000", ""]


def test_beam_search(translate: Translate, exported: Path) -> None:
    done = translate("the dog\nfox\n", "--ctc-beam", "6", "--ctc-candidates", "9", "--ctc-token-bonus", "0.5")
    translator = Translator(exported, precision="fp32", beam=6, candidates=9, token_bonus=0.5)
    assert done.stdout == "".join(f"{line}\n" for line in translator.translate(["the dog", "fox"]))


def test_what_is_cut_or_changed_is_told(translate: Translate) -> None:
    done = translate(b"the dog\r\n" + b"e" * 60 + b"\na\0b\xff\n", "--invalid-utf8", "replace", "--window", "1")
    assert len(done.stdout.split("\n")) == 4
    assert done.stderr.split("\n") == [
        f"nat translate: line 2 has 61 tokens; only the first {POSITIONS} are translated",
        f"nat translate: 1 of 3 lines was cut to {POSITIONS} tokens",
        "nat translate: 1 Windows line ends (CR LF) read as newlines",
        "nat translate: 1 control characters replaced by spaces",
        "nat translate: 1 line with bytes that are no UTF-8, read as U+FFFD (first standard input, line 3)",
        "",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "x" * 100_000,
        " " * 100_000,
        "the dog " * 12_500,
        "😀👩‍👩‍👧" * 30,
        "שלום hello مرحبا 12 ‮olleh",
        "\u2028\x85\x0b\r\ufeff",
        "<mask> </s>",
    ],
    ids=["100,000 letters", "100,000 spaces", "100,000 characters", "emoji", "right to left", "separators", "symbols"],
)
def test_odd_lines_stay_one_line(translate: Translate, wanted: Callable[[list[str]], str], line: str) -> None:
    done = translate(f"the dog\n{line}\nfox\n")
    found = done.stdout.split("\n")
    assert len(found) == 4
    assert [found[0], found[2]] == wanted(["the dog", "fox"]).split("\n")[:2]


# ---- a program at the other end -------------------------------------------------------------------------------------


def test_it_answers_each_line_at_once(
    start: Callable[..., "subprocess.Popen[bytes]"], wanted: Callable[[list[str]], str]
) -> None:
    process = start()
    assert process.stdin is not None and process.stdout is not None
    for line in ["the dog", "", *TEXT]:
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == wanted([line])
    process.stdin.close()
    assert process.wait(timeout=20) == 0


def test_unbounded_input_in_bounded_memory(start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    process = start()
    assert process.stdin is not None and process.stdout is not None
    peaks = []
    for part in (4000, 12_000):
        sender = threading.Thread(target=process.stdin.write, args=(b"the dog\n" * part,))
        sender.start()
        for _ in range(part - 1024):  # the last window may wait in the sender's buffer
            assert process.stdout.readline()
        sender.join()
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks.append(next(int(line.split()[1]) for line in status.split("\n") if line.startswith("VmHWM")))
    assert peaks[1] < peaks[0] + 8000  # kB


def test_a_reader_who_has_enough(start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    process = start()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"the dog\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"fox\n" * 100)
    process.stdin.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr is not None and process.stderr.read() == b""


def test_ctrl_c_leaves_the_finished_lines(
    start: Callable[..., "subprocess.Popen[bytes]"], wanted: Callable[[list[str]], str]
) -> None:
    process = start()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"the dog\nfox\nunfinis")
    process.stdin.flush()
    found = process.stdout.readline() + process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (found + out).decode() == wanted(["the dog", "fox"])
    assert errors == b"nat translate: interrupted\n"


def test_ctrl_c_amid_the_work(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path, wanted: Callable[[list[str]], str]
) -> None:
    (tmp_path / "in").write_text("the quick brown fox\n" * 200_000)
    process = start("--input", tmp_path / "in", "--output", tmp_path / "out", "--window", "64")
    deadline = time.monotonic() + 30
    while not (tmp_path / "out").exists() or not (tmp_path / "out").stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == b"nat translate: interrupted\n"
    assert process.returncode == 130
    found = (tmp_path / "out").read_text()
    line = wanted(["the quick brown fox"])
    assert found == line * (len(found) // len(line)) and found


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_binary_input(translate: Translate, wanted: Callable[[list[str]], str]) -> None:
    given = b"the dog\nfox\n\x89PNG\r\n\x1a\n"
    done = translate(given, expect=1)
    assert done.stdout == wanted(["the dog", "fox"])
    assert done.error() == (
        "nat translate: error: standard input, line 3, byte offset 12: not valid UTF-8 (bytes 89); expected UTF-8 "
        "text, convert it first (iconv -f ITS-ENCODING -t UTF-8); or read such bytes as U+FFFD "
        "with --invalid-utf8 replace\n"
    )
    assert len(translate(given, "--invalid-utf8", "replace").stdout.split("\n")) == 5


def test_a_disk_that_fills(translate: Translate, run: Runner, exported: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, str(exported)], input=b"dog\n", stdout=full, stderr=subprocess.PIPE, env=run.env, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith(
        "nat translate: error: standard output: cannot be written (No space left on device);"
    )
    assert done.stderr.count(b"\n") == 1
    message = translate("dog\n", "--output", "/dev/full", expect=1).error()
    assert message.startswith("nat translate: error: /dev/full: cannot be written (No space left on device);")
    assert message.count("\n") == 1
    done = subprocess.run(
        [*COMMAND, str(exported), "--output", str(tmp_path / "out")], input=b"the dog\n" * 1000, capture_output=True,
        env=run.env, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)), check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"out: cannot be written (File too large)" in done.stderr
    assert (tmp_path / "out").stat().st_size == 8000  # of one write


def test_folders_that_are_not_as_exported(translate: Translate, exported: Path, tmp_path: Path) -> None:
    message = translate("dog", folder=tmp_path / "none", expect=1).error()
    assert "none: no such folder; give a folder that `nat export` made" in message
    for name in ("model.onnx", "tokenizer.json", "export.json"):
        copy = shutil.copytree(exported, tmp_path / f"without {name}")
        (copy / name).unlink()
        assert f"{name} is missing" in translate("dog", folder=copy, expect=1).error()
    copy = shutil.copytree(exported, tmp_path / "altered")
    content = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(content.replace("1.0", "1.1", 1))  # as many bytes as before
    assert (copy / "tokenizer.json").stat().st_size == (exported / "tokenizer.json").stat().st_size
    assert (copy / "tokenizer.json").read_text() != content
    message = translate("dog", folder=copy, expect=1).error()
    assert "tokenizer.json: is not the file that was exported (its SHA-256 differs)" in message
    copy = shutil.copytree(exported, tmp_path / "version")
    (copy / "export.json").write_text((copy / "export.json").read_text().replace('"version": 1', '"version": 9'))
    assert (
        "is of version 9 of the format, this program reads version 1" in translate("dog", folder=copy, expect=1).error()
    )
    only = shutil.copytree(exported, tmp_path / "int8 only")
    (only / "export.json").write_text((only / "export.json").read_text().replace('"model.onnx"', '"other.onnx"'))
    assert "has no fp32 model; it has int8" in translate("dog", folder=only, expect=1).error()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--provider", "GpuProvider"], 1, "provider GpuProvider: not in this onnxruntime; available are "),
        (["--precision", "fp16"], 2, "argument --precision: invalid choice: 'fp16' (choose from "),
        (["--threads", "0"], 2, "argument --threads: 0: expected a whole number from 1 to"),
        (["--window", "no"], 2, "argument --window: no: expected a whole number from 1 to"),
        (["--threads", "5000"], 1, "threads 5000: expected at most "),
        (["--lm-weight", "0.5", "--ctc-beam", "3"], 1, "lm weight 0.5: needs a language model"),
        (["--lm", "no.arpa", "--lm-weight", "1", "--ctc-beam", "3"], 1, "lm no.arpa: no such file; make one with"),
        (["--input", "no-1", "no-2"], 1, "2 problems:\n  - --input no-1: no such file"),
        (["--input", "-", "-"], 1, "--input names standard input (-) more than once"),
        (["--input", "/"], 1, "--input /: is a folder, expected a text file"),
        (["--output", "/no/such/folder/out"], 1, "--output /no/such/folder/out: cannot be written (No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_options(translate: Translate, options: list[str], status: int, message: str) -> None:
    done = translate("dog\n", *options, expect=status)
    assert message in done.error()
    assert done.stdout == ""


# ---- start-up -------------------------------------------------------------------------------------------------------


def test_only_the_command_that_is_called_is_imported(run: Runner) -> None:
    code = "import sys; from nat_plugin.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    done = run(sys.executable, "-c", code, "translate", "--help")
    loaded = set(done.stdout.split("\n")[-2].split())
    assert loaded & set(COMMANDS.values()) == {COMMANDS["translate"]}
    assert not loaded & {"torch", "fairseq", "transformers", "tqdm", "onnxruntime", "numpy"}
    every = run(sys.executable, "-m", "nat_plugin.cli", "--help").stdout
    assert re.findall(r"^    (\S+)\s", every, re.MULTILINE)[: len(COMMANDS)] == list(COMMANDS)
    wrong = run(sys.executable, "-m", "nat_plugin.cli", "translat", expect=2).stderr
    assert all(name in wrong for name in COMMANDS)


def test_it_starts_within_a_second(translate: Translate) -> None:
    """Of processor time, which other work on the machine does not lengthen; the interpreter's start counts."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        translate("the dog\n")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 1.0
