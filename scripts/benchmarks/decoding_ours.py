"""The one-pass translators of the decoding benchmark: through fairseq's generator, and as ONNX."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks.decoding_models import Batch, ModelFiles

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Way:
    """How a translator runs: precision of its numbers, beam (0: one pass), threads on the CPU, device."""

    precision: str
    threads: int
    device: str = "cpu"
    beam: int = 0
    compiled: bool = False
    cuda_graphs: bool = False


class Prepared:
    """A fairseq sample and which sentence of the batch each of its rows is (fairseq sorts by length)."""

    def __init__(self, task: Any, batch: Batch) -> None:
        import torch

        eos = task.source_dictionary.eos()
        rows = [torch.tensor([*row, eos]) for row in batch.rows]
        dataset = task.build_dataset_for_inference(rows, [len(row) for row in rows])
        self.sample = dataset.collater([dataset[index] for index in range(len(rows))])
        self.order = self.sample["id"].tolist()
        self.target_length = batch.target_length

    def in_order(self, rows: list[list[int]]) -> list[list[int]]:
        """Of the sample's rows, in the batch's order."""
        return [row for _, row in sorted(zip(self.order, rows, strict=True))]


def load_fairseq(files: ModelFiles) -> tuple[Any, Any]:
    """``(model, task)`` as fairseq-generate loads them."""
    import nat_plugin

    nat_plugin.register()
    from fairseq import checkpoint_utils

    overrides = {"data": files.data, "source_lang": files.source_lang, "target_lang": files.target_lang}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([files.checkpoint], arg_overrides=overrides)
    return models[0].eval(), task


class OnePass:
    """This project's model through ``task.build_generator`` and ``task.inference_step``, without scores."""

    def __init__(self, files: ModelFiles, way: Way) -> None:
        model, self.task = load_fairseq(files)
        self.model, self.generator = ready_to_decode(model, self.task, way)
        self.device = way.device

    def prepare(self, batch: Batch) -> Prepared:
        """fairseq's sample of the batch; the length of its translations is the model's affair."""
        return Prepared(self.task, batch)

    def translate(self, prepared: Prepared) -> list[list[int]]:
        """Token ids, ``</s>`` included."""
        sample = on_device(prepared.sample, self.device)
        hypotheses = self.task.inference_step(self.generator, [self.model], sample)
        return prepared.in_order([best[0]["tokens"].tolist() for best in hypotheses])

    def token_ids(self, translated: list[list[int]]) -> list[list[int]]:
        """Without ``</s>``."""
        return [row[:-1] for row in translated]


def ready_to_decode(model: Any, task: Any, way: Way) -> tuple[Any, Any]:
    """The model on its device, and the generator that decodes in the wanted way."""
    from fairseq.dataclass.configs import FairseqConfig

    if way.device == "cuda":
        model.cuda()
    task.cfg.no_scores = True
    task.cfg.decode_precision = way.precision
    task.cfg.compile_decoder = way.compiled
    task.cfg.cuda_graphs = way.cuda_graphs
    cfg = FairseqConfig()
    model.prepare_for_inference_(cfg)
    return model, task.build_generator([model], cfg.generation)


def on_device(sample: Any, device: str) -> Any:
    """The sample where the model is."""
    from fairseq import utils

    return utils.move_to_cuda(sample) if device == "cuda" else sample


class Onnx:
    """The exported model through :class:`nat_plugin.export.Translator`, from ids to ids."""

    def __init__(self, folder: Path, way: Way) -> None:
        from nat_plugin.export.session import CPU
        from nat_plugin.export.translator import Translator

        provider = CPU if way.device == "cpu" else "CUDAExecutionProvider"
        self.translator = Translator(folder, precision=way.precision, threads=way.threads, provider=provider)

    def prepare(self, batch: Batch) -> list[np.ndarray]:
        """Ids of each sentence."""
        return [np.array(row, dtype=np.int64) for row in batch.rows]

    def translate(self, prepared: list[np.ndarray]) -> list[list[int]]:
        """Token ids."""
        return [row.tolist() for row in self.translator.translate_ids(prepared)]

    def token_ids(self, translated: list[list[int]]) -> list[list[int]]:
        """As they are."""
        return translated
