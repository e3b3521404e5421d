"""``nat prepare-pmlm`` as a user runs it."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq.data import Dictionary

from nat_plugin import cli
from plugin_common.hf_folder import check_pmlm_folder, load_masked_lm

TEXT = [
    "open the file , close the file .",
    "the files are closed and cannot be opened again .",
    "die Datei öffnen , die Datei schließen .",
    "die Dateien sind geschlossen und können nicht wieder geöffnet werden .",
    "100 % of <b>files</b> are opened again & again",
]
TINY = ["--layers", "1", "--width", "8", "--heads", "2", "--ffn", "16", "--max-positions", "20"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "train.txt"
    draw, words = random.Random(1), " ".join(TEXT).split()
    lines = [*TEXT, *(" ".join(draw.choices(words, k=9)) for _ in range(195))]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def scratch(corpus: Path) -> Path:
    """A folder made by the command in a process of its own."""
    output = corpus.parent / "scratch"
    done = nat("--from-scratch", "--vocab-size", "70", "--corpus", corpus, "--output", output, *TINY)
    assert done.returncode == 0, done.stderr
    assert "vocabulary: 70 rows learned from 200 lines" in done.stdout
    assert f"next: nat tokenize --pmlm {output}" in done.stdout
    return output


def nat(*args: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nat_plugin.cli", "prepare-pmlm", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(*args: object) -> int:
    return cli.main(["prepare-pmlm", *map(str, args)])


def test_learned_folder_is_one_for_fairseq(scratch: Path) -> None:
    check_pmlm_folder(scratch)
    assert len(Dictionary.load(str(scratch / "dict.txt"))) == load_masked_lm(scratch).config.vocab_size == 70
    provenance = json.loads((scratch / "pmlm.json").read_text(encoding="utf-8"))
    assert provenance["source"] == "from scratch"
    assert provenance["corpus"][0]["lines"] == 200


def test_pruning_says_what_was_kept(scratch: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = tmp_path / "small.txt"
    small.write_text(TEXT[0], encoding="utf-8")
    assert run("--pmlm", scratch, "--corpus", small, "--output", tmp_path / "pruned") == 0
    check_pmlm_folder(tmp_path / "pruned")
    rows = load_masked_lm(tmp_path / "pruned").config.vocab_size
    output = capsys.readouterr().out
    assert f"rows: {rows} kept of 70" in output
    assert "logits on kept pieces: largest difference" in output
    assert "corpus: 1 lines," in output
    assert json.loads((tmp_path / "pruned/pmlm.json").read_text(encoding="utf-8"))["min_count"] == 1


def test_whole_vocabulary_without_a_corpus(scratch: Path, tmp_path: Path) -> None:
    assert run("--pmlm", scratch, "--no-prune", "--output", tmp_path / "whole") == 0
    assert (tmp_path / "whole/tokenizer.json").read_bytes() == (scratch / "tokenizer.json").read_bytes()
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (scratch / "model.safetensors").read_bytes()
    symbols = Dictionary.load(str(scratch / "dict.txt")).symbols
    assert Dictionary.load(str(tmp_path / "whole/dict.txt")).symbols == symbols


def test_same_command_makes_the_same_folder(scratch: Path, corpus: Path, tmp_path: Path) -> None:
    assert run("--from-scratch", "--vocab-size", 70, "--corpus", corpus, "--output", tmp_path / "again", *TINY) == 0
    for file in scratch.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_min_count_and_pieces_to_keep(scratch: Path, corpus: Path, tmp_path: Path) -> None:
    entries = Dictionary.load(str(scratch / "dict.txt"))
    rare = next(s for s, n in zip(entries.symbols[4:-1], entries.count[4:-1], strict=True) if n < 50 and len(s) > 2)
    (tmp_path / "keep").write_text(f"{rare}\n", encoding="utf-8")
    common = ["--pmlm", scratch, "--corpus", corpus, "--min-count", 50]
    assert run(*common, "--output", tmp_path / "a") == 0
    assert run(*common, "--output", tmp_path / "b", "--keep-pieces", tmp_path / "keep") == 0
    without, with_it = (set(Dictionary.load(str(tmp_path / name / "dict.txt")).symbols) for name in "ab")
    assert with_it - without == {rare}


def test_unknown_pieces_to_keep_are_named_by_line(
    scratch: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "keep").write_text("▁\nnonsense\n\nrubbish\n", encoding="utf-8")
    options = ["--pmlm", scratch, "--corpus", corpus, "--output", tmp_path / "x", "--keep-pieces", tmp_path / "keep"]
    assert run(*options) == 1
    message = capsys.readouterr().err
    assert "keep, line 2: 'nonsense' is no piece" in message
    assert "keep, line 4: 'rubbish' is no piece" in message


def test_existing_output_is_kept_unless_overwriting(
    scratch: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out"
    options = ["--pmlm", scratch, "--corpus", corpus, "--output", output]
    assert run(*options) == 0
    assert run(*options) == 1
    assert "exists and is not empty; give another folder, or add --overwrite" in capsys.readouterr().err
    assert run(*options, "--overwrite") == 0
    check_pmlm_folder(output)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"gut\n\xe4\n", "bad.txt, line 2, byte offset 4: not valid UTF-8"),
        (b"", "no text in it"),
        (b"a\x00b\n", "bad.txt, line 1, byte offset 1: control character U+0000"),
    ],
)
@pytest.mark.parametrize("mode", ["prune", "scratch"])
def test_bad_corpus(
    scratch: Path, tmp_path: Path, content: bytes, message: str, mode: str, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    how = ["--pmlm", scratch] if mode == "prune" else ["--from-scratch", *TINY]
    assert run(*how, "--corpus", path, "--output", tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_control_characters_can_be_read_as_spaces(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a\x00b c\x07d\n")
    options = ["--from-scratch", "--corpus", path, "--output", tmp_path / "out", "--control-characters", "space", *TINY]
    assert run(*options) == 0
    assert "2 control characters replaced by spaces" in capsys.readouterr().out


def test_too_small_vocabulary(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--from-scratch", "--vocab-size", 30, "--corpus", corpus, "--output", tmp_path / "out", *TINY]
    assert run(*options) == 1
    assert "--vocab-size 30 is too small" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_corpus_too_small_for_the_vocabulary_is_said(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("--from-scratch", "--corpus", corpus, "--output", tmp_path / "out", *TINY) == 0
    rows = load_masked_lm(tmp_path / "out").config.vocab_size
    assert f"the corpus is too small for --vocab-size 8000; it gave {rows} rows" in capsys.readouterr().out


def test_all_wrong_sizes_and_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    missing = [tmp_path / "x", tmp_path / "y"]
    assert run("--from-scratch", "--corpus", *missing, "--output", tmp_path / "out") == 1
    assert all(f"--corpus {path}: no such file" in capsys.readouterr().err for path in missing[:1])
    (tmp_path / "x").write_text("text\n", encoding="utf-8")
    wrong = ["--layers", 0, "--width", 10, "--heads", 4]
    assert run("--from-scratch", "--corpus", missing[0], "--output", tmp_path / "out", *wrong) == 1
    message = capsys.readouterr().err
    assert "--layers must be at least 1" in message
    assert "--width 10 must be a multiple of --heads 4" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "o"], "one of the arguments --pmlm --from-scratch is required"),
        (["--pmlm", "p", "--from-scratch", "--output", "o"], "not allowed with argument"),
        (["--pmlm", "p", "--output", "o"], "--corpus is missing: give text files, or --no-prune"),
        (["--from-scratch", "--output", "o"], "--corpus is missing: give text files"),
        (["--pmlm", "p", "--corpus", "c", "--output", "o", "--layers", "2"], "--layers: only with --from-scratch"),
        (["--from-scratch", "--corpus", "c", "--output", "o", "--min-count", "0"], "--min-count: only with --pmlm"),
        (["--pmlm", "p", "--no-prune", "--min-count", "2", "--output", "o"], "--no-prune keeps every piece"),
        (["--pmlm", "p", "--corpus", "c", "--min-count", "0", "--output", "o"], "must be at least 1"),
        (["--pmlm", "p", "--corpus", "c"], "the following arguments are required: --output"),
    ],
)
def test_wrong_use_ends_with_status_2(options: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_source(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("--pmlm", "./no-such-folder", "--corpus", corpus, "--output", tmp_path / "out") == 1
    assert "./no-such-folder: no such folder" in capsys.readouterr().err


def test_help_has_an_example_and_every_option(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "nat prepare-pmlm --pmlm FacebookAI/xlm-roberta-base --corpus train.de train.en --output xlmr-de-en" in text
    for option in ("--no-prune", "--min-count", "--init-missing-head", "--vocab-size", "--overwrite", "--keep-pieces"):
        assert option in text


def test_example_commands_are_valid() -> None:
    from nat_plugin.pmlm.prepare_command import EXAMPLE

    for line in EXAMPLE.splitlines():
        arguments = cli.make_parser().parse_args(line.split()[1:])
        assert arguments.command == "prepare-pmlm"
