"""The export folder: what stands in it, written once and checked whenever it is opened. Needs no library.

A folder holds ``export.json`` (this module's :class:`Settings`, and size and SHA-256 of every other file),
``tokenizer.json``, one ONNX model a precision, and a model card, ``README.md``.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError, raise_all

FORMAT = "fairseq-onepass export"
VERSION = 1
SETTINGS_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"
MODEL_FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
UPSAMPLERS = ("mask_insertion", "token_duplication")
PLACEMENTS = ("uniform", "right", "left")
SPECIAL = ("bos", "pad", "eos", "unk", "mask")
MAKE_IT = "make the folder again with `nat export`"

_PIECE = 2**20


@dataclass(frozen=True)
class Settings:
    """What a translator must know beside the weights.

    Attributes:
        symbols: rows of the vocabulary.
        bos, pad, eos, unk, mask, blank: ids of these symbols; ``blank`` is that of CTC.
        upsampler, ratio, placement: as the options ``--upsampler``, ``--upsample-ratio``, ``--mask-placement``.
        positions: most positions of the up-sampled source, ``<s>`` not counted.
        source_lang, target_lang: None where they are not known.
    """

    symbols: int
    bos: int
    pad: int
    eos: int
    unk: int
    mask: int
    blank: int
    upsampler: str
    ratio: float
    placement: str
    positions: int
    source_lang: str | None = None
    target_lang: str | None = None

    def problems(self) -> Iterator[str]:
        """What is wrong with the values, in terms of ``export.json``."""
        whole = ("symbols", *SPECIAL, "blank", "positions")
        wrong = [name for name in whole if type(getattr(self, name)) is not int or getattr(self, name) < 0]
        yield from (f"{name} is {getattr(self, name)!r}, expected a whole number" for name in wrong)
        if not wrong:
            yield from (
                f"{name} is {getattr(self, name)}, but there are {self.symbols} symbols"
                for name in (*SPECIAL, "blank")
                if getattr(self, name) >= self.symbols
            )
            if len({getattr(self, name) for name in SPECIAL}) < len(SPECIAL):
                yield f"two of {', '.join(SPECIAL)} are the same symbol"
            if self.positions < 1:
                yield "positions is 0, expected at least 1"
        if self.upsampler not in UPSAMPLERS:
            yield f"upsampler is {self.upsampler!r}, expected one of {', '.join(UPSAMPLERS)}"
        if self.placement not in PLACEMENTS:
            yield f"placement is {self.placement!r}, expected one of {', '.join(PLACEMENTS)}"
        if type(self.ratio) not in (int, float) or not 1 <= self.ratio < float("inf"):
            yield f"ratio is {self.ratio!r}, expected a number of at least 1"


@dataclass(frozen=True)
class ExportFolder:
    """A folder that was read: its path, settings, and the recorded files."""

    path: Path
    settings: Settings
    files: Mapping[str, Mapping[str, Any]]
    """Name → ``{"bytes": …, "sha256": …}``."""
    about: Mapping[str, Any]
    """Everything else in ``export.json``: versions, scores, the checkpoint's name."""

    @property
    def precisions(self) -> list[str]:
        """Those that the folder has a model of."""
        return [precision for precision, name in MODEL_FILES.items() if name in self.files]

    def model_file(self, precision: str) -> Path:
        """The ONNX model of a precision.

        Raises:
            UserError: the folder has none.
        """
        if not self.precisions:
            raise UserError(f"{self.path}: has no model; {MAKE_IT}")
        if precision not in self.precisions:
            raise UserError(
                f"{self.path}: has no {precision} model; it has {', '.join(self.precisions)}: give one of these, or "
                f"export again with --precision {precision}"
            )
        return self.path / MODEL_FILES[precision]

    def check(self, names: list[str], *, checksums: bool = True) -> None:
        """Check files against what was recorded when the folder was made.

        Args:
            names: files of the folder; data that an ONNX model keeps outside its file is checked with the model.
            checksums: also compute SHA-256 (a second for some GB); otherwise sizes alone.

        Raises:
            UserError: lists every file that is missing, has another size or other contents.
        """
        outside = [f"{name}.data" for name in names if f"{name}.data" in self.files]
        raise_all(problem for name in [*names, *outside] for problem in self._problems_of(name, checksums))

    def _problems_of(self, name: str, checksums: bool) -> Iterator[str]:
        recorded = self.files.get(name)
        if recorded is None:
            yield f"{self.path / SETTINGS_FILE}: does not list {name}; {MAKE_IT}"
            return
        file = self.path / name
        if not file.is_file():
            yield f"{self.path}: {name} is missing; {MAKE_IT}"
        elif file.stat().st_size != recorded["bytes"]:
            yield (
                f"{file}: has {file.stat().st_size:,} bytes, {recorded['bytes']:,} were exported: the copy is "
                f"incomplete or changed; copy it again, or {MAKE_IT}"
            )
        elif checksums and sha256(file) != recorded["sha256"]:
            yield f"{file}: is not the file that was exported (its SHA-256 differs); copy it again, or {MAKE_IT}"


