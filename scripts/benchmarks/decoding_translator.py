"""The stand-alone translator in the decoding benchmark: its export folder, and what it adds to the model's own time."""

import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.decoding_models import SIZES
from scripts.benchmarks.measure import row
from scripts.benchmarks.steps import Step, StepProcess

FOLDER = "export"
LINES = 32
TEXT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "data" / "en-de" / "test.en"


def text_lines(words: int, count: int = LINES) -> list[str]:
    """Lines of so many English words each, those of the quickstart's test set."""
    every = TEXT.read_text(encoding="utf-8").split()
    return [" ".join(every[start : start + words]) for start in range(0, words * count, words)]


def tokenizer_json(labels: int) -> str:
    """A tokenizer of ``labels`` symbols: the characters and frequent words of the text, and words that never occur."""
    from nat_plugin.pmlm.from_scratch import tokenizer_content
    from nat_plugin.pmlm.prune_tokenizer import RENAMED

    text = TEXT.read_text(encoding="utf-8")
    characters = sorted({*text, "\N{LOWER ONE EIGHTH BLOCK}", *"".join(RENAMED)} - {" ", "\n"})
    words = [f"\N{LOWER ONE EIGHTH BLOCK}{word}" for word, _ in Counter(text.split()).most_common()]
    fillers = (f"\N{LOWER ONE EIGHTH BLOCK}w{number}" for number in range(labels))
    pieces = list(dict.fromkeys([*characters, *words, *fillers]))[: labels - len(RENAMED)]
    return json.dumps(tokenizer_content([(piece, -12.0 if len(piece) == 1 else -9.0) for piece in pieces]))


def write_export_folder(model: Any, task: Any, folder: Path, precisions: Sequence[str], pmlm: str | None) -> None:
    """The folder that ``nat export`` makes, without checks and card; without ``pmlm``, the tokenizer is made here."""
    from nat_plugin.export.checkpoint import Exportable
    from nat_plugin.export.folder import TOKENIZER_FILE, write_settings
    from nat_plugin.export.onnx_folder import write_models
    from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer

    folder.mkdir()
    if pmlm is None:
        (folder / TOKENIZER_FILE).write_text(tokenizer_json(len(task.target_dictionary)), encoding="utf-8")
    else:
        shutil.copyfile(Path(pmlm) / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    settings = Exportable(folder, model, task, PieceTokenizer.from_folder(folder), folder).settings()
    write_models(model.float(), folder, settings, precisions)
    write_settings(folder, settings, {})


@dataclass(frozen=True)
class Shares:
    """Seconds for a batch of lines: inside the model, and in all."""

    model: float
    whole: float


class TranslatorSteps:
    """Translates lines of text with :class:`nat_plugin.export.Translator` and takes the model's time within."""

    def __init__(self, folder: str, precision: str, threads: int, lines: list[str]) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # of the tokenizers library
        from nat_plugin.export.translator import Translator

        logging.disable(logging.INFO)
        self.lines = lines
        self.translator = Translator(folder, precision=precision, threads=threads)
        self.model: Any = self.translator._model
        self.translator._model = self  # type: ignore[assignment]
        self.seconds = 0.0
        self.translator.translate(lines)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The model, timed."""
        started = time.perf_counter()
        labels = self.model(*arguments, **options)
        self.seconds += time.perf_counter() - started
        return labels

    def reset(self) -> None:
        """Nothing is kept."""

    def step(self) -> Shares:
        """The median of five batches, by the time that the translator adds."""
        taken = []
        for _ in range(5):
            self.seconds = 0.0
            started = time.perf_counter()
            translations = self.translator.translate(self.lines)
            taken.append(Shares(self.seconds, time.perf_counter() - started))
            if len(translations) != len(self.lines):
                raise RuntimeError(f"{len(self.lines)} lines in, {len(translations)} out")
        return sorted(taken, key=lambda shares: shares.whole - shares.model)[2]


def measure_translator(
    size: str, folder: Path, precisions: list[str], *, threads: int, repeats: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """``(rows, ratios)``: milliseconds a line inside the model and in all, and whole ÷ model."""
    rows: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    lines = text_lines(SIZES[size].tokens)
    for precision in precisions:
        arguments = (str(folder / FOLDER), precision, threads, lines)
        with StepProcess(TranslatorSteps, *arguments, threads=threads) as process:
            turns: list[Step] = [process() for _ in range(repeats)]
        name = f"{size}/text/batch{LINES}/translator_{precision}"
        for part in ("model", "whole"):
            rows[f"{name}/{part}_ms_per_line"] = row([1000 * getattr(t.value, part) / LINES for t in turns])
        ratios[f"{size}/translator_{precision}_over_model"] = row([t.value.whole / t.value.model for t in turns])[
            "median"
        ]
    return rows, ratios
