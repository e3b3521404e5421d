"""A folder with a benchmark's plain text, and the manifest that says what it holds and what it was made from."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nat_plugin.data.archive_store import (
    FoundArchive,
    expected_of,
    fetch_all,
    given_by_user,
    is_remote,
    make_folder,
    read_checksums,
    record_sums,
)
from nat_plugin.data.downloads import Patience
from nat_plugin.data.file_checks import Digest, Expected, digest_of
from nat_plugin.data.literature_corpora import SPLITS, Dataset, dataset_for
from nat_plugin.data.parallel_archives import PartReport, write_splits
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ARCHIVES = "archives"
_WORK = ".unfinished"


def download_dataset(
    name: str,
    source: str,
    target: str,
    output: Path,
    *,
    mirror: str | None = None,
    archives: Path | None = None,
    checksums: Path | None = None,
    patience: Patience | None = None,
) -> tuple[dict[str, Any], bool]:
    """Bring ``output`` to hold the benchmark ``name``; returns its manifest and whether anything had to be done.

    Args:
        name: ``wmt14``, ``wmt16`` or ``iwslt14``.
        source, target: the direction.
        output: new, empty, or from an earlier run for the same benchmark and direction.
        mirror: URL or folder that has the archives under their file names.
        archives: folder for the downloads; ``output/archives`` if None. Several runs may share it.
        checksums: file of SHA-256 sums in the format of ``sha256sum``.
        patience: how often and how long to try.

    Raises:
        UserError: whatever is wrong, with what to do next; archives that cannot be had are listed all at once.
    """
    dataset = dataset_for(name, source, target)
    overrides = read_checksums(checksums, dataset) if checksums else {}
    identity = {"dataset": name, "source_lang": source, "target_lang": target}
    make_folder(output, "--output")
    with _alone(output):
        manifest = _claim(output, identity)
        expected = {
            archive.name: expected_of(archive, overrides, manifest, output / MANIFEST) for archive in dataset.archives
        }
        _refuse_own_archives(output, dataset, manifest, overrides)
        if manifest.get("complete") and _is_current(output, manifest, expected):
            return manifest, False
        folder = archives or output / ARCHIVES
        found = fetch_all(dataset, expected, mirror, folder, patience)
        work = output / _WORK
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        strict = {a.name for a in dataset.archives if not a.has_checksum and a.name not in overrides}
        try:
            paths = {archive.name: found[archive.name].path for archive in dataset.archives}
            parts = write_splits(dataset, source, target, paths, work, strict)
            if is_remote(mirror):
                record_sums(found, strict)
            return _publish(output, work, identity, dataset, found, parts), True
        except OSError as error:
            raise UserError(
                f"{output}: cannot be written ({error.strerror or error}); check rights and space"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _claim(output: Path, identity: dict[str, str]) -> dict[str, Any]:
    """The manifest of the folder, ``{}`` if there is none yet; the folder is not touched if it holds anything else."""
    path = output / MANIFEST
    if path.exists():
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            held = {key: manifest[key] for key in identity}
            _check_entries(manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a manifest of nat download ({error!r}); give another --output") from error
        if held != identity:
            raise UserError(
                f"{output}: holds {held['dataset']} {held['source_lang']}-{held['target_lang']}, not "
                f"{identity['dataset']} {identity['source_lang']}-{identity['target_lang']}; give another --output"
            )
        return dict(manifest)
    others = sorted(entry.name for entry in output.iterdir() if entry.name not in (_WORK, ARCHIVES))
    if others:
        raise UserError(
            f"{output}: is not empty ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}) and has no {MANIFEST} "
            "of an earlier nat download; give another --output"
        )
    return {}


def _check_entries(manifest: dict[str, Any]) -> None:
    """Raise ``KeyError``, ``TypeError`` or ``AttributeError`` where a manifest lacks what every run writes."""
    archive_keys = {"name": str, "bytes": int, "sha256": str, "md5": str, "checked_against": str}
    entries = {
        "archives": (manifest["archives"], archive_keys),
        "parts": (manifest["parts"], {"name": str, "archive": str, "lines": int, "changes": dict}),
        "files": (list(manifest["files"].values()), {"lines": int, "bytes": int, "sha256": str}),
    }  # fmt: skip
    for section, (listed, keys) in entries.items():
        for entry in listed:
            for key, kind in keys.items():
                if not isinstance(entry[key], kind):
                    raise TypeError(f"{section}: {key} is {entry[key]!r}")
    for part in manifest["parts"]:
        for changes in part["changes"].values():
            if not all(isinstance(count, int) for count in changes.values()):
                raise TypeError(f"parts: changes are {changes!r}")


def _refuse_own_archives(output: Path, dataset: Dataset, manifest: dict[str, Any], overrides: dict[str, str]) -> None:
    """Raise ``UserError`` for a complete folder whose archives only ``--checksums``, now left out, allows."""
    if not manifest.get("complete"):
        return
    own = [
        earlier["name"]
        for earlier in manifest["archives"]
        if given_by_user(earlier)
        and earlier["name"] not in overrides
        and not _is_the_known_one(dataset, earlier, manifest)
    ]
    if own:
        raise UserError(
            f"{output}: was made with archives of other sums, given by --checksums: {', '.join(own)}. Give the same "
            "--checksums to keep it, another --output and --archives for the published ones, or delete this folder"
        )


def _is_the_known_one(dataset: Dataset, earlier: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Whether an archive of the manifest would have been taken without ``--checksums``, too."""
    archive = next((one for one in dataset.archives if one.name == earlier["name"]), None)
    if archive is None:
        return False
    if archive.has_checksum:
        digest = Digest(earlier["bytes"], earlier["sha256"], earlier["md5"])
        return Expected(archive.size, archive.sha256, archive.md5).problem(digest) is None
    known = {part.name: part.lines for part in dataset.parts if part.archive == archive.name}
    return all(known.get(part["name"]) in (None, part["lines"]) for part in manifest["parts"])


