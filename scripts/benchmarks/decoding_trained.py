"""Trained models in the decoding benchmark: speed on real text, and BLEU.

The specification is a JSON file; paths are relative to it::

    {"data": "data-bin", "source_lang": "de", "target_lang": "en", "subset": "test",
     "pmlm": "pmlm", "reference": "test.en", "sentences": 500,
     "one_pass": {"quickstart": "model.pt"}, "left_to_right": {"Transformer": "baseline/model.pt"}}

``pmlm`` is the folder whose tokenizer made the pieces, ``reference`` plain text, a line a sentence of the subset;
``sentences`` takes the first so many (default: all). All models share the data-bin's dictionary.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError, raise_all
from plugin_common.text_lines import read_lines
from scripts.benchmarks.decoding_models import ModelFiles
from scripts.benchmarks.decoding_report import per_sentence
from scripts.benchmarks.decoding_run import measure, started
from scripts.benchmarks.decoding_systems import OF_RANDOM_WEIGHTS_ONLY, SYSTEMS, Models, Workload
from scripts.benchmarks.measure import row

BATCH = 32
NEEDED = ("data", "source_lang", "target_lang", "subset", "pmlm", "reference")


@dataclass(frozen=True)
class Spec:
    """What the specification says, with paths made absolute; ``models`` are ``(name, is one-pass, files)``."""

    data: str
    source_lang: str
    target_lang: str
    subset: str
    pmlm: str
    reference: str
    sentences: int | None
    models: list[tuple[str, bool, ModelFiles]]


def read_spec(path: str) -> Spec:
    """Read and check a specification.

    Raises:
        UserError: no JSON object, a missing entry, or a file that is not there; all of them at once.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--trained {path}: not a JSON file that can be read ({error})") from error
    if not isinstance(told, dict):
        raise UserError(f"--trained {path}: expected an object with the entries {', '.join(NEEDED)}")
    raise_all(
        f"--trained {path}: the entry {name} is missing" for name in NEEDED if not isinstance(told.get(name), str)
    )
    beside = Path(path).resolve().parent
    paths = {name: str(beside / told[name]) for name in ("data", "pmlm", "reference")}
    models = [
        (name, one_pass, ModelFiles(str(beside / file), paths["data"], told["source_lang"], told["target_lang"]))
        for kind, one_pass in (("one_pass", True), ("left_to_right", False))
        for name, file in told.get(kind, {}).items()
    ]
    if not models:
        raise UserError(f"--trained {path}: names no model; give checkpoints under one_pass and left_to_right")
    files = [*paths.values(), *(model.checkpoint for *_, model in models)]
    raise_all(f"--trained {path}: {file}: no such file or folder" for file in files if not Path(file).exists())
    rest = {name: told[name] for name in ("source_lang", "target_lang", "subset")}
    return Spec(**paths, **rest, sentences=told.get("sentences"), models=models)


def read_text(spec: Spec) -> tuple[list[tuple[int, ...]], list[str], Any]:
    """``(source ids without </s>, references, dictionary)``, shortest first: batches then keep the order."""
    import nat_plugin

    nat_plugin.register()
    from fairseq.data import Dictionary, data_utils

    words = Dictionary.load(str(Path(spec.data) / f"dict.{spec.target_lang}.txt"))
    pairs = (f"{spec.source_lang}-{spec.target_lang}", f"{spec.target_lang}-{spec.source_lang}")  # either serves both
    prefixes = [Path(spec.data) / f"{spec.subset}.{pair}.{spec.source_lang}" for pair in pairs]
    prefix = next((path for path in prefixes if Path(f"{path}.idx").exists()), prefixes[0])
    dataset = data_utils.load_indexed_dataset(str(prefix), words)
    if dataset is None:
        raise UserError(f"--trained: {prefix}.idx: no such file; fairseq-preprocess makes it, or check subset")
    sources = [tuple(row[row != words.eos()].tolist()) for row in dataset]
    references = list(read_lines(spec.reference, "space"))
    if len(sources) != len(references):
        raise UserError(f"{spec.reference}: {len(references)} lines, but {spec.subset} has {len(sources)} sentences")
    kept = sorted(range(len(sources))[: spec.sentences], key=lambda index: len(sources[index]))
    return [sources[index] for index in kept], [references[index] for index in kept], words


def measure_trained(spec: Spec, args: argparse.Namespace) -> list[dict[str, Any]]:
    """For each model and system: sentences a second (min, median, max) on real text, BLEU and its signature."""
    from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer

    rows, references, words = read_text(spec)
    detokenizer = PieceTokenizer.from_folder(spec.pmlm)
    workload = Workload("text", BATCH, len(rows), tuple(rows))
    found: list[dict[str, Any]] = []
    for name, one_pass, files in spec.models:
        systems = [
            system
            for system in args.systems
            if SYSTEMS[system].ours == one_pass and SYSTEMS[system].family not in OF_RANDOM_WEIGHTS_ONLY
        ]
        with tempfile.TemporaryDirectory(prefix="decoding-") as folder:
            models = Models(folder, files if one_pass else None, None if one_pass else files, None, spec.pmlm)
            with started(models, systems, threads=args.threads, device=args.device) as run:
                results = measure(run, workload, systems, args.repeats)
            found += [{"model": name, "system": system, "left_out": why} for system, why in run.left_out.items()]
        for system, steps in results.items():
            text = [detokenizer.decode(words.string(row)) for row in tensors(steps[0].value.tokens)]
            bleu, signature = score(text, references)
            speed = row([1 / seconds for seconds in per_sentence(steps)])
            found.append({"model": name, "system": system, "batch": BATCH, "sentences": len(rows)}
                         | {"sentences_per_s": speed, "bleu": bleu, "signature": signature})  # fmt: skip
            print(f"{name:20} {system:32} {speed['median']:9.1f} sentences/s  BLEU {bleu:.2f}")
    return found


def tensors(rows: Sequence[list[int]]) -> list[Any]:
    """What fairseq's dictionary makes text of."""
    import torch

    return [torch.tensor(row, dtype=torch.int32) for row in rows]


def score(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """sacreBLEU and its signature."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    return metric.corpus_score(list(hypotheses), [list(references)]).score, str(metric.get_signature())
