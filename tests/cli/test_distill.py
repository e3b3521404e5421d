"""``nat distill`` with a real, tiny Transformer as the teacher."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_plugin import cli
from tests.commands import PLUGIN, ROOT, Runner
from tests.toy import Toy

SIZE = [
    word
    for side in ("encoder", "decoder")
    for name, value in (("layers", 1), ("embed-dim", 32), ("ffn-embed-dim", 64), ("attention-heads", 2))
    for word in (f"--{side}-{name}", str(value))
]
LIMIT = ("--max-len-b", "12")  # an untrained teacher goes on for ever


@pytest.fixture(scope="session")
def teacher(run: Runner, toy: Toy, once: Callable[..., Path]) -> Path:
    """Folder with two teachers, ``1/checkpoint_best.pt`` and ``2/…``, trained for a second on the toy corpus."""

    def make(folder: Path) -> None:
        for seed in ("1", "2"):
            train(run, toy, folder / seed, "-s", "en", "-t", "de", "--seed", seed, "--max-epoch", "3")

    return once("autoregressive", make)


def train(run: Runner, toy: Toy, folder: Path, *words: str) -> None:
    run(
        "fairseq-train", toy.bin, "--task", "translation", "--arch", "transformer", *SIZE,
        "--max-source-positions", "9", "--dropout", "0", "--optimizer", "adam", "--lr", "5e-3", "--max-tokens", "300",
        "--save-dir", folder, "--cpu", "--no-epoch-checkpoints", "--no-last-checkpoints", "--num-workers", "0",
        "--required-batch-size-multiple", "1", "--log-format", "none", "--skip-invalid-size-inputs-valid-test", *words,
    )  # fmt: skip


@pytest.fixture(scope="session")
def path(teacher: Path) -> str:
    """One teacher's checkpoint."""
    return str(teacher / "1" / "checkpoint_best.pt")


def distill(*words: str | Path, status: int = 0) -> None:
    assert cli.main(["distill", *map(str, words)]) == status


def read(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def without_text(lines: list[str]) -> list[int]:
    return [i for i, line in enumerate(lines) if not line]


@pytest.mark.parametrize("members", [1, 2])
def test_output_is_what_fairseq_generate_finds(run, toy, teacher, tmp_path, members):
    paths = ":".join(str(teacher / str(k + 1) / "checkpoint_best.pt") for k in range(members))
    distill(toy.bin, "--path", paths, "--output", tmp_path, "--subset", "valid", "--cpu", *LIMIT)
    generated = run(
        "fairseq-generate", toy.bin, "--user-dir", PLUGIN, "--path", paths, "--gen-subset", "valid", "--beam", "5",
        "--cpu", "--required-batch-size-multiple", "1", *LIMIT,
    ).translations()  # fmt: skip
    source, target = read(tmp_path / "valid.en"), read(tmp_path / "valid.de")
    assert source == toy.read("valid.en")
    empty = without_text(source)
    assert empty
    for i, line in enumerate(target):
        assert line == (toy.read("valid.de")[i] if i in empty else generated[i]), i
    report = json.loads((tmp_path / "distill.json").read_text())
    assert report["counts"]["decoded"] == len(source) - len(empty)
    assert report["counts"]["kept_raw_empty_source"] == len(empty)
    assert report["lines"] == report["sentences"] == len(source)
    assert report["decoding_seconds"] > 0
    assert len(report["settings"]["checkpoints_sha256"]) == members


def test_a_disk_that_takes_no_more_is_told_and_the_run_goes_on_later(toy, path, tmp_path):
    """A limit on the size of files stands for it: writing fails in the same way."""
    words = ["distill", str(toy.bin), "--path", path, "--cpu", *LIMIT, "--batch-size", "50", "--output"]
    full = subprocess.run(
        [sys.executable, "-m", "nat_plugin.cli", *words, str(tmp_path / "full")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)),
    )  # fmt: skip
    assert full.returncode == 1
    assert "nat distill: error: " in full.stderr and "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    for name in ("full", "free"):
        distill(*words[1:], tmp_path / name)
    assert (tmp_path / "full" / "train.de").read_bytes() == (tmp_path / "free" / "train.de").read_bytes()


