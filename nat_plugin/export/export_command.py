"""``nat export``: a checkpoint as a folder that translates without torch and fairseq, or as a Hugging Face folder."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_common.errors import UserError, raise_all
from plugin_common.quiet_logging import warnings_only

if TYPE_CHECKING:
    from nat_plugin.export.checkpoint import Exportable
    from nat_plugin.export.evaluation_set import EvaluationSet

SUMMARY = "Export a checkpoint: ONNX in float32 and int8 with tokenizer and model card, or a Hugging Face folder."
EXAMPLE = "nat export checkpoint_best.pt --data data-bin --pmlm-tokenizer pmlm --output exported"
PRECISIONS = ("fp32", "int8")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat export``."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of fairseq-train --task ctc_nat, or of nat average")
    parser.add_argument("--data", required=True, metavar="DATA_BIN", help="folder that fairseq-preprocess wrote")
    parser.add_argument(
        "--pmlm-tokenizer", required=True, metavar="FOLDER", help="PMLM folder that tokenised the training data"
    )
    parser.add_argument("--source-lang", "-s", metavar="LANG", help="default: as the checkpoint or DATA_BIN tells")
    parser.add_argument("--target-lang", "-t", metavar="LANG", help="default: as the checkpoint or DATA_BIN tells")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in DIR; other files stay")
    parser.add_argument(
        "--format",
        choices=["onnx", "hf"],
        default="onnx",
        help="onnx: for nat translate and Translator; hf: a masked-LM folder for transformers (default: %(default)s)",
    )
    onnx = parser.add_argument_group("onnx")
    onnx.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=list(PRECISIONS),
        help="models to write (default: both)",
    )
    onnx.add_argument(
        "--reduce-range", action="store_true", help="int8 with 7-bit weights, for processors without VNNI instructions"
    )
    onnx.add_argument(
        "--about", metavar="FILE", help="Markdown for the model card: what the model was trained on, licence"
    )
    check = parser.add_argument_group(
        "the sentences of onnx's check (default: the subset test of DATA_BIN, else valid, else random symbols)"
    )
    check.add_argument("--gen-subset", metavar="NAME", help="a subset of DATA_BIN")
    check.add_argument("--test-source", metavar="FILE", help="plain text instead, one sentence a line")
    check.add_argument("--test-reference", metavar="FILE", help="its translation, for BLEU")
    parser.add_argument("--user-dir", metavar="FOLDER", help="fairseq plugin that the checkpoint needs")
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Load, write, check, report."""
    _refuse_wrong_use(args)
    about = _read_about(args)
    if args.format == "onnx":
        _require_libraries()
    with warnings_only("fairseq", "nat_plugin", "plugin_common"):
        from nat_plugin.data.teacher import register

        register(args.user_dir)
        if args.format == "hf":
            _write_hf(args)
            return
        warnings = _write_onnx(args, about)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _tell(f"{args.output}: ready; `nat translate {args.output} < lines.txt` translates")


def _write_onnx(args: argparse.Namespace, about: str | None) -> list[str]:
    from nat_plugin.export.onnx_folder import check_room, export_folder, write_export

    with export_folder(args.output, overwrite=args.overwrite) as folder:
        exportable = _open(args)
        parameters = sum(parameter.numel() for parameter in exportable.model.parameters())
        check_room(args.output, folder, parameters, int8="int8" in args.precision)
        return write_export(
            exportable,
            folder,
            _evaluation_set(args, exportable),
            precisions=[precision for precision in PRECISIONS if precision in args.precision],
            reduce_range=args.reduce_range,
            about=about,
            tell=_tell,
        )


def _open(args: argparse.Namespace) -> "Exportable":
    from nat_plugin.export.checkpoint import open_checkpoint

    languages = None if args.source_lang is None else (args.source_lang, args.target_lang)
    return open_checkpoint(args.checkpoint, args.data, args.pmlm_tokenizer, languages)


def _tell(line: str) -> None:
    """A line of the report; the export goes on where nobody reads it any more."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (open until the end)


def _refuse_wrong_use(args: argparse.Namespace) -> None:
    if args.test_reference and not args.test_source:
        args.wrong_use("--test-reference needs --test-source")
    if (args.source_lang is None) != (args.target_lang is None):
        args.wrong_use("give both of --source-lang and --target-lang, or none")
    if args.test_source and args.gen_subset:
        args.wrong_use("give either --test-source or --gen-subset, not both")
    if args.format == "hf":
        given = {
            "--precision": args.precision != list(PRECISIONS),
            "--reduce-range": args.reduce_range,
            "--about": args.about,
            "--gen-subset": args.gen_subset,
            "--test-source": args.test_source,
        }
        wrong = [name for name, is_given in given.items() if is_given]
        if wrong:
            args.wrong_use(f"{', '.join(wrong)}: only with --format onnx")


def _read_about(args: argparse.Namespace) -> str | None:
    if args.about is None:
        return None
    try:
        return Path(args.about).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"--about {args.about}: cannot be read ({reason}); give a UTF-8 text file") from error


def _require_libraries() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    raise_all(f"nat export needs the library {name}: pip install 'fairseq-onepass[export]'" for name in missing)


def _evaluation_set(args: argparse.Namespace, exportable: "Exportable") -> "EvaluationSet":
    from nat_plugin.export import evaluation_set

    if args.test_source:
        return evaluation_set.from_text(
            args.test_source, args.test_reference, exportable.tokenizer, exportable.dictionary
        )
    corpus = evaluation_set.find_subset(args.data, exportable.languages, args.gen_subset)
    if corpus is not None:
        return evaluation_set.from_data_bin(corpus, exportable.tokenizer)
    return evaluation_set.random_sentences(exportable.dictionary)


def _write_hf(args: argparse.Namespace) -> None:
    from nat_plugin.export.hf_format import write_hf_folder
    from plugin_common.hf_folder import check_output_folder

    check_output_folder(args.output, overwrite=args.overwrite)
    exportable = _open(args)
    source = f"nat export --format hf of {exportable.checkpoint.name}"
    provenance = {"source": source, "updates": exportable.updates}
    difference = write_hf_folder(exportable, args.output, provenance, overwrite=args.overwrite)
    _tell(f"{args.output}: a masked-LM folder for transformers; its logits differ by {difference:.1e} of the largest")
