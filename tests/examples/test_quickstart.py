"""The quickstart: its parts, and all of it with a few updates."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.quickstart import figure, report, watch

ROOT = Path(__file__).resolve().parents[2]
VALID_LINE = (
    "2026-01-01 00:00:00 | INFO | valid | epoch 003 | valid on 'valid' subset | loss 7.275 | infeasible_pct 5 | "
    "infeasible 25 | lowered 0 | truncated 0 | bleu 14.34 | wps 2392 | wpb 471.3 | bsz 55.6 | "
    "num_updates 486 | best_bleu 15"
)


def test_watch_shows_validations_only():
    assert watch.summary(VALID_LINE) == "  update   486: validation loss   7.28 bits a token, BLEU 14.34"
    assert watch.summary(VALID_LINE.replace("valid on", "train on")) is None


def test_the_figure_reads_the_log(tmp_path):
    log = tmp_path / "train.log"
    log.write_text(f"{VALID_LINE}\n{VALID_LINE.replace('486', '500').replace('14.34', '15')}\n", encoding="utf-8")
    assert figure.training_curve(log) == ([486, 500], [14.34, 15.0], [7.275, 7.275])


@pytest.mark.parametrize(("last_line", "status"), [("| done training in 3.0 seconds", 0), ("Traceback", 1)])
def test_watch_tells_a_finished_training_from_a_failed_one(tmp_path, last_line, status):
    log = tmp_path / "train.log"
    log.write_text(f"{VALID_LINE}\n{last_line}\n", encoding="utf-8")
    ended = subprocess.Popen(["true"])
    ended.wait()
    command = [sys.executable, ROOT / "examples/quickstart/watch.py", log, str(ended.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stdout.count("BLEU 14.34") == 1


def test_report_puts_the_lines_back_in_order(tmp_path):
    log = tmp_path / "generate.log"
    log.write_text(
        "D-1\t-0.5\tzwei\nH-1\t-0.5\tx\nD-0\t-0.1\teins\nD-2\t0.0\t\n"
        "Translated 3 sentences (9 tokens) in 0.5s (6 s/s)\n",
        encoding="utf-8",
    )
    assert report.read_generated(log) == report.Generated(["eins", "zwei", ""], 0.5)


def test_report_refuses_an_incomplete_log(tmp_path):
    log = tmp_path / "generate.log"
    log.write_text("D-1\t-0.5\tzwei\nTranslated 3 sentences (9 tokens) in 0.5s (6 s/s)\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="not the complete output"):
        report.read_generated(log)


def test_unknown_pair_is_refused():
    done = subprocess.run(
        ["bash", ROOT / "examples/quickstart/run.sh"],
        env={**os.environ, "PAIR": "en-xx", "OUT": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such pair" in done.stderr


def test_a_folder_of_somebody_else_is_not_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        ["bash", ROOT / "examples/quickstart/run.sh"],
        env={**os.environ, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "not the quickstart's" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_the_whole_way_from_text_to_scores(tmp_path):
    settings = {"PAIR": "ro-en", "OUT": str(tmp_path / "run"), "UPDATES": "20", "EVERY": "4", "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "examples/quickstart/run.sh"],
        env={**os.environ, **settings, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(re.findall(r"validation loss .* BLEU", done.stdout)) == 5
    assert len(re.findall(r"^S .+\nR .+\nT .*$", done.stdout, flags=re.MULTILINE)) == 10
    assert re.search(r"^BLEU = [\d.]+", done.stdout, flags=re.MULTILINE)
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in done.stdout
    assert re.search(r"^chrF2 = [\d.]+", done.stdout, flags=re.MULTILINE)
    assert re.search(r"at batch 1 \d+ sentences/s, [\d.]+ ms a sentence", done.stdout)
    assert len((tmp_path / "run" / "test.en").read_text(encoding="utf-8").splitlines()) == 400
