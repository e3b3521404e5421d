"""The left-to-right translators of the decoding benchmark: fairseq, CTranslate2 and Hugging Face.

Where a length is forced, each makes as many steps as the target has tokens: fairseq's last one gives ``</s>``, the
others give none.
"""

import functools
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from scripts.benchmarks.decoding_models import Batch, ModelFiles, Size
from scripts.benchmarks.decoding_ours import DTYPES, Prepared, Way, load_fairseq, on_device

FAIRSEQ_MAX_LENGTH = 200
"""Tokens of a translation at most, by default (``--max-len-b``); CTranslate2's own default is 256."""


class FairseqTransformer:
    """fairseq's Transformer and its ``SequenceGenerator``, as fairseq-generate calls them."""

    def __init__(self, files: ModelFiles, way: Way) -> None:
        import torch

        self.model, self.task = load_fairseq(files)
        self.model.to(way.device, getattr(torch, DTYPES[way.precision]))
        self.device, self.beam = way.device, way.beam
        self.model.prepare_for_inference_(Namespace(generation=self._generation(None)))
        self.generator = functools.cache(
            lambda length: self.task.build_generator([self.model], self._generation(length))
        )

    def _generation(self, length: int | None) -> Any:
        from fairseq.dataclass.configs import GenerationConfig

        if length is None:
            return GenerationConfig(beam=self.beam)
        return GenerationConfig(beam=self.beam, min_len=length - 1, max_len_a=0, max_len_b=length - 1)

    def prepare(self, batch: Batch) -> Prepared:
        """fairseq's sample of the batch."""
        return Prepared(self.task, batch)

    def translate(self, prepared: Prepared) -> list[list[int]]:
        """Token ids, ``</s>`` included."""
        sample = on_device(prepared.sample, self.device)
        hypotheses = self.task.inference_step(self.generator(prepared.target_length), [self.model], sample)
        return prepared.in_order([best[0]["tokens"].tolist() for best in hypotheses])

    def token_ids(self, translated: list[list[int]]) -> list[list[int]]:
        """With ``</s>``: a step makes it."""
        return translated


def write_ctranslate2_folder(files: ModelFiles, folder: Path) -> None:
    """The fairseq checkpoint converted to ``folder``; its numbers are rounded to int8 when it is loaded."""
    from plugin_common import compat

    compat.apply()
    from ctranslate2.converters import FairseqConverter

    converter = FairseqConverter(
        files.checkpoint, files.data, source_lang=files.source_lang, target_lang=files.target_lang
    )
    converter.convert(str(folder), force=True)


