"""Have apt fetch Debian packages into a folder, and read files out of them; nothing is installed or unpacked."""

import hashlib
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

# Few enough that a lost connection costs little, enough that apt's start-up time does not count.
PACKAGES_PER_DOWNLOAD = 8


@dataclass(frozen=True)
class Package:
    """What apt knows of a package that it can download."""

    name: str
    version: str
    architecture: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name that ``apt-get download`` gives the file."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass
class Problems:
    """Packages that gave nothing, by the reason."""

    unknown: list[str] = field(default_factory=list)
    not_downloaded: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def read_names(arguments: Sequence[str]) -> list[str]:
    """Package names: given as such, or files with names ("#" starts a comment); each name once, sorted."""
    names: set[str] = set()
    for argument in arguments:
        path = Path(argument)
        if "/" in argument or argument.endswith(".txt") or path.is_file():
            if not path.is_file():
                raise UserError(f"--packages {argument}: no such file")
            lines = path.read_text(encoding="utf-8").splitlines()
            names.update(word for line in lines for word in line.partition("#")[0].split())
        else:
            names.add(argument)
    if wrong := sorted(name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name)):
        raise UserError(f"--packages: not names of Debian packages: {', '.join(wrong)}")
    if not names:
        raise UserError("--packages: no package is named; leave the option out for the default list")
    return sorted(names)


def look_up(names: Sequence[str], problems: Problems) -> list[Package]:
    """What apt knows of the packages; unknown names go to ``problems``.

    Raises:
        UserError: none is known: apt's lists were never fetched.
    """
    command = ["apt-cache", "show", "--no-all-versions", *names]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    found: dict[str, Package] = {}
    for stanza in shown.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|SHA256): *(.*)$", stanza, re.MULTILINE))
        if len(fields) == 4:
            found.setdefault(
                fields["Package"], Package(*(fields[key] for key in ("Package", "Version", "Architecture", "SHA256")))
            )
    problems.unknown += [name for name in names if name not in found]
    if not found:
        raise UserError(f"apt knows none of the {len(names)} packages: run 'apt-get update' first and check the names")
    return [found[name] for name in names if name in found]


def download(packages: Sequence[Package], cache: Path, problems: Problems) -> list[Package]:
    """Have apt put the packages into ``cache``; gives those that lie there whole in the end, in the same order.

    A file that is there already, with the right checksum, is not fetched again; a damaged one is.

    Raises:
        UserError: not one package could be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if not _is_whole(cache / package.file_name, package.sha256)]
    message = ""
    with progress_bar(total=len(missing), unit="package", description="downloading") as bar:
        for start in range(0, len(missing), PACKAGES_PER_DOWNLOAD):
            batch = missing[start : start + PACKAGES_PER_DOWNLOAD]
            if _apt_download(batch, cache):
                for package in batch:  # one by one: apt gives up the whole batch for one package it cannot get
                    message = _apt_download([package], cache) or message
            bar.update(len(batch))
    whole = [package for package in packages if _is_whole(cache / package.file_name, package.sha256)]
    problems.not_downloaded += sorted({package.name for package in packages} - {package.name for package in whole})
    if not whole:
        raise UserError(f"apt-get could not download any of the {len(packages)} packages; check the network. {message}")
    return whole


def _apt_download(packages: Sequence[Package], cache: Path) -> str:
    """Empty on success, apt's last line of error otherwise."""
    for package in packages:
        (cache / package.file_name).unlink(missing_ok=True)
    command = ["apt-get", "download", "-q", *(f"{package.name}={package.version}" for package in packages)]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["apt-get failed"])[-1] if done.returncode else ""


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def cached_packages(names: Sequence[str], cache: Path, problems: Problems) -> list[tuple[str, Path]]:
    """The files of the named packages in ``cache``, whatever their version (the last by name if there are several)."""
    files = {name: sorted(cache.glob(f"{name}_*.deb")) for name in names}
    problems.not_downloaded += [name for name, found in files.items() if not found]
    if not any(files.values()):
        raise UserError(f"--cache {cache}: none of the {len(names)} packages lies there; run without --no-download")
    return [(name, found[-1]) for name, found in files.items() if found]


def find_packages(
    names: Sequence[str], cache: Path, problems: Problems, *, download_them: bool
) -> list[tuple[str, Path]]:
    """The named packages as (name, file in ``cache``), fetched by apt first unless ``download_them`` is False.

    Raises:
        UserError: a program of Debian's is missing, or not one package can be had.
    """
    needed = ["dpkg-deb", "apt-get", "apt-cache"] if download_them else ["dpkg-deb"]
    if lacking := [tool for tool in needed if shutil.which(tool) is None]:
        raise UserError(f"{', '.join(lacking)} not found: this script needs Debian or a system made from it")
    if not download_them:
        return cached_packages(names, cache, problems)
    packages = download(look_up(names, problems), cache, problems)
    return [(package.name, cache / package.file_name) for package in packages]


def package_files(deb: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each wanted plain file in a ``.deb`` file, read as a stream: nothing is unpacked.

    Args:
        deb: the package.
        wanted: told a path as the archive has it (``./usr/share/...``), says whether to read it.

    Raises:
        UserError: the file is no Debian package, or is damaged.
    """
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacker:
        try:
            with tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and wanted(member.name):
                        file = archive.extractfile(member)
                        if file is not None:
                            yield member.name, file.read()
            # Padding may follow the archive; were it left unread, dpkg-deb would die of the closed pipe.
            while unpacker.stdout is not None and unpacker.stdout.read(1 << 20):
                pass
        except tarfile.TarError as error:
            raise UserError(f"{deb}: damaged package ({error}); remove it and run again to fetch it anew") from None
    if unpacker.returncode:
        raise UserError(f"{deb}: dpkg-deb cannot read it; remove it and run again to fetch it anew")