def _is_current(output: Path, manifest: dict[str, Any], expected: dict[str, Expected]) -> bool:
    """Whether the folder's files are those of its manifest, made from the archives that are expected now."""
    for archive in manifest["archives"]:
        want = expected.get(archive["name"])
        if want is None or any(
            value is not None and value != archive[key]
            for key, value in (("bytes", want.size), ("sha256", want.sha256), ("md5", want.md5))
        ):
            return False
    for name, file in manifest["files"].items():
        path = output / name
        if not path.is_file() or path.stat().st_size != file["bytes"] or digest_of(path).sha256 != file["sha256"]:
            return False
    return True


def _publish(
    output: Path,
    work: Path,
    identity: dict[str, str],
    dataset: Dataset,
    found: dict[str, FoundArchive],
    parts: list[PartReport],
) -> dict[str, Any]:
    """Move the finished files into place; the manifest says ``complete`` only after the last of them."""
    splits = [split for split in SPLITS if any(part.split == split for part in dataset.parts)]
    files = {}
    for split in splits:
        lines = sum(report.lines for report in parts if report.part.split == split)
        for language in (identity["source_lang"], identity["target_lang"]):
            digest = digest_of(work / f"{split}.{language}")
            files[f"{split}.{language}"] = {"lines": lines, "bytes": digest.size, "sha256": digest.sha256}
    manifest: dict[str, Any] = {
        **identity,
        "complete": False,
        "archives": [
            {
                "name": archive.name,
                "url": found[archive.name].url,
                "bytes": found[archive.name].digest.size,
                "sha256": found[archive.name].digest.sha256,
                "md5": found[archive.name].digest.md5,
                "checked_against": found[archive.name].checked_against or "nothing published; known line counts",
            }
            for archive in dataset.archives
        ],
        "parts": [
            {**asdict(report.part), "members": report.members, "known_lines": report.part.lines, "lines": report.lines}
            | {"changes": report.changes}
            for report in parts
        ],
        "files": files,
    }
    _write_manifest(output, manifest)
    for name in files:
        (work / name).replace(output / name)
    manifest["complete"] = True
    _write_manifest(output, manifest)
    return manifest


def _write_manifest(output: Path, manifest: dict[str, Any]) -> None:
    with atomic_output(str(output / MANIFEST)) as stream:
        stream.write((json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: a second run on it waits for the first."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another run is at work here, waiting", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
