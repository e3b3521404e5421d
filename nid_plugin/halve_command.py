"""``nid halve``: documents → their halves."""

import argparse
import json
import sys

from nid_plugin.documents.options import add_document_options, document_settings

SUMMARY = "Read documents, choose among them, and cut each in half: the prompts, and the control responses."
EXAMPLE = (
    "nid halve Skylion007/openwebtext --take 80000 --shuffle-buffer 10000 --out halves.jsonl\n"
    "  nid halve corpus/ --drop-duplicates --language en --sample 80000 --out halves.jsonl --report counts.json"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid halve``."""
    add_document_options(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="JSON Lines: document (hash), prompt (first half), second_half, source; - for standard output",
    )
    parser.add_argument("--report", metavar="FILE", help="JSON file for the settings and counts")


def run(args: argparse.Namespace) -> None:
    """Read, choose, halve, write; say on standard error what became of the documents."""
    settings = document_settings(args)
    from nid_plugin.documents import DocumentCounts
    from nid_plugin.halving import halves, write_halves
    from plugin_common.atomic_file import atomic_output, clean_up_when_terminated
    from plugin_common.progress import progress_bar

    counts = DocumentCounts()
    with clean_up_when_terminated():
        with progress_bar(total=None, unit=" documents", description="halve") as bar:
            write_halves(args.out, halves(settings, counts, progress=bar.update))
        if args.report:
            report = {"settings": settings.as_dict(), "counts": counts.as_dict()}
            with atomic_output(args.report) as stream:
                stream.write(json.dumps(report, indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
    for line in [*counts.lines(), f"{args.out}: {counts.kept:,} halves"]:
        print(line, file=sys.stderr)
