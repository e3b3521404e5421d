"""``nat export``: a checkpoint as an export folder, checked on sentences before it gets its name."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nat_plugin.export import checks
from nat_plugin.export.checkpoint import Exportable
from nat_plugin.export.evaluation_set import EvaluationSet
from nat_plugin.export.folder import (
    CARD_FILE,
    MODEL_FILES,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    Settings,
    metadata_of,
    recorded_files,
    write_settings,
)
from nat_plugin.export.model_card import model_card
from nat_plugin.export.onnx_graph import OPSET, quantize, write_onnx
from nat_plugin.export.translator import Translator
from plugin_common.errors import UserError
from plugin_common.whole_folder import whole_folder

LITTLE = 2**20
"""Bytes: with less left on the disk, a failure to write is put down to that."""

VERSIONS = ("fairseq-onepass", "torch", "transformers", "onnx", "onnxruntime", "tokenizers")


def check_output(path: str, *, overwrite: bool) -> None:
    """Refuse an output that would destroy something.

    Raises:
        UserError: a file; or a folder with files, unless it is an export folder and ``overwrite`` is set.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {path}: is a file; give a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise UserError(f"--output {path}: exists and is not empty; give another folder, or add --overwrite")
        if not recorded_files(folder):
            raise UserError(f"--output {path}: --overwrite replaces export folders only, and this is none")


@contextmanager
def export_folder(path: str, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write an export into, see :func:`plugin_common.whole_folder.whole_folder`; of an earlier export's
    files in ``path`` none is left.

    Raises:
        UserError: see :func:`check_output`; or the disk is full.
    """
    check_output(path, overwrite=overwrite)
    replaces = recorded_files if overwrite else None
    with whole_folder(path, marker=SETTINGS_FILE, replaces=replaces) as folder:
        try:
            yield folder
        except UserError:
            raise
        except Exception as error:
            if not _is_full(error, folder):
                raise
            raise _full(path, folder) from error


def _is_full(error: Exception, folder: Path) -> bool:
    """Libraries tell a full disk in many ways, or only leave half a file."""
    told = "no space left" in str(error).lower() or "os error 28" in str(error).lower()
    return told or shutil.disk_usage(folder).free < LITTLE


def _full(path: str, folder: Path, needed: int | None = None) -> UserError:
    free = shutil.disk_usage(folder).free / 1e6
    wanted = "" if needed is None else f", about {needed / 1e6:,.0f} MB are needed while it is made"
    return UserError(f"--output {path}: the disk is full ({free:,.0f} MB are free{wanted}); make room, or give another")


def check_room(path: str, folder: Path, parameters: int, *, int8: bool) -> None:
    """Refuse to start on a disk without room for the models, and for what quantising writes on the way.

    Raises:
        UserError: with the need and what is free.
    """
    needed = parameters * (4 + 10 * int8)
    if shutil.disk_usage(folder).free < needed:
        raise _full(path, folder, needed)


def write_export(
    exportable: Exportable,
    folder: Path,
    data: EvaluationSet,
    *,
    precisions: Sequence[str],
    reduce_range: bool,
    about: str | None,
    tell: Callable[[str], object],
) -> list[str]:
    """Write all files of an export and check the models on sentences.

    Args:
        folder: empty.
        about: the user's text for the model card.
        tell: is given each line of the report.

    Returns:
        Warnings.

    Raises:
        UserError: the float32 model does not translate as fairseq does.
    """
    settings = exportable.settings()
    write_models(exportable.model, folder, settings, precisions, reduce_range=reduce_range)
    shutil.copyfile(exportable.tokenizer_folder / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    write_settings(folder, settings, {})
    for precision in precisions:
        tell(f"{precision}: {MODEL_FILES[precision]}, {_megabytes(folder, precision):.1f} MB")
    tell(f"check on {len(data.sources):,} sentences ({data.name})")
    outcomes = _check(exportable, folder, data, precisions)
    for outcome in outcomes:
        tell(outcome.line())
    signature = next((outcome.signature for outcome in outcomes if outcome.signature), None)
    if signature:
        tell(f"BLEU's signature: {signature}")
    warnings = checks.warnings_of(outcomes)
    if "fp32" not in precisions:
        for file in folder.glob(f"{MODEL_FILES['fp32']}*"):
            file.unlink()
    facts = _facts(exportable)
    files = sorted(file for file in folder.iterdir() if file.name != SETTINGS_FILE)
    card = model_card(settings, facts, outcomes, f"{len(data.sources):,} sentences ({data.name})", files, about)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    scores = [outcome.as_dict() for outcome in outcomes]
    write_settings(folder, settings, {**facts, "evaluated_on": data.name, "scores": scores})
    return warnings


def _check(
    exportable: Exportable, folder: Path, data: EvaluationSet, precisions: Sequence[str]
) -> list[checks.Outcome]:
    """The float32 model is always compared, also where it is not wanted: the other is made of it."""
    expected = checks.fairseq_tokens(exportable.model, exportable.task, data.sources)
    translators = [Translator(folder, precision=precision) for precision in dict.fromkeys(["fp32", *precisions])]
    return checks.compare(data, expected, translators, exportable.tokenizer, exportable.dictionary.symbols)


def write_models(
    model: Any, folder: Path, settings: Settings, precisions: Sequence[str], *, reduce_range: bool = False
) -> None:
    """The ONNX files of a ``CtcPmlmModel``; the float32 one in any case."""
    full = folder / MODEL_FILES["fp32"]
    write_onnx(model, full, metadata_of(settings))
    if "int8" in precisions:
        quantize(full, folder / MODEL_FILES["int8"], reduce_range=reduce_range)


def _megabytes(folder: Path, precision: str) -> float:
    name = MODEL_FILES[precision]
    return sum(file.stat().st_size for file in folder.glob(f"{name}*")) / 1e6


def _facts(exportable: Exportable) -> dict[str, Any]:
    masked_lm = exportable.model.masked_lm
    return {
        "checkpoint": exportable.checkpoint.name,
        "updates": exportable.updates,
        "model_type": masked_lm.config.model_type,
        "parameters": sum(parameter.numel() for parameter in masked_lm.parameters()),
        "opset": OPSET,
        "versions": {name: version(name) for name in VERSIONS},
    }
