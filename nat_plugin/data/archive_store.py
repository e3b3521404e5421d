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


def is_remote(mirror: str | None) -> bool:
    """Whether archives are downloaded; from a mirror that is a folder they are used where they are."""
    return mirror is None or "://" in mirror


def fetch_all(
    dataset: Dataset, expected: dict[str, Expected], mirror: str | None, folder: Path, patience: Patience | None
) -> dict[str, FoundArchive]:
    """All archives of the data set; one that fails does not keep the others from being brought."""
    remote = is_remote(mirror)
    if remote:
        make_folder(folder, "--archives")
    found, problems = {}, []
    for archive in dataset.archives:
        want = expected[archive.name]
        try:
            if remote:
                url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.name}"
                path = folder / archive.name
                want = with_record(path, want)
                digest = download(url, path, want, patience)
            else:
                assert mirror is not None
                path = Path(mirror) / archive.name
                url = str(path)
                if not path.is_file():
                    raise UserError(
                        f"{path}: no such file; --mirror {mirror} must hold {archive.name} of {archive.url}"
                    )
                want = with_record(path, want)
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
        if earlier["name"] == archive.name and not given_by_user(earlier):
            return Expected(sha256=earlier["sha256"], origin=f"recorded in {recorded_in}")
    return Expected()


def given_by_user(archive: dict[str, Any]) -> bool:
    """Whether an archive in a manifest was checked against ``--checksums``."""
    return str(archive["checked_against"]).startswith("--checksums")


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def with_record(path: Path, expected: Expected) -> Expected:
    """Where nothing is published: the sum recorded beside the archive, be the archive itself there or not.

    Raises:
        UserError: the record cannot be read.
    """
    record = _record_of(path)
    if expected.has_checksum or not record.exists():
        return expected
    try:
        words = record.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        words = []
    if not (words and _is_sha256(words[0])):
        raise UserError(
            f"{record}: expected the SHA-256 of {path.name}, as sha256sum prints it; remove this file if you trust the "
            "archive, or give its SHA-256 with --checksums FILE"
        )
    return replace(expected, sha256=words[0].lower(), origin=f"recorded in {record}")


def record_sums(found: dict[str, FoundArchive], names: set[str]) -> None:
    """Write the sums of these archives beside them, in the format of sha256sum; a record that is there stays.

    To be called when an archive's content turned out to be the known one, for later runs demand what is recorded.
    """
    for name in sorted(names):
        path = found[name].path
        if not _record_of(path).exists():
            with atomic_output(str(_record_of(path))) as stream:
                stream.write(f"{found[name].digest.sha256}  {path.name}\n".encode())


def _is_sha256(word: str) -> bool:
    return len(word) == 64 and not set(word.lower()) - set("0123456789abcdef")


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
        if len(words) == 2 and _is_sha256(words[0]):
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
