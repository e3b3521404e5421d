import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nat_plugin import cli
from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer

TEXT = ["the cat sat on the mat .", "die katze saß auf der matte .", "abcdefghijklmnopqrstuvwxyz ß <>/!"]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="module")
def pmlm(tmp_path_factory):
    """What ``nat tokenize`` reads of a PMLM folder; its model has room for 10 pieces."""
    folder = tmp_path_factory.mktemp("pmlm")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXT * 9, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    words = sorted(set(vocabulary) - set(SPECIALS), key=vocabulary.get)
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in [*words, "<mask>"]), encoding="utf-8")
    config = {"model_type": "xlm-roberta", "max_position_embeddings": 13, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def expected(pmlm, text: str) -> str:
    tokenizer = PieceTokenizer.from_folder(pmlm)
    return "".join(tokenizer.encode(line) + "\n" for line in text.split("\n")[:-1])


def nat(*args, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nat_plugin.cli", "tokenize", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, **kwargs)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_corpus(folder, lines=3, **changes):
    contents = {
        f"{split}.{language}": "".join(f"{TEXT[k % 3]} {language}\n" for k in range(lines)).encode()
        for split in ("train", "valid")
        for language in ("en", "de")
    }
    for name, content in {**contents, **changes}.items():
        (folder / name).write_bytes(content)


def corpus_options(tmp_path):
    return [
        "--source-lang", "en", "--target-lang", "de", "--trainpref", f"{tmp_path}/train",
        "--validpref", f"{tmp_path}/valid", "--destdir", f"{tmp_path}/tok",
    ]  # fmt: skip


def test_standard_input_to_standard_output(pmlm):
    text = "the cat\n\n日本 <mask>\r\nthe mat"
    done = nat("--pmlm", pmlm, input=text.encode())
    assert done.returncode == 0
    assert done.stdout.decode() == expected(pmlm, "the cat\n\n日本 <mask>\nthe mat\n")
    assert "standard input: 4 lines in = 4 lines out; " in done.stderr.decode()
    assert "1 unknown (" in done.stderr.decode()
    assert "1 Windows line ends (CR LF) read as newlines" in done.stderr.decode()


def test_several_processes_give_what_one_gives(pmlm, tmp_path, capsys):
    text = "".join(f"{TEXT[k % 3]} {k}\n" for k in range(24_000))  # several blocks for each worker
    (tmp_path / "text").write_text(text, encoding="utf-8")
    (tmp_path / "text.gz").write_bytes(gzip.compress(text.encode()))
    reports = []
    for workers, source in ((1, "text"), (3, "text"), (2, "text.gz")):
        files = ["--input", f"{tmp_path}/{source}", "--output", f"{tmp_path}/out{workers}"]
        assert cli.main(["tokenize", "--pmlm", str(pmlm), *files, "--workers", str(workers)]) == 0
        assert (tmp_path / f"out{workers}").read_text(encoding="utf-8") == expected(pmlm, text)
        reports.append(re.findall(r"24,000 lines in = 24,000 lines out; .*|lines over .*", capsys.readouterr().err))
    assert reports[0] == reports[1] == reports[2]
    assert len(reports[0]) == 2
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_a_parallel_corpus_goes_on_to_fairseq_preprocess(pmlm, tmp_path, capsys):
    write_corpus(tmp_path)
    (tmp_path / "valid.de.gz").write_bytes(gzip.compress((tmp_path / "valid.de").read_bytes()))
    (tmp_path / "valid.de").unlink()
    assert cli.main(["tokenize", "--pmlm", str(pmlm), *corpus_options(tmp_path), "--workers", "2"]) == 0
    assert names(tmp_path / "tok") == ["train.de", "train.en", "valid.de", "valid.en"]
    text = "".join(f"{line} de\n" for line in TEXT)
    for name in ("train.de", "valid.de"):
        assert (tmp_path / "tok" / name).read_text(encoding="utf-8") == expected(pmlm, text)
    command = capsys.readouterr().err.split("next:\n")[1].strip()
    assert command == (
        f"fairseq-preprocess --source-lang en --target-lang de --trainpref {tmp_path}/tok/train --validpref "
        f"{tmp_path}/tok/valid --srcdict {pmlm}/dict.txt --tgtdict {pmlm}/dict.txt --destdir {tmp_path}/tok/data-bin "
        "--workers 2"
    )
    script = "import sys; from fairseq_cli.preprocess import cli_main; cli_main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()[1:]], capture_output=True, text=True, check=True
    )
    assert len(re.findall(r"3 sents, \d+ tokens, 0\.0% replaced", done.stdout + done.stderr)) == 4
    from fairseq.data import Dictionary, data_utils

    dictionary = Dictionary.load(f"{tmp_path}/tok/data-bin/dict.de.txt")
    dataset = data_utils.load_indexed_dataset(f"{tmp_path}/tok/data-bin/train.en-de.de", dictionary)
    binarised = "".join(dictionary.string(dataset[k]) + "\n" for k in range(3))
    assert binarised == (tmp_path / "tok/train.de").read_text(encoding="utf-8")


def test_report_of_lines_that_are_too_long(pmlm, tmp_path, capsys):
    lines = [" ".join("a" * n) for n in (11, 10, 12, 0, 11, 11, 11, 11)]
    (tmp_path / "text").write_text("\n".join(lines) + "\n\u2000\n")
    options = ["--input", f"{tmp_path}/text", "--output", f"{tmp_path}/out", "--workers", "1"]
    assert cli.main(["tokenize", "--pmlm", str(pmlm), *options]) == 0
    report = capsys.readouterr().err
    # 13 positions, of which the padding row and the one before it are not used, less <s>
    assert "longest line: 12 pieces (line 3)" in report
    assert "6 lines over the 10 pieces that the model can take: line 1, 3, 5, 6, 7, …" in report
    assert "77 pieces, 1.00 a word; 0 unknown (0 %)" in report
    assert "hold text but no piece" not in report


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)))
def test_lines_in_are_lines_out(pmlm, tmp_path, lines):
    (tmp_path / "text").write_text("".join(f"-{line}\n" for line in lines), encoding="utf-8", newline="\n")
    options = ["--input", f"{tmp_path}/text", "--output", f"{tmp_path}/out", "--workers", "1"]
    assert cli.main(["tokenize", "--pmlm", str(pmlm), *options]) == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == len(lines)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_all_problems_of_a_corpus_are_told_before_any_work(pmlm, tmp_path, capsys, workers):
    big = "the cat\n" * 50_000
    write_corpus(tmp_path, **{"train.en": (big + "bad \xff\n").encode("latin-1"), "valid.en": b"a\nb\n\0\nc\n"})
    (tmp_path / "train.de").write_text(big)
    options = ["--pmlm", str(pmlm), *corpus_options(tmp_path), "--workers", workers]
    assert cli.main(["tokenize", *options]) == 1
    report = capsys.readouterr().err
    assert "2 problems:" in report
    assert f"train.en, line 50001, byte offset {len(big) + 4}: not valid UTF-8 (bytes ff)" in report
    assert "valid.en, line 3, byte offset 4: control character U+0000" in report
    assert names(tmp_path / "tok") == []
    # With the first mended and the second allowed, the line counts are what is left.
    (tmp_path / "train.en").write_text(big + "good\n")
    assert cli.main(["tokenize", *options, "--control-characters", "space"]) == 1
    report = capsys.readouterr().err
    assert f"{tmp_path}/train.en has 50001 lines, {tmp_path}/train.de has 50000" in report
    assert f"{tmp_path}/valid.en has 4 lines, {tmp_path}/valid.de has 3" in report
    assert names(tmp_path / "tok") == []