def test_shards_give_what_one_run_gives_and_raw_pairs_can_be_mixed_in(toy, path, tmp_path, capsys):
    one, many = tmp_path / "one", tmp_path / "many"
    common = (toy.bin, "--path", path, "--cpu", *LIMIT)
    distill(*common, "--output", one)
    for shard in (2, 0, 1):
        distill(*common, "--output", many, "--shards", "3", "--shard", str(shard), "--max-tokens", "90")
    assert not (many / "train.de").exists()
    distill(toy.bin, "--output", many, "--merge", "--mix")
    for language in ("en", "de"):
        raw, distilled = toy.read(f"train.{language}"), read(one / f"train.{language}")
        assert len(distilled) == len(raw)
        assert read(many / f"train.{language}") == raw + distilled
    assert read(one / "train.en") == toy.read("train.en")
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith(f"1,206 lines each: {len(raw)} raw pairs, then {len(raw)} distilled")
    distill(toy.bin, "--output", many, "--merge")
    assert read(many / "train.de") == read(one / "train.de")
    assert json.loads((many / "distill.json").read_text())["mix"] is False


def test_the_result_can_be_preprocessed_and_unknown_words_survive(run, toy, path, tmp_path):
    """The toy with a word that the dictionary lacks, an over-long source and an unknown target."""
    files = {"train.en": ["w1 zebra w2", " ".join(["w3"] * 20), "w4"], "train.de": ["W1 W2", "W5 zebra", "W4"]}
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    dictionary = str(toy.folder / "dict.txt")

    def preprocess(prefix: str, destination: str) -> Path:
        run("fairseq-preprocess", "-s", "en", "-t", "de", "--srcdict", dictionary, "--tgtdict", dictionary,
            "--trainpref", prefix, "--destdir", destination, cwd=tmp_path)  # fmt: skip
        return tmp_path / destination

    data = preprocess("train", "bin")
    distill(data, "--path", path, "--output", tmp_path / "new", "--cpu", *LIMIT)
    assert read(tmp_path / "new" / "train.en") == ["w1 <unk> w2", files["train.en"][1], "w4"]
    assert read(tmp_path / "new" / "train.de")[1] == "W5 <unk>"
    counts = json.loads((tmp_path / "new" / "distill.json").read_text())["counts"]
    assert (counts["decoded"], counts["kept_raw_long_source"]) == (2, 1)
    again = preprocess("new/train", "bin2")
    for end in ("en.bin", "en.idx"):
        assert (again / f"train.en-de.{end}").read_bytes() == (data / f"train.en-de.{end}").read_bytes()


@pytest.mark.parametrize("precision", ["--bf16", "--fp16"])
def test_low_precision_decodes(toy, path, tmp_path, precision):
    distill(toy.bin, "--path", path, "--output", tmp_path, "--subset", "test", "--cpu", precision, *LIMIT)
    assert json.loads((tmp_path / "distill.json").read_text())["settings"]["precision"] == precision[2:]
    assert len(read(tmp_path / "test.de")) == len(toy.read("test.en"))


