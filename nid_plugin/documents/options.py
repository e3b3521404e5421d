"""The options of every command that reads documents."""

import argparse
from dataclasses import fields
from typing import Any

from nid_plugin.documents.settings import HALVE_AT, INPUT_FORMATS, TXT_DOCUMENTS, DocumentSettings
from plugin_common.errors import raise_all

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(DocumentSettings)}


def add_document_options(parser: argparse.ArgumentParser, *, inputs: str = "+") -> None:
    """Add the documents to read, how to choose among them, and how to halve them.

    Args:
        inputs: how many INPUTs argparse wants: ``+``, or ``*`` where a command can do without.
    """
    parser.add_argument(
        "inputs",
        nargs=inputs,
        metavar="INPUT",
        help="file (.parquet, .jsonl, .txt, .tar; .jsonl and .txt also with .gz or .zst, .tar with .gz, .xz, .bz2 or "
        ".zst), folder of such files or of a data set, name of a data set on the Hugging Face hub, or - for standard "
        "input",
    )
    _add_reading(parser.add_argument_group("reading"))
    _add_choosing(parser.add_argument_group("choosing documents (checks run in this order; each is counted)"))
    _add_drawing(parser.add_argument_group("drawing documents"))
    _add_halving(parser.add_argument_group("halving"))


def _add_reading(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--input-format",
        choices=INPUT_FORMATS,
        default=_DEFAULTS["input_format"],
        help="how to read all INPUTs (default: %(default)s, by the ending of each name)",
    )
    group.add_argument(
        "--txt-documents",
        choices=TXT_DOCUMENTS,
        default=_DEFAULTS["txt_documents"],
        help="what a document is in a .txt file: the file, or a paragraph between blank lines (default: %(default)s)",
    )
    group.add_argument(
        "--text-column",
        metavar="NAME",
        default=_DEFAULTS["text_column"],
        help="column or JSON field that holds the text (default: %(default)s)",
    )
    group.add_argument("--dataset-config", metavar="NAME", help="configuration of a data set that has several")
    group.add_argument(
        "--dataset-split",
        metavar="NAME",
        default=_DEFAULTS["dataset_split"],
        help="split of a data set (default: %(default)s)",
    )
    group.add_argument("--dataset-revision", metavar="NAME", help="branch, tag or commit of a data set on the hub")


def _add_choosing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--min-document-tokens",
        type=int,
        metavar="N",
        default=_DEFAULTS["min_document_tokens"],
        help="shortest document to keep, in tokens of --length-tokenizer (default: %(default)s)",
    )
    group.add_argument(
        "--max-document-tokens",
        type=int,
        metavar="N",
        help="longest document to keep, in the same tokens (default: no limit)",
    )
    group.add_argument(
        "--length-tokenizer",
        metavar="FOLDER-OR-NAME",
        default=_DEFAULTS["length_tokenizer"],
        help="folder with tokenizer.json, or model on the hub; `words` counts words, and letters where a script puts "
        "no spaces (default: %(default)s)",
    )
    group.add_argument("--drop-duplicates", action="store_true", help="drop documents whose text came before")
    group.add_argument(
        "--drop-near-duplicates",
        dest="near_duplicates",
        type=float,
        nargs="?",
        const=0.8,
        metavar="SIMILARITY",
        help="drop documents whose 5-word sequences are shared with an earlier document to about this Jaccard "
        "similarity or more (0.8 where no number is given)",
    )
    group.add_argument(
        "--language",
        metavar="CODE",
        help="drop documents that are surely in another language than this (ISO 639-1, such as en)",
    )
    group.add_argument(
        "--language-certainty",
        type=float,
        metavar="P",
        default=_DEFAULTS["language_certainty"],
        help="probability of another language from which on it counts as sure (default: %(default)s)",
    )


def _add_drawing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="draw N distinct documents uniformly from all that pass the checks and can be halved; reads everything; "
        "does not depend on order or shards",
    )
    group.add_argument(
        "--take",
        type=int,
        metavar="N",
        help="stop after N documents that pass the checks and can be halved; with --shuffle-buffer, a quick and "
        "roughly random choice from a data set too large to read",
    )
    group.add_argument(
        "--shuffle-buffer",
        type=int,
        metavar="N",
        default=_DEFAULTS["shuffle_buffer"],
        help="shuffle the files, and draw each next document from N held in memory; 0 keeps the order "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=int,
        metavar="S",
        default=_DEFAULTS["seed"],
        help="of --sample and --shuffle-buffer (default: %(default)s)",
    )
    group.add_argument(
        "--shard",
        metavar="K/N",
        default="1/1",
        help="give only the K-th of N parts, K from 1: the parts are disjoint and together what comes without this "
        "option; equal texts are in the same part (default: %(default)s, all)",
    )


def _add_halving(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--halve-at",
        choices=HALVE_AT,
        default=_DEFAULTS["halve_at"],
        help="halve at the end of the sentence, word or token that is nearest the middle (default: %(default)s)",
    )
    group.add_argument(
        "--halve-tokenizer", metavar="FOLDER-OR-NAME", help="tokenizer for --halve-at token, as in --length-tokenizer"
    )
    group.add_argument(
        "--sentence-language",
        metavar="CODE",
        default=None,
        help="language whose rules tell sentences apart (default: that of --language, else en)",
    )
    group.add_argument(
        "--smallest-half",
        type=float,
        metavar="SHARE",
        default=_DEFAULTS["smallest_half"],
        help="drop documents where a half would be smaller than this share of the whole (default: %(default)s)",
    )


def document_settings(args: argparse.Namespace) -> DocumentSettings:
    """The settings that the options give.

    Raises:
        UserError: names every option that is wrong.
    """
    problems = []
    shard, shards = _shard(args.shard)
    if shards == 0:
        problems.append(f"--shard {args.shard}: expected K/N, such as 1/8 for the first of eight parts")
        shard, shards = 1, 1
    same = {name: getattr(args, name) for name in _DEFAULTS if name not in _MADE}
    settings = DocumentSettings(
        inputs=tuple(args.inputs),
        shard=shard,
        shards=shards,
        sentence_language=args.sentence_language or args.language or _DEFAULTS["sentence_language"],
        **same,
    )
    raise_all([*problems, *settings.problems()])
    return settings


_MADE = ("inputs", "shard", "shards", "sentence_language")


def _shard(text: str) -> tuple[int, int]:
    """K and N of ``K/N``; (0, 0) where it is nothing like it."""
    left, _, right = text.partition("/")
    if not (left.isdecimal() and right.isdecimal()):
        return 0, 0
    return int(left), int(right)
