"""Debian packages as a source of message catalogues: fetched with apt, read without being unpacked or installed."""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from plugin_common.errors import UserError

PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
PACKAGES_PER_CALL = 20
_CATALOGUE = re.compile(r"/(?P<locale>[a-z]{2,3}(?:_[A-Z]{2})?)/LC_MESSAGES/[^/]+\.mo$")
_UNKNOWN = re.compile(
    r"(?:Unable to locate package|Can't find a source to download version .* of|from package) '?([a-z0-9][a-z0-9+.-]+)"
)


class DebError(ValueError):
    """The file is no readable Debian package."""


class Catalogue(NamedTuple):
    """A ``.mo`` file of a package."""

    path: str
    locale: str
    data: bytes


@dataclass
class DebContents:
    """Of a package: the catalogues in the order of their paths, and the statement of copyright and licence."""

    catalogues: list[Catalogue] = field(default_factory=list)
    copyright: bytes | None = None


@dataclass
class Downloads:
    """Package files by name, and why there is none for the other names."""

    files: dict[str, Path] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Packages that apt knows but could not fetch, each with its error."""


def require_tools(*names: str) -> None:
    """Raise a ``UserError`` unless all the programs are on the path."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not found: this needs Debian, or a system derived from it, with apt and dpkg"
        )


def cached_package(name: str, cache: Path) -> Path | None:
    """The file ``name_version_architecture.deb`` in the folder; of several, the newest written."""
    return max(cache.glob(f"{name}_*_*.deb"), key=lambda file: (file.stat().st_mtime, file.name), default=None)


def version_of(file: Path) -> str:
    """The version in the name of a package file (apt writes the colon of an epoch as ``%3a``)."""
    return unquote(file.name.split("_")[1])


def download(names: Sequence[str], cache: Path, advance: Callable[[int], object] = lambda _count: None) -> Downloads:
    """Fetch packages with ``apt-get download``; what the cache holds is not fetched again.

    Several packages go into one call; where that fails, each is tried alone, so that one bad name costs only itself.

    Args:
        names: of packages.
        cache: folder that keeps the package files; made if need be. Only complete files get into it.
        advance: called with the number of packages dealt with.
    """
    cache.mkdir(parents=True, exist_ok=True)
    downloads = Downloads()
    wanted = [name for name in names if cached_package(name, cache) is None]
    advance(len(names) - len(wanted))
    for start in range(0, len(wanted), PACKAGES_PER_CALL):
        batch = wanted[start : start + PACKAGES_PER_CALL]
        error = _apt_download(batch, cache)
        if error is not None:
            _download_singly(batch, error, cache, downloads)
        advance(len(batch))
    for name in names:
        file = cached_package(name, cache)
        if file is not None:
            downloads.files[name] = file
        elif name not in downloads.unknown:
            downloads.failed.setdefault(name, "apt-get reported success but left no package file")
    return downloads


def _download_singly(batch: Sequence[str], error: str, cache: Path, downloads: Downloads) -> None:
    """The packages of a failed call, one by one, but for those that its error already names as unknown."""
    unknown = set(_UNKNOWN.findall(error)) & set(batch)
    for name in batch:
        single = error if name in unknown else _apt_download([name], cache)
        if name in unknown or (single is not None and name in _UNKNOWN.findall(single)):
            downloads.unknown.append(name)
        elif single is not None:
            downloads.failed[name] = single


def _apt_download(names: Collection[str], cache: Path) -> str | None:
    """None if all were fetched, else apt's errors.

    Downloads into a folder of its own, from which finished files are moved: apt writes under the final name, and an
    interrupted run would leave a torn file that looks complete.
    """
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=cache) as folder:
        Path(folder).chmod(0o755)
        command = [
            "apt-get",
            "--quiet",
            "-o",
            "Acquire::Retries=2",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            *names,
        ]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            errors = [line[3:] for line in done.stderr.splitlines() if line.startswith("E: ")]
            return "; ".join(errors) or done.stderr.strip() or f"apt-get ended with status {done.returncode}"
        for file in Path(folder).glob("*.deb"):
            file.replace(cache / file.name)
    return None


def read_deb(file: Path, locales: Collection[str]) -> DebContents:
    """The catalogues of some locales, and the copyright file, straight from the package file.

    Links are passed over: what they point to is read where it stands.

    Raises:
        DebError: damaged, or no Debian package.
    """
    contents = DebContents()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        problem = _read_tar(process, contents, locales)
        # To the end, or dpkg-deb would die of a closed pipe and a sound package would look damaged.
        while process.stdout is not None and process.stdout.read(1 << 20):
            pass
        if process.wait() != 0:
            errors.seek(0)
            problem = errors.read().decode("utf-8", "replace").strip().replace("\n", "; ")
    if problem:
        raise DebError(problem)
    contents.catalogues.sort(key=lambda catalogue: catalogue.path)
    return contents


def _read_tar(process: "subprocess.Popen[bytes]", contents: DebContents, locales: Collection[str]) -> str:
    """Fill ``contents``; the problem in words, or nothing."""
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                catalogue = _CATALOGUE.search(member.name)
                wanted = catalogue is not None and catalogue["locale"] in locales
                is_copyright = re.search(r"usr/share/doc/[^/]+/copyright$", member.name) is not None
                stream = tar.extractfile(member) if member.isreg() and (wanted or is_copyright) else None
                if stream is None:
                    continue
                if catalogue is not None:
                    contents.catalogues.append(
                        Catalogue(member.name.removeprefix("./"), catalogue["locale"], stream.read())
                    )
                else:
                    contents.copyright = stream.read()
    except (tarfile.TarError, EOFError) as error:
        return str(error)
    return ""
