"""From the names a user gives to what is to be read, in a fixed order."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nid_plugin.documents.document import DocumentCounts
from nid_plugin.documents.settings import DocumentSettings, InputFormat
from plugin_common.errors import raise_all

Kind = Literal["parquet", "jsonl", "txt", "tar", "dataset", "saved_dataset"]

ENDINGS: dict[str, Kind] = {
    ".parquet": "parquet",
    **{f"{ending}{packed}": "jsonl" for ending in (".jsonl", ".ndjson") for packed in ("", ".gz", ".zst")},
    **{f".txt{packed}": "txt" for packed in ("", ".gz", ".zst")},
    **{f".tar{packed}": "tar" for packed in ("", ".gz", ".xz", ".bz2", ".zst")},
    **dict.fromkeys((".tgz", ".txz", ".tbz2"), "tar"),
}
_SHOWN_ENDINGS = ".parquet, .jsonl, .txt, .tar and their compressed forms"
_DATASET_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Input:
    """Something to read: a file, or a data set (a name on the hub, or a folder)."""

    kind: Kind
    name: str


def kind_by_ending(name: str) -> Kind | None:
    """What a file is by the ending of its name; None for an unknown ending."""
    lower = name.lower()
    return next((kind for ending, kind in ENDINGS.items() if lower.endswith(ending)), None)


def list_inputs(settings: DocumentSettings, counts: DocumentCounts) -> list[Input]:
    """What the settings' ``inputs`` stand for: files in the order given, those of a folder sorted by path.

    Files in folders that are of another kind are counted in ``counts.other_files``.

    Raises:
        UserError: names every input that does not exist or cannot be told apart, and every folder without documents.
    """
    found: list[Input] = []
    problems: list[str] = []
    for name in settings.inputs:
        inputs, problem = _inputs_of(name, settings.input_format, counts)
        found += inputs
        problems += [problem] if problem else []
    raise_all(problems)
    return found


def _inputs_of(name: str, input_format: InputFormat, counts: DocumentCounts) -> tuple[list[Input], str | None]:
    if not name:
        return [], "an INPUT is empty; expected a file, a folder or the name of a data set"
    path = Path(name)
    if input_format == "dataset":
        if path.is_file():
            return [], f"{name}: a file; --input-format dataset expects the name or the folder of a data set"
        return [Input(_dataset_kind(path), name)], None
    if path.is_dir():
        if input_format == "auto" and is_dataset_folder(path):
            return [Input(_dataset_kind(path), name)], None
        inputs = list(_files_of(path, input_format, counts))
        return inputs, None if inputs else f"{name}: the folder has no files to read ({_expected(input_format)})"
    if path.exists() or name == "-":
        kind = kind_by_ending(name) if input_format == "auto" else input_format
        if kind is None:
            return [], f"{name}: unknown ending; expected {_SHOWN_ENDINGS}, or give --input-format"
        return [Input(kind, name)], None
    if input_format == "auto" and _DATASET_NAME.fullmatch(name) and kind_by_ending(name) is None:
        return [Input("dataset", name)], None
    return [], f"{name}: no such file or folder; check the path, `ls {path.parent}` shows what is there"


def _expected(input_format: InputFormat) -> str:
    if input_format == "auto":
        return f"expected {_SHOWN_ENDINGS}"
    return f"expected names that end as {input_format} files do"


def is_dataset_folder(folder: Path) -> bool:
    """Whether the library ``datasets`` should read the folder: it was saved by it, or a README names its files."""
    return _dataset_kind(folder) == "saved_dataset" or _has_configs(folder / "README.md")


def _dataset_kind(path: Path) -> Literal["dataset", "saved_dataset"]:
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    return "saved_dataset" if saved else "dataset"


def _has_configs(readme: Path) -> bool:
    """Whether the file begins with a YAML block that has a key ``configs``."""
    if not readme.is_file():
        return False
    start = readme.read_text(encoding="utf-8", errors="replace")[: 2**16]
    block = re.match(r"---\n(.*?)\n---", start, re.DOTALL)
    return block is not None and re.search(r"^configs:", block[1], re.MULTILINE) is not None


def _files_of(folder: Path, input_format: InputFormat, counts: DocumentCounts) -> Iterator[Input]:
    """Files below the folder by sorted path, hidden ones left out; links to folders are followed nowhere.

    What is neither a file nor a broken link (a pipe could wait for its other end forever) counts as another kind.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            kind = kind_by_ending(name)
            if name.startswith("."):
                continue
            path = Path(parent) / name
            special = path.exists() and not path.is_file()
            if kind is None or special or (input_format != "auto" and kind != input_format):
                counts.other_files += 1
            else:
                yield Input(kind, str(path))
