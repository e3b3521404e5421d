"""Each of the six scripts, as a user starts it, from download to BLEU: small archives from loopback, a tiny PMLM."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nat_plugin.cli import main as nat
from scripts.nat.recipes import RECIPES
from tests.loopback_corpora import SENTENCES, SUMS, make_archives, serve

ROOT = Path(__file__).resolve().parents[2]
SHAPE = [
    "--vocab-size", "300", "--layers", "1", "--width", "32", "--heads", "2", "--ffn", "64", "--max-positions", "256",
]  # fmt: skip
pytestmark = pytest.mark.slow


class Script:
    """A reproduction in a folder of its own, with a PMLM, archives on loopback, and their checksums."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self.recipe = RECIPES[name]
        self.work, self.pmlm, sums = folder / "work", folder / "pmlm", folder / "archives" / SUMS
        self.words = [
            "bash", str(ROOT / "scripts" / "nat" / f"{name}.sh"), "--scale", "tiny", "--gpus", "0",
            "--work", str(self.work), "--pmlm", str(self.pmlm), "--mirror", url, "--checksums", str(sums),
        ]  # fmt: skip
        self.env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def __call__(self, *options: str) -> list[str]:
        """Run it; what it printed."""
        done = subprocess.run(
            [*self.words, *options], env=self.env, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout.splitlines()

    def make_pmlm(self, seed: int) -> None:
        """Write the PMLM folder; another seed gives other weights and the same vocabulary."""
        text = self.pmlm.parent / "text"
        sentences = {folder: folder.rpartition("-")[2] for folder in ("en-de", "en-ro")}
        files = [SENTENCES / pair / f"valid.{side}" for pair, other in sentences.items() for side in ("en", other)]
        text.write_text("".join(file.read_text(encoding="utf-8") for file in files), encoding="utf-8")
        words = ["prepare-pmlm", "--from-scratch", "--corpus", str(text), "--output", str(self.pmlm), "--overwrite"]
        assert nat([*words, *SHAPE, "--seed", str(seed)]) == 0

    def read(self, name: str) -> list[str]:
        """The lines of a file."""
        return (self.work / name).read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Script]:
    make_archives(tmp_path / "archives", RECIPES[request.param].dataset)
    with serve(tmp_path / "archives") as url:
        made = Script(request.param, tmp_path, url)
        made.make_pmlm(seed=1)
        yield made


def actions(output: list[str]) -> dict[str, str]:
    """By stage: ``done``, or ``skipped``, which is also what found by itself that nothing was to be done."""
    found = {}
    for line in output:
        if (
            match := re.match(r"\[ *[\d:]+\] ([a-z-]+): (unchanged, skipped|checked, unchanged|done in)", line)
        ) is not None:
            found[match[1]] = "done" if match[2] == "done in" else "skipped"
    return found


def check_scores(script: Script) -> None:
    """Both systems have a line for each of the test set, and scores with signatures."""
    target = script.recipe.target_lang
    for system in ("at", "nat"):
        assert len(script.read(f"{system}/test.{target}")) == len(script.read(f"raw/test.{target}")) == 10
        scores = json.loads((script.work / "scores" / f"{system}.json").read_text(encoding="utf-8"))["scores"]
        assert {"sacreBLEU", "chrF2", "BLEU tokenised"} <= {score["name"] for score in scores}
        assert all("nrefs:1|" in score["signature"] for score in scores)
        assert all(0 <= score["value"] <= 100 for score in scores)
    assert len(script.read(f"distill/train.{target}")) == len(script.read(f"clean/train.{target}"))


@pytest.mark.parametrize("script", ["wmt14_ende", "wmt14_deen", "wmt16_enro", "iwslt14_ende"], indirect=True)
def test_from_download_to_bleu(script: Script) -> None:
    first = actions(script("--until", "score"))
    assert len(first) == 15
    assert set(first.values()) == {"done"}
    check_scores(script)
    assert set(actions(script("--until", "score")).values()) == {"skipped"}


@pytest.mark.parametrize("script", ["wmt16_enro"], indirect=True)
def test_mixed_and_distilled_data_share_a_folder(script: Script) -> None:
    until = ("--until", "preprocess-distilled")
    assert set(actions(script(*until)).values()) == {"done"}
    made = actions(script("--data", "mixed", *until))
    assert {name for name, action in made.items() if action == "done"} == {"mix", "preprocess-distilled"}
    for language in ("en", "ro"):
        raw, distilled = script.read(f"pieces/train.{language}"), script.read(f"distill/train.{language}")
        assert len(raw) == len(distilled) > 0
        assert script.read(f"distill-mixed/train.{language}") == raw + distilled
    for data in ("distilled", "mixed"):
        assert set(actions(script("--data", data, *until)).values()) == {"skipped"}


@pytest.mark.parametrize("script", ["wmt16_roen"], indirect=True)
def test_another_pmlm_runs_what_depends_on_its_weights(script: Script) -> None:
    assert set(actions(script("--until", "score")).values()) == {"done"}
    check_scores(script)
    before = script.read("at/test.en")
    script.make_pmlm(seed=2)
    planned = script("--until", "score", "--dry-run")
    assert "   run: changed: PMLM" in planned
    after = actions(script("--until", "score"))
    assert {name for name, action in after.items() if action == "done"} == {
        "prune", "nat-train", "nat-average", "nat-generate", "score",
    }  # fmt: skip
    assert script.read("at/test.en") == before
    assert (script.work / "nat" / "checkpoints.before-1").is_dir()
    check_scores(script)


@pytest.mark.parametrize("script", ["iwslt14_deen"], indirect=True)
def test_an_interrupted_training_goes_on_and_all_ends_in_a_summary(script: Script) -> None:
    longer = ("--set", "at-train.max-update=60")
    running = subprocess.Popen([*script.words, *longer], env=script.env, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if "validation loss" in line:
            running.send_signal(signal.SIGTERM)
            break
    rest = running.stdout.read()
    assert running.wait(60) == 143
    assert "at-train: done" not in rest
    started = time.monotonic()
    output = script(*longer)
    assert any("at-train: train the autoregressive baseline (it did not end; goes on with" in line for line in output)
    log = "\n".join(script.read("logs/at-train.log"))
    assert log.count("$ fairseq-train") == 2
    assert "checkpoints/checkpoint_last.pt (epoch" in log  # "Loaded checkpoint …"
    done = actions(output)
    assert {name for name, action in done.items() if action == "skipped"} == {
        "download", "clean", "prune", "tokenize", "preprocess",
    }  # fmt: skip
    check_scores(script)

    summary = json.loads((script.work / "summary.json").read_text(encoding="utf-8"))
    assert summary["direction"] == "de-en"
    assert summary["systems"]["nat"]["speed"]["nat"]["one"]["median"] > 0
    assert summary["systems"]["at"]["speed"].keys() == {"at-beam5"}
    assert summary["systems"]["nat"]["significance"]
    assert summary["versions"]["torch"]
    assert 0 < summary["seconds"]["nat-train"] < time.monotonic() - started
    assert any("sacreBLEU" in line and "nrefs:1|case:lc" in line for line in output)
    again = script(*longer)
    assert set(actions(again).values()) == {"skipped"}
    assert any("sacreBLEU" in line for line in again)  # the summary is shown again
