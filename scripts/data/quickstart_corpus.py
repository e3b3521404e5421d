"""Make the quickstart's data: human translations from the catalogues of BSD- and MIT-licensed Python packages.

    python scripts/data/quickstart_corpus.py --cache runs/wheels --out examples/quickstart/data

pip downloads the wheels that ``quickstart_packages.txt`` pins by version and hash (about 110 MB) into the cache. The
same wheels and options give the same files, byte for byte.
"""

import argparse
import email
import logging
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nat_plugin.data.catalogues import catalogue_paths
from nat_plugin.data.cleaning import CleaningRules
from nat_plugin.data.corpora import CorpusBuilder, report_of, write_json, write_split
from nat_plugin.data.splitting import split_pairs
from plugin_common.errors import UserError, raise_all

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# pairs held out for valid and as many for test
HELD_OUT = {"de": 500, "ro": 400}
# Wheels are chosen for this Python, whichever one runs the script, so that everybody gets the same ones.
WHEELS_FOR_PYTHON = "3.12.9"
_LICENCE_FILE = re.compile(
    r"^[^/]+\.dist-info/(?:licenses/)?(?:LICEN[SC]E|COPYING)(?:\.(?:txt|md|rst))?$", re.IGNORECASE
)
_PERMISSIONS = {
    "BSD": "Redistribution and use in source and binary forms",
    "MIT": "Permission is hereby granted, free of charge",
}
_COPYLEFT = re.compile(r"GNU (?:AFFERO |LESSER |LIBRARY )?GENERAL PUBLIC LICENSE|\b[AL]?GPL(?:-|v)?[23]", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A package whose translations are used: what its wheel says of itself."""

    name: str
    version: str
    licence: str
    holders: tuple[str, ...]
    licence_text: str


def read_source(wheel: Path) -> Source:
    """Name, version and licence of a wheel, from its own metadata and licence file.

    Raises:
        UserError: not a wheel; no licence file; a licence that is neither BSD nor MIT.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            metadata_path = next(name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            metadata = email.message_from_bytes(archive.read(metadata_path))
            texts = [archive.read(name).decode("utf-8") for name in sorted(names) if _LICENCE_FILE.match(name)]
    except (zipfile.BadZipFile, StopIteration):
        raise UserError(f"{wheel}: not a wheel; remove it and run again to fetch it anew") from None
    if not texts:
        raise UserError(f"{wheel.name}: no licence file in it; only packages that ship their licence can be used")
    licence = next((name for name, permission in _PERMISSIONS.items() if permission in _one_line(texts[0])), None)
    declared = " ".join([metadata.get("License-Expression") or "", *metadata.get_all("Classifier", [])])
    if licence is None or _COPYLEFT.search(declared):
        raise UserError(f"{wheel.name}: its licence is neither BSD nor MIT; take it out of quickstart_packages.txt")
    notices = re.findall(r"^[\W_]*(?:.{0,20}?\()?(Copyright (?:\(c\)|©|\d).*)$", texts[0], re.MULTILINE | re.IGNORECASE)
    return Source(
        name=metadata["Name"],
        version=metadata["Version"],
        licence=licence,
        holders=tuple(notice.strip() for notice in notices),
        licence_text="\n".join(line.rstrip() for line in texts[0].strip().splitlines()) + "\n",
    )


def download(requirements: Path, cache: Path) -> None:
    """Have pip put the pinned wheels into ``cache``; those that lie there already are not fetched again."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += [
        "--python-version",
        WHEELS_FOR_PYTHON,
        "--find-links",
        str(cache),
        "-d",
        str(cache),
        "-r",
        str(requirements),
    ]
    cache.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"pip could not download the packages of {requirements}:\n{done.stderr.strip()}\n"
            "check the network and run again: what is in the cache stays there"
        )


def pinned_wheels(requirements: Path, cache: Path) -> list[Path]:
    """The wheels in ``cache`` that the requirements name, in the order of their names."""
    wheels = {tuple(path.name.split("-")[:2]): path for path in cache.glob("*.whl")}
    by_pin = {(re.sub(r"[-_.]+", "-", name).lower(), version): path for (name, version), path in wheels.items()}
    pins = re.findall(r"^([\w.-]+)==([^\s#]+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = sorted((re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in pins)
    raise_all(
        f"{cache}: no wheel of {name}=={version}; run without --no-download"
        for name, version in wanted
        if (name, version) not in by_pin
    )
    return [by_pin[pin] for pin in wanted]


def build(wheels: Sequence[Path], out: Path, *, languages: dict[str, int], seed: int, max_characters: int) -> None:
    """Write the corpora, NOTICE, LICENSES/ and report.json into ``out``.

    Args:
        wheels: the packages, in the order that decides ties.
        languages: target language → pairs held out for valid, and as many for test.
    """
    sources = {wheel: read_source(wheel) for wheel in wheels}
    builders = {code: CorpusBuilder(code, CleaningRules(max_characters=max_characters)) for code in languages}
    for wheel, source in sources.items():
        with zipfile.ZipFile(wheel) as archive:
            for code, builder in builders.items():
                for path in catalogue_paths(archive.namelist(), code):
                    builder.add(source.name, path, archive.read(path))
    for code, held_out in languages.items():
        pairs = builders[code].pairs()
        sides = split_pairs(pairs, valid_size=held_out, test_size=held_out, seed=seed)
        write_split(out / f"en-{code}", sides, source="en", target=code)
        print(f"en-{code}: " + ", ".join(f"{side} {len(part)}" for side, part in sides.items()))
    write_json(out / "report.json", {f"en-{code}": report_of(builder) for code, builder in builders.items()})
    used = [source for source in sources.values() if any(_kept(builder, source) for builder in builders.values())]
    _write_notice(out, used, builders)


def _kept(builder: CorpusBuilder, source: Source) -> int:
    return builder.tallies[source.name].kept if source.name in builder.tallies else 0


def _write_notice(out: Path, sources: Sequence[Source], builders: dict[str, CorpusBuilder]) -> None:
    lines = [
        "The sentence pairs in this folder are translations from the message catalogues of the packages below,",
        "changed by scripts/data/quickstart_corpus.py (markup and accelerators removed, placeholders made uniform).",
        "Each package's copyright notice, conditions and disclaimer stand in LICENSES/. A pair that several packages",
        "share is counted for the first of them.",
        "",
    ]
    folder = out / "LICENSES"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.txt"):
        stale.unlink()
    for source in sources:
        counts = ", ".join(f"{_kept(builder, source)} en-{code}" for code, builder in builders.items())
        lines += [f"{source.name} {source.version}", f"  licence: {source.licence} (LICENSES/{source.name}.txt)"]
        lines += [f"  {holder}" for holder in source.holders]
        lines += [f"  pairs: {counts}", ""]
        (folder / f"{source.name}.txt").write_text(source.licence_text, encoding="utf-8", newline="\n")
    (out / "NOTICE").write_text("\n".join(lines), encoding="utf-8", newline="\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; 0 on success, 1 on bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--packages", type=Path, default=HERE / "quickstart_packages.txt", help="pinned packages with hashes"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "wheels", help="where the wheels lie or are put")
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "quickstart" / "data", help="folder to write")
    parser.add_argument("--no-download", action="store_true", help="use the wheels in --cache as they are")
    parser.add_argument("--seed", type=int, default=1, help="decides the split (default 1)")
    parser.add_argument("--max-characters", type=int, default=200, help="longest string kept (default 200)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if not args.packages.is_file():
            raise UserError(f"--packages {args.packages}: no such file")
        if not args.no_download:
            download(args.packages, args.cache)
        wheels = pinned_wheels(args.packages, args.cache)
        build(wheels, args.out, languages=HELD_OUT, seed=args.seed, max_characters=args.max_characters)
    except UserError as error:
        print(f"quickstart_corpus.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
