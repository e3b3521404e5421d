"""The script that runs the small-scale reproduction in pieces, tried out on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu" / "small_scale.sh"


def run(*arguments, **settings):
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(["bash", SCRIPT, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_wrong_word_and_a_folder_without_parts_are_told(tmp_path):
    wrong = run("everything")
    assert wrong.returncode == 2
    assert "expected pack, unpack or nothing" in wrong.stderr
    empty = run("unpack", str(tmp_path), WORK=str(tmp_path / "work"))
    assert empty.returncode == 2
    assert "holds no small-scale.tar.xz.* parts" in empty.stderr


@pytest.mark.slow
def test_a_fresh_machine_goes_on_with_what_a_piece_brought_back(tmp_path):
    options = {"SIZE": "tiny", "DEVICE": "cpu", "JOBS": "2"}
    options["OPTIONS"] = "--source sample --precision fp32 --rows at random --directions de-en"
    packed = run("pack", str(tmp_path / "data"), WORK=str(tmp_path / "here"), **options)
    assert packed.returncode == 0, packed.stdout + packed.stderr
    options |= {"DATA": str(tmp_path / "data")}

    first = run(WORK=str(tmp_path / "one"), OUT=str(tmp_path / "out-one"), MINUTES="0.6", **options)
    assert first.returncode == 75, first.stdout + first.stderr
    back = {"BACK": str(tmp_path / "out-one")}
    second = run(WORK=str(tmp_path / "two"), OUT=str(tmp_path / "out-two"), MINUTES="20", **options, **back)
    assert second.returncode == 0, second.stdout + second.stderr

    results = run("unpack", str(tmp_path / "data"), str(tmp_path / "out-two"), WORK=str(tmp_path / "last"))
    assert results.returncode == 0
    assert (tmp_path / "last/rows/de-en/random/seed1/greedy/scores.json").exists()
    assert (tmp_path / "last/results/results.md").exists()
    third = run(WORK=str(tmp_path / "last"), OUT=str(tmp_path / "out-three"), **options)
    assert third.returncode == 0
    assert "[rows/de-en/random/seed1]" not in third.stdout
