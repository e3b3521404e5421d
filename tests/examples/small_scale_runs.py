"""Working folders of the small-scale reproduction as its programs leave them, with made-up translations."""

import random
import zlib
from pathlib import Path

from examples.ctc_nat_small_scale import runs_read, score
from examples.ctc_nat_small_scale.commands import PAIRS
from examples.ctc_nat_small_scale.grid import Expected

TEXT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "data"
LINES = 80
WRONG = {"at": 0.3, "random": 0.65, "pmlm": 0.35, "duplication": 0.5, "distill": 0.33}
"""Share of words that a row's made-up translations get wrong."""
VALID = (
    "2026-01-01 00:00:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss {loss} | infeasible_pct 2.5 | "
    "bleu {bleu} | num_updates {updates}\n"
)
TRAINED = "2026-01-01 00:00:00 | INFO | train | epoch 001 | loss 5 | num_updates 900 | train_wall 600 | wall 700\n"


def add_text(work: Path, pair: str, lines: int = LINES) -> None:
    """The first lines of the repository's sample become the test text."""
    folder = work / "data" / "corpora" / pair
    folder.mkdir(parents=True, exist_ok=True)
    for language in pair.split("-"):
        text = (TEXT / pair / f"test.{language}").read_text(encoding="utf-8").split("\n")[:lines]
        (folder / f"test.{language}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")


def references(work: Path, direction: str) -> list[str]:
    return runs_read.read_test(work, direction).reference


def damaged(lines: list[str], share: float, seed: str) -> list[str]:
    """Translations that lack so many words; the same sentence loses the same words first."""
    draw = random.Random(zlib.crc32(seed.encode()))
    keep = [[(word, draw.random()) for word in line.split()] for line in lines]
    return [" ".join(word for word, at in words if at >= share) for words in keep]


def add_run(work: Path, run: str, evaluation: str, hypotheses: list[str]) -> Path:
    """A finished training and one evaluation of it, scored by the example's own program."""
    direction = run.split("/")[1]
    language = direction.partition("-")[2]
    folder, log = work / run / evaluation, work / run / "logs" / "train.log"
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(exist_ok=True)
    curve = [VALID.format(loss=10 - i, bleu=4 * i, updates=300 * i) for i in (1, 2, 3)]
    log.write_text("".join(curve) + TRAINED, encoding="utf-8")
    (folder / f"hypotheses.{language}").write_text("".join(f"{line}\n" for line in hypotheses), encoding="utf-8")
    reference = work / "data" / "corpora" / PAIRS[direction] / f"test.{language}"
    options = ["--run", run, "--evaluation", evaluation, "--work", work, "--references", reference]
    assert score.main([str(option) for option in options]) == 0
    return folder / "scores.json"


def add_grid(work: Path, trainings: list[Expected], lines: int = LINES) -> None:
    """All of these trainings, with translations as good as ``WRONG`` says."""
    for one in trainings:
        add_text(work, PAIRS[one.direction], lines)
        for evaluation in one.evaluations:
            share = WRONG.get(one.row, 0.4) + (0.05 if evaluation in ("single", "last", "beam1") else 0)
            add_run(work, one.folder, evaluation, damaged(references(work, one.direction), share, f"{one.seed}"))


def speed_entry(system: str, low: float, high: float) -> dict:
    """An entry of the decoding benchmark's ``trained``."""
    speed = {"min": low, "median": (low + high) / 2, "max": high}
    return {"model": "m", "system": system, "batch": 32, "sentences_per_s": speed, "bleu": 20.0}
