"""The archives of a benchmark at hand: brought from their publishers or a mirror, and checked."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nat_plugin.data.downloads import Patience, download
from nat_plugin.data.file_checks import Digest, Expected, checked
from nat_plugin.data.literature_corpora import Archive, Dataset
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError, raise_all


@dataclass(frozen=True)
class FoundArchive:
    """An archive that is here: its file, where it is from, its digest and what that was checked against."""

    path: Path
    url: str
    digest: Digest
    checked_against: str


def fetch_all(
    dataset: Dataset, expected: dict[str, Expected], mirror: str | None, folder: Path, patience: Patience | None
) -> dict[str, FoundArchive]:
    """All archives of the data set; one that fails does not keep the others from being brought."""
    remote = mirror is None or "://" in mirror
    if remote:
        make_folder(folder, "--archives")
    found, problems = {}, []
    for archive in dataset.archives:
        want = expected[archive.name]
        try:
            if remote:
                url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
                path = folder / archive.name
                want = _with_record(path, want)
                digest = download(url, path, want, patience)
                _record(path, digest)
            else:
                assert mirror is not None
                path = Path(mirror) / archive.name
                url = str(path)
                if not path.is_file():
                    raise UserError(
                        f"{path}: no such file; --mirror {mirror} must hold {archive.name} of {archive.url}"
                    )
                digest = checked(path, want)
            found[archive.name] = FoundArchive(path, url, digest, want.origin)
        except UserError as error:
            problems.append(str(error))
    raise_all(problems)
    return found


def expected_of(archive: Archive, overrides: dict[str, str], manifest: dict[str, Any], recorded_in: Path) -> Expected:
    """What is known of an archive: by --checksums, else published, else recorded when this folder was first filled."""
    if archive.name in overrides:
        return Expected(sha256=overrides[archive.name], origin="--checksums")
    if archive.has_checksum:
        return Expected(archive.size, archive.sha256, archive.md5, f"published, {archive.origin}")
    for earlier in manifest.get("archives", []):
        if earlier["name"] == archive.name and not earlier["checked_against"].startswith("--checksums"):
            return Expected(sha256=earlier["sha256"], origin=f"recorded in {recorded_in}")
    return Expected()


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _with_record(path: Path, expected: Expected) -> Expected:
    """Where nothing is published: the sum recorded beside the archive when it was downloaded."""
    if expected.has_checksum or not (path.exists() and _record_of(path).exists()):
        return expected
    words = _record_of(path).read_text(encoding="utf-8").split()
    return replace(expected, sha256=words[0], origin=f"recorded in {_record_of(path)}") if words else expected


def _record(path: Path, digest: Digest) -> None:
    """Write the archive's sum beside it, in the format of sha256sum."""
    with atomic_output(str(_record_of(path))) as stream:
        stream.write(f"{digest.sha256}  {path.name}\n".encode())


def read_checksums(path: Path, dataset: Dataset) -> dict[str, str]:
    """SHA-256 by archive name out of a file in the format of sha256sum."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--checksums {path}: cannot be read ({error}); expected what sha256sum prints") from error
    sums, problems = {}, []
    for number, line in enumerate(lines, 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        if len(words) == 2 and len(words[0]) == 64 and not set(words[0].lower()) - set("0123456789abcdef"):
            sums[Path(words[1].strip().lstrip("*")).name] = words[0].lower()
        else:
            problems.append(f"--checksums {path}, line {number}: expected 64 hexadecimal digits and a file name")
    if not problems and not any(archive.name in sums for archive in dataset.archives):
        names = ", ".join(archive.name for archive in dataset.archives)
        problems.append(f"--checksums {path}: names none of this data set's archives ({names})")
    raise_all(problems)
    return sums


def make_folder(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{option} {folder}: cannot be made ({error.strerror}); give a folder you may write to"
        ) from error
