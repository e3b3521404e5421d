"""``nat download``: a benchmark's archives → line-aligned plain text."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from nat_plugin.data.literature_corpora import DATASETS
from plugin_common.errors import raise_all

LONGEST_TIMEOUT = 86_400  # seconds; the system's clocks do not take any number

SUMMARY = "Download a benchmark of the literature (WMT14 en-de, WMT16 en-ro, IWSLT14 de-en) as plain parallel text."
EXAMPLE = (
    "nat download wmt16 --source-lang en --target-lang ro --output corpora/wmt16\n  nat download iwslt14 "
    "--source-lang de --target-lang en --output corpora/iwslt14 --mirror /data/archives"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nat download``."""
    parser.add_argument("dataset", choices=list(DATASETS), help="the benchmark")
    parser.add_argument("--source-lang", required=True, metavar="LANG")
    parser.add_argument("--target-lang", required=True, metavar="LANG")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="gets train.LANG, valid.LANG, test.LANG and manifest.json"
    )
    parser.add_argument(
        "--archives", metavar="DIR", help="keeps the downloaded archives (default: archives in --output)"
    )
    parser.add_argument(
        "--mirror",
        metavar="URL-OR-FOLDER",
        help="take the archives from here, by their file names, instead of from their publishers; archives in a "
        "folder are used where they are",
    )
    parser.add_argument(
        "--checksums",
        metavar="FILE",
        help="SHA-256 sums, as sha256sum prints them, that the archives named in it must have instead of the "
        "published ones (for archives that you made or cut)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=5,
        metavar="N",
        help="further attempts after one that brought nothing new (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="silence of the server that ends an attempt (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Download, check, extract; say on standard error what came of it."""
    from nat_plugin.data.dataset_folder import download_dataset
    from nat_plugin.data.downloads import Patience
    from plugin_common.atomic_file import clean_up_when_terminated

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    problems = [f"--retries {args.retries}: expected 0 or more"] if args.retries < 0 else []
    if not 0 < args.timeout <= LONGEST_TIMEOUT:
        problems.append(f"--timeout {args.timeout}: expected more than 0 and at most {LONGEST_TIMEOUT:,} seconds")
    raise_all(problems)
    with clean_up_when_terminated():
        manifest, made = download_dataset(
            args.dataset,
            args.source_lang,
            args.target_lang,
            Path(args.output),
            mirror=args.mirror,
            archives=Path(args.archives) if args.archives else None,
            checksums=Path(args.checksums) if args.checksums else None,
            patience=Patience(args.retries, args.timeout),
        )
    for line in report_lines(manifest, args.output, made=made):
        print(line, file=sys.stderr)


def report_lines(manifest: dict[str, Any], output: str, *, made: bool) -> list[str]:
    """What to tell the user about a complete output folder."""
    lines = [] if made else [f"{output}: complete already, nothing to do"]
    lines += [f"{output}/{name}: {file['lines']:,} lines" for name, file in manifest["files"].items()]
    for part in manifest["parts"]:
        for language, changes in part["changes"].items():
            lines += [f"{part['name']} {language}: {count:,} {phrase}" for phrase, count in changes.items()]
    if not any(name.startswith("valid.") for name in manifest["files"]):
        lines.append("valid: none yet; cleaning takes every 23rd pair of train, as the literature does")
    return lines