def test_a_finished_run_is_not_decoded_again_and_a_cut_one_goes_on(toy, path, tmp_path, capsys):
    command = (toy.bin, "--path", path, "--output", tmp_path, "--subset", "valid", "--cpu", *LIMIT, "--batch-size", "5")
    distill(*command)
    shard = tmp_path / "shards" / "shard-0-of-1.tsv"
    target, whole = read(tmp_path / "valid.de"), shard.read_bytes()
    capsys.readouterr()
    distill(*command)
    assert "all 53 sentences are decoded already" in capsys.readouterr().out
    shard.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "valid.de").unlink()
    distill(*command)
    assert read(tmp_path / "valid.de") == target
    kept = whole[: whole.rfind(b"#\t", 0, len(whole) // 2)]
    assert len(kept) > 100
    assert shard.read_bytes().startswith(kept)


def refused(capsys: pytest.CaptureFixture, *words: str | Path) -> str:
    capsys.readouterr()
    distill(*words, status=1)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err


def test_changed_settings_and_missing_sentences_are_refused(toy, path, teacher, tmp_path, capsys):
    common = (toy.bin, "--output", tmp_path, "--subset", "test", "--cpu", *LIMIT, "--shards", "2")
    distill(*common, "--path", path, "--shard", "0")
    assert "beam was 5, now it is 4" in refused(capsys, *common, "--path", path, "--shard", "1", "--beam", "4")
    other = teacher / "2" / "checkpoint_best.pt"
    assert "checkpoints sha256 was" in refused(capsys, *common, "--path", other, "--shard", "1")
    assert "precision was fp32, now it is bf16" in refused(capsys, *common, "--path", path, "--shard", "1", "--bf16")
    assert "shards was 2, now it is 3" in refused(capsys, toy.bin, "--output", tmp_path, "--subset", "test", "--merge",
                                                  "--shards", "3")  # fmt: skip
    changed = refused(capsys, toy.bin, "--output", tmp_path, "--merge")  # of another subset
    assert "subset was test, now it is train" in changed
    merge = (toy.bin, "--output", tmp_path, "--subset", "test", "--merge")
    assert "beam was 5, now it is 3" in refused(capsys, *merge, "--beam", "3")
    assert "precision was fp32, now it is fp16" in refused(capsys, *merge, "--fp16")
    message = refused(capsys, *merge, "--beam", "5", "--max-len-b", "12")
    assert "shard 1 of 2 lacks 14 of 14 sentences (counted from 0: 1, 3, 5, 7, 9, …); run" in message
    command = message.strip().splitlines()[-1].split()
    assert command[:3] == ["nat", "distill", str(toy.bin)]
    assert cli.main(command[1:]) == 0  # what the message tells to run
    distill(*merge)
    assert len(read(tmp_path / "test.de")) == 29


def test_damaged_shards_and_settings_are_refused(toy, path, tmp_path, capsys):
    distill(toy.bin, "--path", path, "--output", tmp_path, "--subset", "test", "--cpu", *LIMIT)
    merge = (toy.bin, "--output", tmp_path, "--subset", "test", "--merge")
    shard, settings = tmp_path / "shards" / "shard-0-of-1.tsv", tmp_path / "shards" / "settings.json"
    whole = shard.read_bytes()
    for old, new in ((b"\th\tW", b"\th\t\xff"), (b"\th\tW", b"\th\tV")):
        assert old in whole
        shard.write_bytes(whole.replace(old, new, 1))
        assert "not as they were written (their CRC differs)" in refused(capsys, *merge)
    shard.unlink()
    shard.mkdir()
    assert "shard-0-of-1.tsv: cannot be opened (Is a directory)" in refused(capsys, *merge)
    known = json.loads(settings.read_text())
    del known["settings"]["shards"], known["where"]["command"]
    settings.write_text(json.dumps(known))
    assert "(lacks settings.shards, where.command); delete" in refused(capsys, *merge)


def test_a_teacher_that_was_not_told_its_direction(run, toy, tmp_path, capsys, caplog):
    train(run, toy, tmp_path / "teacher", "--max-update", "1")
    command = ("--path", tmp_path / "teacher" / "checkpoint_best.pt", "--subset", "test", "--cpu", *LIMIT)
    message = refused(capsys, toy.bin, *command, "--output", tmp_path / "out", "-s", "de", "-t", "en")
    assert "was trained without --source-lang and --target-lang" in message
    assert "(en to de); asked for is de to en" in message
    assert not list((tmp_path / "out" / "shards").iterdir())
    distill(toy.bin, *command, "--output", tmp_path / "one")
    distill(toy.bin, *command, "--output", tmp_path / "two", "-s", "en", "-t", "de")
    assert "direction is unknown" not in caplog.text
    several = tmp_path / "bin"
    shutil.copytree(toy.bin, several)
    for name in ("en.idx", "en.bin", "de.idx", "de.bin"):
        shutil.copy(toy.bin / f"test.en-de.{name}", several / f"test.de-en.{name}")
    distill(several, *command, "--output", tmp_path / "three", "-s", "en", "-t", "de")
    assert "direction is unknown" in caplog.text and "taken to translate en to de" in caplog.text
    assert read(tmp_path / "three" / "test.de") == read(tmp_path / "one" / "test.de")


def test_wrong_models_and_data_are_refused(toy, path, tmp_path, capsys):
    out = ("--output", tmp_path / "out", "--cpu")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(Path(path).read_bytes()[:5000])
    assert "no such checkpoint" in refused(capsys, toy.bin, "--path", f"{path}:{tmp_path}/nothing.pt", *out)
    assert "truncated or damaged" in refused(capsys, toy.bin, "--path", damaged, *out)
    assert "one-pass model (task ctc_nat)" in refused(capsys, toy.bin, "--path", toy.best, *out)
    assert "no such folder" in refused(capsys, tmp_path / "nothing", "--path", path, *out)
    assert "no subset dev; it has test, train, valid" in refused(
        capsys, toy.bin, "--path", path, *out, "--subset", "dev"
    )
    assert "no shard was decoded here" in refused(capsys, toy.bin, "--output", tmp_path / "none", "--merge")
    backwards = refused(capsys, toy.bin, "--path", path, *out, "-s", "de", "-t", "en")
    assert "translates en to de, asked for is de to en" in backwards
    assert "--max-tokens 4 is less than the longest source has" in refused(
        capsys, toy.bin, "--path", path, *out, "--max-tokens", "4"
    )
    assert "cannot be imported" in refused(capsys, toy.bin, "--path", path, *out, "--user-dir", tmp_path / "no-plugin")


def test_a_smaller_dictionary_is_refused(run, path, tmp_path, capsys):
    (tmp_path / "train.en").write_text("a b c\n")
    (tmp_path / "train.de").write_text("a b c\n")
    run("fairseq-preprocess", "-s", "en", "-t", "de", "--trainpref", "train", "--destdir", "bin", cwd=tmp_path)
    message = refused(capsys, tmp_path / "bin", "--path", path, "--output", tmp_path / "out", "--cpu")
    assert "does not fit the dictionaries of" in message
    assert "size mismatch" in message


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--path is missing"),
        (["--path", "x", "--shards", "2"], "also give --shard 0 … 1, or --merge"),
        (["--path", "x", "--shards", "2", "--shard", "2"], "--shard 2: expected 0 to 1"),
        (["--path", "x", "--shard", "1"], "--shard 1 needs --shards"),
        (["--path", "x", "--shards", "2", "--shard", "1", "--mix"], "--mix goes with --merge"),
        (["--merge", "--shard", "1"], "leave --shard out"),
        (["--path", "x", "-s", "en"], "give both of --source-lang and --target-lang"),
        (["--path", "x", "--beam", "0"], "0: expected a whole number from 1 to"),
        (["--path", "x", "--beam", "abc"], "abc: expected a whole number from 1 to"),
        (["--path", "x", "--lenpen", "nan"], "nan: expected a number from -10 to 10"),
        (["--path", "x", "--max-len-a", "nan"], "nan: expected a number from 0 to"),
        (["--path", "x", "--max-len-a", "inf"], "inf: expected a number from 0 to"),
        (["--path", "x", "--max-len-b", "-5"], "-5: expected a whole number from 0 to"),
        (["--path", "x", "--max-len-b", "0"], "leave no token for the shortest source"),
        (["--path", "x", "--max-len-b", "0", "--max-len-a", "0.4"], "leave no token for the shortest source"),
    ],
)
def test_wrong_use_ends_with_status_2(words, complaint, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["distill", "bin", "--output", str(tmp_path), *words])
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_where_it_was(toy, path, tmp_path):
    common = [str(toy.bin), "--path", path, "--cpu", *LIMIT, "--batch-size", "2"]
    distill(*common, "--output", tmp_path / "whole")
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "nat_plugin.cli", "distill", *common, "--output", str(killed)]
    process = subprocess.Popen(
        command, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    shard = killed / "shards" / "shard-0-of-1.tsv"
    end = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < end and not (shard.exists() and shard.stat().st_size > 2000):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was at work
    kept = shard.read_bytes()
    assert len(kept) < (tmp_path / "whole" / "shards" / shard.name).stat().st_size - 1000
    assert not (killed / "train.de").exists()
    distill(*common, "--output", killed)
    assert shard.read_bytes().startswith(kept[: kept.rfind(b"#\t")])
    assert (killed / "train.de").read_bytes() == (tmp_path / "whole" / "train.de").read_bytes()
