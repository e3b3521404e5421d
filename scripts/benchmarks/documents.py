"""Time reading and halving documents against a plain loop of ``datasets`` streaming over the same files; and memory.

The documents are paragraphs of prose from Python's documentation strings, put together to 1 to 8 kB, log-uniformly.
Ours reads, checks the least length, hashes and halves at the sentence end nearest the middle (the defaults of ``nid
halve``); theirs only reads (``for row in load_dataset(…, streaming=True)``). Both run in one process, in turn::

    python scripts/benchmarks/documents.py --json documents.json [--quick]

Rows give documents a second, ratios ours ÷ theirs. The memory rows are the peak (MiB) of ``nid halve
--drop-duplicates`` over a stream of a million distinct documents (``--quick``: fewer), from parquet files and from
JSON Lines on standard input.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from nid_plugin.documents import DocumentCounts, DocumentSettings
from nid_plugin.halving import halves
from scripts.benchmarks.measure import machine, paired_ratio, row, run_command, run_in_turn, versions, write_report
from scripts.benchmarks.tokenize import docstring_paragraphs

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
FORMATS = ("parquet", "jsonl", "jsonl.zst")
FILES = 4  # of each format
SIZES = {"full": (40_000, 7, 1_000_000), "quick": (8_000, 3, 50_000)}  # documents, repeats, documents for memory
LENGTHS = (1_000, 8_000)  # characters of a document


def parse_args() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="fewer documents and repeats: under a minute")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory rows out")
    parser.add_argument("--generate", type=int, metavar="N", help=argparse.SUPPRESS)  # the stream for the memory row
    return parser.parse_args()


def main() -> None:
    """Make the files, measure, show and write."""
    args = parse_args()
    if args.generate:
        write_json_lines(sys.stdout.fileno(), make_documents(args.generate))
        return
    count, repeats, memory_count = SIZES["quick" if args.quick else "full"]
    about_machine = machine()
    with tempfile.TemporaryDirectory(prefix="documents-benchmark-") as folder:
        rows, ratios = speed(Path(folder), count, repeats)
        if not args.no_memory:
            rows |= memory(Path(folder), memory_count)
    settings = {"documents": count, "characters": LENGTHS, "repeats": repeats, "memory_documents": memory_count}
    report = {
        "machine": about_machine,
        "versions": versions("datasets", "pyarrow", "zstandard", "sentencex", "regex"),
        "settings": settings,
        "rows": rows,
        "ratios": ratios,
    }
    write_report(args.json, report)
    for name, figures in rows.items():
        print(f"{name:40} min {figures['min']:9,.0f}  median {figures['median']:9,.0f}  max {figures['max']:9,.0f}")
    for name, ratio in ratios.items():
        print(f"{name:40} {ratio:.3f}")


def make_documents(count: int) -> Iterator[str]:
    """Distinct documents: some thousands of texts, each time with another number at its front."""
    random_numbers = random.Random(1)
    paragraphs = [text.strip() for text in docstring_paragraphs() if len(text.split()) >= 20 and ">>>" not in text]
    shortest, longest = LENGTHS
    texts = []
    for _ in range(min(count, 10_000)):
        length = shortest * (longest / shortest) ** random_numbers.random()
        text = ""
        while len(text) < length:
            text += random_numbers.choice(paragraphs) + "\n\n"
        texts.append(text)
    for number in range(count):
        yield f"Document {number}. {texts[number % len(texts)]}"


def write_json_lines(file: str | Path | int, texts: Iterator[str]) -> None:
    """One object a line; Zstandard by the file's name."""
    import zstandard

    with open(file, "wb") as plain:  # noqa: PTH123 (a path or a descriptor)
        packed = str(file).endswith(".zst")
        stream = zstandard.ZstdCompressor().stream_writer(plain) if packed else plain
        for text in texts:
            stream.write(json.dumps({"text": text}).encode() + b"\n")
        if packed:
            stream.close()


def write_parquet(file: Path, texts: Iterator[str]) -> None:
    """A column ``text`` in row groups of 1,000, as data sets on the hub have."""
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetWriter(file, pa.schema([("text", pa.string())])) as writer:
        while part := list(islice(texts, 1000)):
            writer.write_table(pa.table({"text": part}))


def write_files(folder: Path, ending: str, texts: Iterator[str], count: int) -> list[str]:
    """The texts in ``FILES`` files of one format."""
    names = [folder / f"{part}.{ending}" for part in range(FILES)]
    write = write_parquet if ending == "parquet" else write_json_lines
    for name in names:
        write(name, islice(texts, count // FILES))
    return [str(name) for name in names]


def speed(folder: Path, count: int, repeats: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Documents a second of both sides, and their ratios."""
    variants: dict[str, Callable[[], float]] = {}
    for ending in FORMATS:
        files = write_files(folder, ending, make_documents(count), count)
        variants[f"{ending}/nid_halves"] = partial(rate, ours, files, count)
        variants[f"{ending}/datasets"] = partial(rate, theirs, files, count)
    for variant in variants.values():  # imports, and the files into the system's cache
        variant()
    results = run_in_turn(variants, repeats)
    rows = {f"{name}/documents_per_s": row(values) for name, values in results.items()}
    ratios = {
        f"{ending}/documents_per_s": paired_ratio(results[f"{ending}/nid_halves"], results[f"{ending}/datasets"])
        for ending in FORMATS
    }
    return rows, ratios


def rate(read: Callable[[list[str]], int], files: list[str], count: int) -> float:
    """Documents a second of one run.

    Raises:
        RuntimeError: it did not come upon all of them.
    """
    started = time.perf_counter()
    read_count = read(files)
    seconds = time.perf_counter() - started
    if read_count != count:
        raise RuntimeError(f"{files}: {read_count} of {count} documents were read")
    return count / seconds


def ours(files: list[str]) -> int:
    """Read and halve; the documents read."""
    counts = DocumentCounts()
    characters = 0
    for half in halves(DocumentSettings(tuple(files)), counts):
        characters += len(half.prompt)
    return counts.read


def theirs(files: list[str]) -> int:
    """Read with ``datasets``; the documents read."""
    import datasets

    datasets.disable_progress_bars()
    kind = "parquet" if files[0].endswith(".parquet") else "json"
    count = characters = 0
    for document in datasets.load_dataset(kind, data_files=files, split="train", streaming=True):
        count += 1
        characters += len(document["text"])
    return count


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Peak memory of ``nid halve --drop-duplicates`` over ``count`` documents."""
    command = [sys.executable, "-m", "nid_plugin.cli", "halve", "--drop-duplicates", "--out", os.devnull]
    place = folder / "memory"
    place.mkdir()
    write_files(place, "parquet", make_documents(count), count)
    runs = {"parquet": run_command([*command, str(place)], ENVIRONMENT)}
    generate = [sys.executable, str(Path(__file__).resolve()), "--json", "-", "--generate", str(count)]
    piped = f"{' '.join(generate)} | {' '.join([*command, '--input-format', 'jsonl', '-'])}"
    # The generator holds some thousands of documents, less than what is measured; the larger process counts.
    runs["jsonl_stdin"] = run_command(["bash", "-o", "pipefail", "-c", piped], ENVIRONMENT)
    for name, figures in runs.items():
        print(f"memory {name}: {figures}", file=sys.stderr)
    return {f"memory/{name}/{count}_documents/MiB": row([figures.peak_mib]) for name, figures in runs.items()}


if __name__ == "__main__":
    main()