def test_control_characters_become_spaces_when_asked(pmlm, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the\0cat\x1f\n")))
    assert cli.main(["tokenize", "--pmlm", str(pmlm), "--control-characters", "space", "--workers", "1"]) == 0
    out, report = capfd.readouterr()
    assert out == expected(pmlm, "the cat\n")
    assert "standard input: 2 control characters replaced by spaces" in report


def heed_interrupts() -> None:
    """A job that a script starts in the background ignores Ctrl-C, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_killed_and_interrupted_runs_leave_no_half_file(pmlm, tmp_path):
    (tmp_path / "text").write_text("the cat sat on the mat\n" * 400_000)
    (tmp_path / "out").write_text("old")
    command = [sys.executable, "-m", "nat_plugin.cli", "tokenize", "--pmlm", str(pmlm), "--workers", "2"]
    command += ["--input", f"{tmp_path}/text", "--output", f"{tmp_path}/out"]
    for signal_number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
        wait_for(lambda process=process: any(file.stat().st_size for file in tmp_path.glob(f".out.{process.pid}.tmp")))
        process.send_signal(signal_number)
        errors = process.communicate(timeout=30)[1]
        assert process.returncode == status
        assert "Traceback" not in errors
        assert names(tmp_path) == ["out", "text"]
        assert (tmp_path / "out").read_text() == "old"


def test_a_killed_worker_is_told_and_a_killed_parent_leaves_no_worker(pmlm, tmp_path):
    (tmp_path / "text").write_text("the cat sat on the mat\n" * 400_000)
    command = [sys.executable, "-m", "nat_plugin.cli", "tokenize", "--pmlm", str(pmlm), "--workers", "2"]
    command += ["--input", f"{tmp_path}/text", "--output", f"{tmp_path}/out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(children(process.pid)) == 2)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "error: a worker process was killed, probably because memory ran out" in errors
    assert names(tmp_path) == ["text"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(children(process.pid)) == 2)
    orphans = children(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not any(running(orphan) for orphan in orphans))


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_the_reader_may_stop_early(pmlm, tmp_path):
    (tmp_path / "text").write_text("the cat sat on the mat\n" * 100_000)
    command = f"{sys.executable} -m nat_plugin.cli tokenize --pmlm {pmlm} < {tmp_path}/text | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == expected(pmlm, "the cat sat on the mat\n")
    assert "Error" not in done.stderr


def test_folders_that_are_no_pmlm_folder(pmlm, tmp_path, capsys):
    assert cli.main(["tokenize", "--pmlm", f"{tmp_path}/none"]) == 1
    report = capsys.readouterr().err
    for name in ("config.json", "tokenizer.json", "dict.txt"):
        assert f"{tmp_path}/none/{name}: no such file" in report
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((pmlm / name).read_bytes())
    words = (pmlm / "dict.txt").read_text(encoding="utf-8").split("\n")
    (tmp_path / "dict.txt").write_text("\n".join(words[3:]), encoding="utf-8")
    assert cli.main(["tokenize", "--pmlm", str(tmp_path)]) == 1
    assert f"{tmp_path}/dict.txt: lacks 3 pieces of tokenizer.json (such as " in capsys.readouterr().err
    (tmp_path / "dict.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "config.json").write_text("[]")
    assert cli.main(["tokenize", "--pmlm", str(tmp_path)]) == 1
    assert f"{tmp_path}/config.json: not a model configuration" in capsys.readouterr().err


def test_missing_corpus_files_are_all_named(pmlm, tmp_path, capsys):
    write_corpus(tmp_path)
    for name in ("train.en", "valid.de"):
        (tmp_path / name).unlink()
    assert cli.main(["tokenize", "--pmlm", str(pmlm), *corpus_options(tmp_path)]) == 1
    report = capsys.readouterr().err
    assert f"--trainpref {tmp_path}/train: no file {tmp_path}/train.en (or .gz)" in report
    assert f"--validpref {tmp_path}/valid: no file {tmp_path}/valid.de (or .gz)" in report


def test_no_input_is_overwritten(pmlm, tmp_path, capsys):
    write_corpus(tmp_path)
    same = ["--input", f"{tmp_path}/train.en", f"{tmp_path}/train.de", "--output"]
    assert (
        cli.main(["tokenize", "--pmlm", str(pmlm), *same, f"{tmp_path}/x", f"{tmp_path}/../{tmp_path.name}/train.en"])
        == 1
    )
    assert f"{tmp_path}/train.en: is both input and output" in capsys.readouterr().err
    assert cli.main(["tokenize", "--pmlm", str(pmlm), *same, f"{tmp_path}/x", f"{tmp_path}/x"]) == 1
    assert f"{tmp_path}/x: is the output of several inputs" in capsys.readouterr().err
    in_place = [*corpus_options(tmp_path)[:-1], str(tmp_path)]
    assert cli.main(["tokenize", "--pmlm", str(pmlm), *in_place]) == 1
    assert "4 problems:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--input", "a", "b", "--output", "c"], "--input names 2 files, --output 1"),
        (["--input", "a", "--trainpref", "b"], "give either --input and --output, or --trainpref, not both"),
        (["--trainpref", "b"], "also give --source-lang, --target-lang, --destdir"),
        (
            ["--source-lang", "en", "--target-lang", "de", "--destdir", "x"],
            "also give --trainpref, --validpref or --testpref",
        ),
        (["--workers", "0"], "0: expected at least 1"),
        (["--control-characters", "keep"], "invalid choice: 'keep'"),
    ],
)
def test_wrong_use_ends_with_status_2(pmlm, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(["tokenize", "--pmlm", str(pmlm), *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_an_example():
    done = nat("--help", text=True)
    assert done.returncode == 0
    assert "example:\n  nat tokenize --pmlm pmlm --source-lang en" in done.stdout
