"""``nat export``: a checkpoint as an export folder, checked on sentences before it gets its name."""

import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nat_plugin.export import checks
from nat_plugin.export.checkpoint import Exportable
from nat_plugin.export.evaluation_set import EvaluationSet
from nat_plugin.export.folder import CARD_FILE, MODEL_FILES, SETTINGS_FILE, TOKENIZER_FILE, write_settings
from nat_plugin.export.model_card import model_card
from nat_plugin.export.onnx_graph import OPSET, quantize, write_onnx
from nat_plugin.export.translator import Translator
from plugin_common.errors import UserError
from plugin_common.whole_folder import whole_folder

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
        if not (folder / SETTINGS_FILE).is_file():
            raise UserError(f"--output {path}: --overwrite replaces export folders only, and this is none")


def write_export(
    exportable: Exportable,
    output: str,
    data: EvaluationSet,
    *,
    precisions: Sequence[str],
    reduce_range: bool,
    about: str | None,
    updates: int | None,
    tell: Callable[[str], object],
) -> list[str]:
    """Write the folder in one step: either it is there complete, or it is not there.

    Args:
        updates: of the checkpoint, for the model card; about: the user's text for it.
        tell: is given each line of the report.

    Returns:
        Warnings.
    """
    settings = exportable.settings()
    with whole_folder(output) as folder:
        write_models(exportable.model, folder, precisions, reduce_range=reduce_range)
        shutil.copyfile(exportable.tokenizer_folder / TOKENIZER_FILE, folder / TOKENIZER_FILE)
        write_settings(folder, settings, {})
        for precision in precisions:
            tell(f"{precision}: {MODEL_FILES[precision]}, {_megabytes(folder, precision):.1f} MB")
        tell(f"check on {len(data.sources):,} sentences ({data.name})")
        expected = checks.fairseq_tokens(exportable.model, exportable.task, data.sources)
        translators = [Translator(folder, precision=precision) for precision in precisions]
        outcomes = checks.compare(data, expected, translators, exportable.tokenizer, exportable.dictionary.symbols)
        del translators
        for outcome in outcomes:
            tell(outcome.line())
        signature = next((outcome.signature for outcome in outcomes if outcome.signature), None)
        if signature:
            tell(f"BLEU's signature: {signature}")
        facts = _facts(exportable, updates)
        files = sorted(file for file in folder.iterdir() if file.name != SETTINGS_FILE)
        card = model_card(settings, facts, outcomes, f"{len(data.sources):,} sentences ({data.name})", files, about)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        scores = [outcome.as_dict() for outcome in outcomes]
        write_settings(folder, settings, {**facts, "evaluated_on": data.name, "scores": scores})
    return checks.warnings_of(outcomes)


def write_models(model: Any, folder: Path, precisions: Sequence[str], *, reduce_range: bool = False) -> None:
    """The ONNX files of a ``CtcPmlmModel``."""
    full = folder / MODEL_FILES["fp32"]
    write_onnx(model, full)
    if "int8" in precisions:
        quantize(full, folder / MODEL_FILES["int8"], reduce_range=reduce_range)
    if "fp32" not in precisions:
        for file in (full, full.with_name(f"{full.name}.data")):
            file.unlink(missing_ok=True)


def _megabytes(folder: Path, precision: str) -> float:
    name = MODEL_FILES[precision]
    return sum(file.stat().st_size for file in folder.glob(f"{name}*")) / 1e6


def _facts(exportable: Exportable, updates: int | None) -> dict[str, Any]:
    masked_lm = exportable.model.masked_lm
    return {
        "checkpoint": exportable.checkpoint.name,
        "updates": updates,
        "model_type": masked_lm.config.model_type,
        "parameters": sum(parameter.numel() for parameter in masked_lm.parameters()),
        "opset": OPSET,
        "versions": {name: version(name) for name in VERSIONS},
    }
