"""The systems of the decoding benchmark by name, and one of them at work in a process of its own."""

import importlib.util
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmarks.decoding_models import (
    SIZES,
    Batch,
    ModelFiles,
    batches,
    random_model,
    random_sentences,
    save_checkpoint,
)
from scripts.benchmarks.decoding_ours import OnePass, Onnx, Way, load_fairseq
from scripts.benchmarks.decoding_peers import CTranslate2, FairseqTransformer, HuggingFace, write_ctranslate2_folder
from scripts.benchmarks.decoding_translator import FOLDER, write_export_folder
from scripts.benchmarks.steps import resident_mib

OURS_FAIRSEQ, OURS_ONNX = "ours, in fairseq", "ours, ONNX"
FAIRSEQ, CT2, HF = "fairseq", "CTranslate2", "Hugging Face"


@dataclass(frozen=True)
class System:
    """A row of the benchmark.

    Attributes:
        family: library that runs it; reading: the library that must be installed.
        only: the device that it is for; None: both.
    """

    family: str
    precision: str
    beam: int = 0
    compiled: bool = False
    cuda_graphs: bool = False
    only: str | None = None
    needs: str | None = None

    @property
    def ours(self) -> bool:
        """One pass."""
        return self.beam == 0


def _systems() -> Iterator[tuple[str, System]]:
    yield "ours_fp32", System(OURS_FAIRSEQ, "fp32")
    yield "ours_bf16", System(OURS_FAIRSEQ, "bf16")
    yield "ours_fp32_compiled", System(OURS_FAIRSEQ, "fp32", compiled=True)
    yield "ours_bf16_compiled", System(OURS_FAIRSEQ, "bf16", compiled=True)
    yield "ours_bf16_cuda_graphs", System(OURS_FAIRSEQ, "bf16", cuda_graphs=True, only="cuda")
    for precision in ("fp32", "int8"):
        yield f"ours_onnx_{precision}", System(OURS_ONNX, precision, needs="onnxruntime")
    for beam in (5, 1):
        yield f"fairseq_fp32_beam{beam}", System(FAIRSEQ, "fp32", beam)
        yield f"fairseq_bf16_beam{beam}", System(FAIRSEQ, "bf16", beam)
        yield f"fairseq_fp16_beam{beam}", System(FAIRSEQ, "fp16", beam, only="cuda")
        for precision in ("fp32", "int8", "fp16", "int8_fp16"):
            device = "cuda" if "fp16" in precision else None
            yield f"ctranslate2_{precision}_beam{beam}", System(CT2, precision, beam, only=device, needs="ctranslate2")
        for precision in ("fp32", "fp16"):
            device = "cuda" if precision == "fp16" else None
            name = f"huggingface_{precision}_beam{beam}"
            yield name, System(HF, precision, beam, only=device, needs="transformers")


SYSTEMS: dict[str, System] = dict(_systems())
QUICK = {
    "cpu": ["ours_onnx_int8", "fairseq_fp32_beam5", "fairseq_fp32_beam1", "ctranslate2_int8_beam1"],
    "cuda": ["ours_bf16_cuda_graphs", "fairseq_fp32_beam5", "fairseq_fp32_beam1", "ctranslate2_int8_beam1"],
}
OF_RANDOM_WEIGHTS_ONLY = {HF}
"""Its weights are its own: there is no trained model to compare by BLEU."""


def missing(name: str, device: str) -> str | None:
    """Why a system cannot run here; None if it can."""
    system = SYSTEMS[name]
    if system.only not in (None, device):
        return f"runs on {system.only} only"
    if system.needs is not None and importlib.util.find_spec(system.needs) is None:
        return f"missing: {system.needs} is not installed"
    if system.family == OURS_ONNX:
        if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxscript") is None:
            return "missing: onnx and onnxscript, which write the file, are not installed"
        if device == "cuda" and not _onnx_on_cuda():
            return "missing: this onnxruntime has no CUDAExecutionProvider"
    if device == "cuda" and system.family == CT2 and not _ctranslate2_on_cuda():
        return "missing: this ctranslate2 sees no CUDA device"
    return None


def _onnx_on_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _ctranslate2_on_cuda() -> bool:
    import ctranslate2

    return bool(ctranslate2.get_cuda_device_count() > 0)


@dataclass(frozen=True)
class Models:
    """What a pair of systems' processes load.

    Attributes:
        folder: where converted models stand: ``export/`` and ``ctranslate2/``.
        ours, theirs: fairseq checkpoints; size: the name of the random models' size, None for trained ones.
        pmlm: folder with the trained models' tokenizer.
    """

    folder: str
    ours: ModelFiles | None
    theirs: ModelFiles | None
    size: str | None
    pmlm: str | None = None


@dataclass(frozen=True)
class Workload:
    """What is to be translated in one turn.

    Attributes:
        sentences: ``even`` or ``ragged`` random ones, or ``text``, which ``rows`` then holds.
        batch: sentences a batch; count: sentences in all (0: only the first batch, to warm up).
    """

    sentences: str
    batch: int
    count: int
    rows: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    def batches(self, size: str | None) -> list[Batch]:
        """The batches; lengths are forced where the weights are random."""
        if self.rows:
            return batches([list(row) for row in self.rows], self.batch, forced=False)
        assert size is not None
        return batches(random_sentences(SIZES[size], self.sentences, self.count), self.batch, forced=True)


