import io
import json
import lzma
import subprocess
import sys
import tarfile

import pytest

TEXTS = [f"This is document number {number}. " + "It has some more words in it. " * 5 for number in range(30)]


def nid(*args, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nid_plugin.cli", "halve", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, text=True, **kwargs)


@pytest.fixture
def corpus(tmp_path):
    """A folder with a file of every kind, and the texts in it in reading order."""
    import pyarrow as pa
    import zstandard
    from pyarrow import parquet

    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:10])
    (folder / "a.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    parquet.write_table(pa.table({"text": TEXTS[10:20]}), folder / "b.parquet")
    (folder / "c.txt").write_text(TEXTS[20])
    (folder / "d.tar").write_bytes(
        tar_of({"urlsf_0_data.xz": lzma.compress(tar_of({f"{n}.txt": TEXTS[n].encode() for n in range(21, 30)}))})
    )
    (folder / "LICENSE").write_text("none")
    return folder


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def records(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_folder_of_everything(corpus, tmp_path):
    done = nid(corpus, "--out", tmp_path / "halves.jsonl", "--report", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [record["prompt"] + record["second_half"] for record in records(tmp_path / "halves.jsonl")] == TEXTS
    assert "30 documents read, 30 kept\n1 files of other kinds passed over\n" in done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["counts"]["kept"] == 30


def test_two_processes_with_a_shard_each_and_one_without_agree(corpus, tmp_path):
    drawn = ["--sample", 12, "--seed", 5]
    for shard in ("1/2", "2/2"):
        done = nid(corpus, *drawn, "--shard", shard, "--out", tmp_path / f"{shard[0]}.jsonl")
        assert done.returncode == 0, done.stderr
    whole = nid(corpus, *drawn, "--out", "-")
    lines = (tmp_path / "1.jsonl").read_text().splitlines() + (tmp_path / "2.jsonl").read_text().splitlines()
    assert sorted(lines) == sorted(whole.stdout.splitlines())
    assert len(lines) == 12


def test_standard_input_and_output():
    done = nid("-", "--input-format", "txt", "--txt-documents", "paragraphs", "--out", "-", input="\n\n".join(TEXTS))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 30


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("a.jsonl.zst", "a.jsonl.zst: the Zstandard data is cut off"),
        ("b.parquet", "b.parquet: not a sound parquet file"),
        ("d.tar", "broken or cut off"),
    ],
)
def test_broken_files_end_the_run_and_leave_nothing(corpus, tmp_path, damage, says):
    data = (corpus / damage).read_bytes().rstrip(b"\0")  # a cut in the padding of a tar archive is no loss
    (corpus / damage).write_bytes(data[: len(data) // 2])
    done = nid(corpus, "--out", tmp_path / "halves.jsonl")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "halves.jsonl").exists()


def test_a_missing_column_lists_the_columns(corpus, tmp_path):
    done = nid(corpus / "b.parquet", "--text-column", "body", "--out", tmp_path / "halves.jsonl")
    assert done.returncode == 1
    assert "no column 'body'; --text-column takes one of 'text'" in done.stderr


def test_wrong_use(tmp_path):
    assert nid("--out", tmp_path / "x").returncode == 2
    done = nid("a.txt", "--shard", "3/2", "--take", 0, "--out", tmp_path / "x")
    assert done.returncode == 1
    assert "2 problems" in done.stderr


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from nid_plugin import cli\n"
        "try: cli.main(['halve', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'fairseq', 'datasets', 'pyarrow', 'sentencex', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "nid halve Skylion007/openwebtext" in done.stdout