class CTranslate2:
    """CTranslate2 on the converted checkpoint, one batch at a time.

    On some machines its threads cost more than they give at small batches: for each batch size it runs with one thread
    or with all, whichever is faster.
    """

    def __init__(self, folder: Path, files: ModelFiles, way: Way) -> None:
        from plugin_common import compat

        compat.apply()
        from fairseq.data import Dictionary

        kinds = {"fp32": "float32", "int8": "int8_float32", "fp16": "float16", "int8_fp16": "int8_float16"}
        self._folder, self._device, self._kind = str(folder), way.device, kinds[way.precision]
        self._choices = sorted({1, way.threads}) if way.device == "cpu" else [way.threads]
        self._take(way.threads)
        if self.translator.compute_type != self._kind:
            raise RuntimeError(f"CTranslate2 runs {self.translator.compute_type} here, not {self._kind}")
        self.threads_by_batch: dict[int, int] = {}
        self.words = Dictionary.load(str(Path(files.data) / f"dict.{files.target_lang}.txt"))
        self.beam = way.beam

    def _take(self, threads: int) -> None:
        import ctranslate2

        self.threads = threads
        self.translator = ctranslate2.Translator(
            self._folder, device=self._device, compute_type=self._kind, inter_threads=1, intra_threads=threads
        )

    def prepare(self, batch: Batch) -> tuple[list[list[str]], dict[str, int]]:
        """Pieces, and the options of the call."""
        length = batch.target_length
        limits = (1, FAIRSEQ_MAX_LENGTH) if length is None else (length, length)
        forced = dict(zip(("min_decoding_length", "max_decoding_length"), limits, strict=True))
        return [[self.words[index] for index in row] for row in batch.rows], forced

    def choose(self, sentences: int, prepared: tuple[list[list[str]], dict[str, int]]) -> None:
        """Take the faster number of threads for batches of so many sentences; found when it is first asked."""
        if sentences not in self.threads_by_batch:
            seconds = {threads: self._seconds(threads, prepared) for threads in self._choices}
            self.threads_by_batch[sentences] = min(seconds, key=lambda threads: seconds[threads])
        if self.threads != self.threads_by_batch[sentences]:
            self._take(self.threads_by_batch[sentences])

    def _seconds(self, threads: int, prepared: tuple[list[list[str]], dict[str, int]]) -> float:
        """Of the quicker of two runs, after one to warm up."""
        if self.threads != threads:
            self._take(threads)
        self.translate(prepared)
        found = []
        for _ in range(2):
            started = time.perf_counter()
            self.translate(prepared)
            found.append(time.perf_counter() - started)
        return min(found)

    def translate(self, prepared: tuple[list[list[str]], dict[str, int]]) -> list[list[str]]:
        """Pieces."""
        pieces, forced = prepared
        results = self.translator.translate_batch(
            pieces, beam_size=self.beam, max_batch_size=len(pieces), batch_type="examples", **forced
        )
        return [result.hypotheses[0] for result in results]

    def token_ids(self, translated: list[list[str]]) -> list[list[int]]:
        """From pieces to ids, for comparison."""
        return [[self.words.index(piece) for piece in row] for row in translated]


class HuggingFace:
    """``generate`` of a Marian model of the same shape, with weights of its own."""

    def __init__(self, size: Size, way: Way) -> None:
        import torch

        from plugin_common.compat import hide_broken_torchaudio

        hide_broken_torchaudio()
        from transformers import MarianConfig, MarianMTModel

        shape = size.theirs
        config = MarianConfig(
            vocab_size=size.labels,
            decoder_vocab_size=size.labels,
            d_model=shape.width,
            encoder_layers=shape.encoder_layers,
            decoder_layers=shape.decoder_layers,
            encoder_ffn_dim=4 * shape.width,
            decoder_ffn_dim=4 * shape.width,
            encoder_attention_heads=shape.heads,
            decoder_attention_heads=shape.heads,
            activation_function="relu",
            scale_embedding=True,
            share_encoder_decoder_embeddings=True,
            max_position_embeddings=1024,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
        )
        torch.manual_seed(0)
        self.model = MarianMTModel(config).eval().to(way.device, getattr(torch, DTYPES[way.precision]))
        self.pad, self.eos, self.beam, self.device = 1, 2, way.beam, way.device

    def prepare(self, batch: Batch) -> tuple[Any, Any, dict[str, int | None]]:
        """Ids, the mask of the real ones, and the options of the call."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows = [torch.tensor([*row, self.eos]) for row in batch.rows]
        tokens = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        length = batch.target_length
        return tokens, tokens.ne(self.pad).long(), {"min_new_tokens": length, "max_new_tokens": length}

    def translate(self, prepared: tuple[Any, Any, dict[str, int | None]]) -> list[list[int]]:
        """Token ids after the symbol that starts a translation."""
        import torch

        tokens, mask, forced = prepared
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=tokens.to(self.device),
                attention_mask=mask.to(self.device),
                num_beams=self.beam,
                do_sample=False,
                **forced,
            )
        return made[:, 1:].tolist()

    def token_ids(self, translated: list[list[int]]) -> list[list[int]]:
        """As they are."""
        return translated
