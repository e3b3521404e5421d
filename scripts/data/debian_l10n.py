"""Make parallel corpora from the message catalogues of Debian packages.

    apt-get update
    python scripts/data/debian_l10n.py --out runs/debian-l10n

apt downloads the packages into a cache folder (nothing is installed, no root is needed); the catalogues are read
straight from the packages. Writes OUT/en-de/{train,valid,test}.{en,de}, the same for en-ro, report.json and report.md.
"""

import argparse
import hashlib
import logging
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nat_plugin.data.catalogues import catalogue_paths
from nat_plugin.data.cleaning import CleaningRules
from nat_plugin.data.corpora import CorpusBuilder, report_markdown, report_of, write_json, write_split
from nat_plugin.data.splitting import split_pairs
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
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
    without_catalogues: list[str] = field(default_factory=list)


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


def package_catalogues(deb: Path, languages: Sequence[str]) -> dict[str, list[tuple[str, bytes]]]:
    """For each language the catalogues (path, content) in a ``.deb`` file, read as a stream: nothing is unpacked.

    Raises:
        UserError: the file is no Debian package, or is damaged.
    """
    contents: dict[str, bytes] = {}
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacker:
        try:
            with tarfile.open(fileobj=unpacker.stdout, mode="r|") as archive:
                contents.update(_read_catalogues(archive, languages))
            # Padding may follow the archive; were it left unread, dpkg-deb would die of the closed pipe.
            while unpacker.stdout is not None and unpacker.stdout.read(1 << 20):
                pass
        except tarfile.TarError as error:
            raise UserError(f"{deb}: damaged package ({error}); remove it and run again to fetch it anew") from None
    if unpacker.returncode:
        raise UserError(f"{deb}: dpkg-deb cannot read it; remove it and run again to fetch it anew")
    return {code: [(path, contents[path]) for path in catalogue_paths(contents, code)] for code in languages}


def _read_catalogues(archive: tarfile.TarFile, languages: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        if member.isfile() and any(catalogue_paths([member.name], code) for code in languages):
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def gather(debs: Sequence[tuple[str, Path]], builders: dict[str, CorpusBuilder], problems: Problems) -> None:
    """Read all packages (name, file) into the builders; broken ones are counted and left out.

    Raises:
        UserError: not one package could be read.
    """
    with progress_bar(total=len(debs), unit="package", description="reading") as bar:
        for name, deb in debs:
            try:
                catalogues = package_catalogues(deb, list(builders))
            except UserError as error:
                logging.warning("%s", error)
                problems.broken.append(name)
            else:
                if not any(catalogues.values()):
                    problems.without_catalogues.append(name)
                for code, found in catalogues.items():
                    for path, content in found:
                        builders[code].add(name, path, content)
            bar.update(1)
    if len(problems.broken) == len(debs):
        raise UserError(f"none of the {len(debs)} packages could be read (see above)")


def write_report(
    out: Path, builders: dict[str, CorpusBuilder], sizes: dict[str, dict[str, int]], problems: Problems
) -> None:
    """Write report.json and report.md into ``out``."""
    report = {f"en-{code}": {**report_of(builder), "sides": sizes[code]} for code, builder in builders.items()}
    write_json(out / "report.json", {"problems": vars(problems), **report})
    lines = ["# Corpora from Debian's message catalogues", ""]
    for label, names in vars(problems).items():
        if names:
            lines += [f"Packages {label.replace('_', ' ')}: {', '.join(names)}.", ""]
    for code, builder in builders.items():
        sides = ", ".join(f"{side} {size:,}" for side, size in sizes[code].items())
        lines += [report_markdown(f"English – {code}", builder), f"Split: {sides}.", ""]
    (out / "report.md").write_text("\n".join(lines), encoding="utf-8")


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    languages = _languages(args.pairs)
    names = read_names(args.packages)
    needed = ["dpkg-deb"] if args.no_download else ["dpkg-deb", "apt-get", "apt-cache"]
    if lacking := [tool for tool in needed if shutil.which(tool) is None]:
        raise UserError(f"{', '.join(lacking)} not found: this script needs Debian or a system made from it")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        if not args.overwrite:
            raise UserError(f"--out {args.out} is not empty: name another folder, or give --overwrite")
        if not (args.out / "report.json").is_file():
            raise UserError(f"--out {args.out} holds no report.json, so it is no corpus made here: name another folder")
    problems = Problems()
    if args.no_download:
        debs = cached_packages(names, args.cache, problems)
    else:
        packages = download(look_up(names, problems), args.cache, problems)
        debs = [(package.name, args.cache / package.file_name) for package in packages]
    rules = CleaningRules(max_characters=args.max_characters)
    builders = {code: CorpusBuilder(code, rules, all_translations=args.all_translations) for code in languages}
    gather(debs, builders, problems)
    splits = {
        code: split_pairs(builder.pairs(), valid_size=args.valid_size, test_size=args.test_size, seed=args.seed)
        for code, builder in builders.items()
    }
    for stale in args.out.glob("en-*"):  # else a pair left out this time would stay there, with no line in the report
        shutil.rmtree(stale)
    sizes: dict[str, dict[str, int]] = {}
    for code, sides in splits.items():
        write_split(args.out / f"en-{code}", sides, source="en", target=code)
        sizes[code] = {side: len(pairs) for side, pairs in sides.items()}
        print(f"en-{code}: " + ", ".join(f"{side} {size}" for side, size in sizes[code].items()))
    write_report(args.out, builders, sizes, problems)
    for label, failed in vars(problems).items():
        if failed:
            print(f"packages {label.replace('_', ' ')}: {len(failed)} ({', '.join(failed)})")
    print(f"report: {args.out / 'report.md'}")


def _languages(pairs: str) -> list[str]:
    """ "en-de,en-ro" → ["de", "ro"]."""
    languages = []
    for pair in pairs.split(","):
        source, _, target = pair.strip().partition("-")
        if source != "en" or not re.fullmatch(r"[a-z]{2,3}", target):
            raise UserError(
                f"--pairs {pair!r}: expected en-XX, for example en-de,en-ro (the catalogues' source is English)"
            )
        languages.append(target)
    return list(dict.fromkeys(languages))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script: 0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="example:\n  python scripts/data/debian_l10n.py --packages gimp-data coreutils --out runs/debian-l10n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default_list = str(HERE / "debian_l10n_packages.txt")
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[default_list],
        metavar="FILE-OR-NAME",
        help="default: the list beside this script",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a corpus that --out already holds")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "debian-packages", help="where packages are put and kept"
    )
    parser.add_argument(
        "--no-download", action="store_true", help="use the packages in --cache as they are; needs no apt"
    )
    parser.add_argument("--pairs", default="en-de,en-ro", help="language pairs, by commas (default %(default)s)")
    parser.add_argument(
        "--valid-size", type=int, default=2000, help="pairs held out for validation (default %(default)s)"
    )
    parser.add_argument("--test-size", type=int, default=2000, help="pairs held out for testing (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the split (default %(default)s)")
    parser.add_argument("--max-characters", type=int, default=400, help="longest string kept (default %(default)s)")
    parser.add_argument(
        "--all-translations",
        action="store_true",
        help="keep every translation of a source, not the most frequent alone",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        run(args)
    except UserError as error:
        print(f"debian_l10n.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("debian_l10n.py: interrupted; what is in the cache stays there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