@dataclass(frozen=True)
class Turn:
    """What a turn gave.

    Attributes:
        seconds: of each batch; resident_mib: the process's peak size.
        extra_mib: that less its size when the models were loaded; None on a GPU, where torch's allocator is asked, and
            NaN for the libraries with an allocator of their own there.
        tokens: the translations; problem: what is wrong with their number or length.
        threads: that it chose, if it chose.
    """

    seconds: list[float]
    resident_mib: float
    extra_mib: float | None
    tokens: list[list[int]] = field(repr=False)
    problem: str | None = None
    threads: int | None = None

    def __repr__(self) -> str:
        return f"{statistics.median(self.seconds):.4f} s a batch"


def make_side(models: Models, side: str, names: Sequence[str]) -> tuple[int, dict[str, str]]:
    """What the systems of a side read: the checkpoint, if its weights are random, and what is converted from it.

    Returns:
        ``(parameters of a random model, {family: why the conversion failed})``
    """
    logging.disable(logging.INFO)
    files = models.ours if side == "ours" else models.theirs
    assert files is not None
    families = {SYSTEMS[name].family for name in names}
    parameters, failed, loaded = 0, {}, None
    if models.size is not None:
        cfg, task, model = random_model(SIZES[models.size], side, Path(models.folder))
        parameters, loaded = sum(parameter.numel() for parameter in model.parameters()), (model, task)
        if families - {OURS_ONNX, HF}:
            save_checkpoint(cfg, model, files.checkpoint)
    precisions = sorted({SYSTEMS[name].precision for name in names if SYSTEMS[name].family == OURS_ONNX})
    converters: dict[str, Callable[[], None]] = {
        OURS_ONNX: lambda: write_export_folder(
            *(loaded or load_fairseq(files)), Path(models.folder) / FOLDER, precisions, models.pmlm
        ),
        CT2: lambda: write_ctranslate2_folder(files, Path(models.folder) / "ctranslate2"),
    }
    for family in families & converters.keys():
        try:
            converters[family]()
        except Exception as error:
            failed[family] = f"conversion failed: {type(error).__name__}: {error}"
    return parameters, failed


def load(name: str, models: Models, threads: int, device: str) -> Any:
    """The system, ready: it has ``prepare``, ``translate`` and ``token_ids``."""
    system, folder = SYSTEMS[name], Path(models.folder)
    way = Way(system.precision, threads, device, system.beam, system.compiled, system.cuda_graphs)
    if system.family == OURS_FAIRSEQ:
        assert models.ours is not None
        return OnePass(models.ours, way)
    if system.family == OURS_ONNX:
        return Onnx(folder / FOLDER, way)
    if system.family == HF:
        assert models.size is not None
        return HuggingFace(SIZES[models.size], way)
    assert models.theirs is not None
    if system.family == CT2:
        return CTranslate2(folder / "ctranslate2", models.theirs, way)
    return FairseqTransformer(models.theirs, way)


class DecodingSteps:
    """A system at work; a step translates a workload, batch after batch, and times each one."""

    def __init__(self, name: str, models: Models, threads: int, device: str) -> None:
        logging.disable(logging.INFO)
        self.size = models.size
        self.left_to_right = not SYSTEMS[name].ours
        self.system = load(name, models, threads, device)
        self.own_allocator = SYSTEMS[name].family in (CT2, OURS_ONNX)
        self.device = device
        self.loaded_mib = resident_mib("VmRSS")
        self.prepared: dict[Workload, list[tuple[Batch, Any]]] = {}

    def reset(self) -> None:
        """Nothing is kept."""

    def step(self, workload: Workload, warm_up: bool) -> Turn:
        """Translate; ``warm_up`` means one batch of each shape. At batch 1 an extra sentence goes ahead, untimed."""
        if workload not in self.prepared:
            made = workload.batches(self.size)
            self.prepared[workload] = [(batch, self.system.prepare(batch)) for batch in made]
        work = self.prepared[workload]
        if warm_up:
            work = list({(len(batch.rows), max(map(len, batch.rows))): (batch, made) for batch, made in work}.values())
        if isinstance(self.system, CTranslate2):
            self.system.choose(workload.batch, work[0][1])
        if workload.batch == 1:
            self.system.translate(work[0][1])
        seconds, results = [], []
        for _, prepared in work:
            started = time.perf_counter()
            results.append(self.system.translate(prepared))
            seconds.append(time.perf_counter() - started)
        peak = resident_mib("VmHWM")
        tokens = [row for result in results for row in self.system.token_ids(result)]
        extra = peak - self.loaded_mib if self.device == "cpu" else (math.nan if self.own_allocator else None)
        threads = self.system.threads if isinstance(self.system, CTranslate2) else None
        return Turn(seconds, peak, extra, tokens, self._problem([batch for batch, _ in work], tokens), threads)

    def _problem(self, work: list[Batch], tokens: list[list[int]]) -> str | None:
        """Where a length was forced: what is wrong with the lengths."""
        wanted = [batch.target_length for batch in work for _ in batch.rows]
        if len(tokens) != len(wanted):
            return f"{len(wanted)} sentences in, {len(tokens)} out"
        pairs = zip(tokens, wanted, strict=True)
        wrong = [(len(row), n) for row, n in pairs if n is not None and self.left_to_right and len(row) != n]
        return f"{len(wrong)} lengths are wrong; the first is {wrong[0][0]}, not {wrong[0][1]}" if wrong else None