def metadata_of(settings: Settings) -> dict[str, str]:
    """The settings as entries of an ONNX file, by which it is known to belong to its ``export.json``."""
    return {f"fairseq-onepass.{name}": str(value) for name, value in asdict(settings).items()}


def recorded_files(root: Path) -> list[str]:
    """Names of the files that an export folder consists of; of a folder without a readable description, none."""
    try:
        return [*open_folder(root).files, SETTINGS_FILE]
    except UserError:
        return []


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def open_folder(path: str | Path) -> ExportFolder:
    """Read ``export.json``; the other files are checked by :meth:`ExportFolder.check`.

    Raises:
        UserError: no such folder, no ``export.json``, not valid, or of another version of the format.
    """
    root = Path(path)
    file = root / SETTINGS_FILE
    if not root.is_dir():
        raise UserError(f"{path}: no such folder; give a folder that `nat export` made")
    if not file.is_file():
        raise UserError(f"{path}: {SETTINGS_FILE} is missing, so this is no export folder; {MAKE_IT}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}); {MAKE_IT}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{file}: is not the description of an export folder (format {FORMAT!r}); {MAKE_IT}")
    if type(content.get("version")) is not int or content["version"] != VERSION:
        raise UserError(
            f"{file}: is of version {content.get('version')!r} of the format, this program reads version {VERSION}; "
            f"install the program's version that made it, or {MAKE_IT}"
        )
    return ExportFolder(root, _settings(file, content), _files(file, content), content)


def _settings(file: Path, content: Mapping[str, Any]) -> Settings:
    given = content.get("settings")
    names = {field.name for field in fields(Settings)}
    if not isinstance(given, dict) or not names >= set(given):
        raise UserError(f"{file}: the entry `settings` is missing or holds unknown names; {MAKE_IT}")
    try:
        settings = Settings(**given)
    except TypeError as error:
        raise UserError(f"{file}: the entry `settings` is incomplete ({error}); {MAKE_IT}") from error
    raise_all(f"{file}: {problem}; {MAKE_IT}" for problem in settings.problems())
    return settings


def _files(file: Path, content: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    given = content.get("files")
    plain = isinstance(given, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("sha256"), str)
        and Path(name).name == name not in ("", "..")
        for name, entry in given.items()
    )
    if not plain:
        raise UserError(f"{file}: the entry `files` is missing or damaged; {MAKE_IT}")
    assert isinstance(given, dict)
    return given


def write_settings(root: Path, settings: Settings, about: Mapping[str, Any]) -> None:
    """Write ``export.json`` about all other files of a folder; call it last."""
    names = sorted(file.name for file in root.iterdir() if file.is_file() and file.name != SETTINGS_FILE)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "settings": asdict(settings),
        **about,
        "files": {name: {"bytes": (root / name).stat().st_size, "sha256": sha256(root / name)} for name in names},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (root / SETTINGS_FILE).write_text(text, encoding="utf-8")
