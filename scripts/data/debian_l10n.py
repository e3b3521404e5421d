"""Make parallel corpora from the message catalogues of Debian packages.

    apt-get update
    python scripts/data/debian_l10n.py --out runs/debian-l10n

apt downloads the packages into a cache folder (nothing is installed, no root is needed); the catalogues are read
straight from the packages. Writes OUT/en-de/{train,valid,test}.{en,de}, the same for en-ro, report.json and report.md.
"""

import argparse
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nat_plugin.data.catalogues import catalogue_paths
from nat_plugin.data.cleaning import CleaningRules
from nat_plugin.data.corpora import CorpusBuilder, report_markdown, report_of, write_json, write_split
from nat_plugin.data.debian_packages import (
    Problems,
    find_packages,
    package_files,
    read_names,
)
from nat_plugin.data.splitting import split_pairs
from plugin_common.command_line import resumable
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass
class CatalogueProblems(Problems):
    """Packages that gave nothing, by the reason."""

    without_catalogues: list[str] = field(default_factory=list)


def package_catalogues(deb: Path, languages: Sequence[str]) -> dict[str, list[tuple[str, bytes]]]:
    """For each language the catalogues (path, content) in a ``.deb`` file, read as a stream: nothing is unpacked.

    Raises:
        UserError: the file is no Debian package, or is damaged.
    """
    contents = dict(package_files(deb, lambda path: any(catalogue_paths([path], code) for code in languages)))
    return {code: [(path, contents[path]) for path in catalogue_paths(contents, code)] for code in languages}


def gather(debs: Sequence[tuple[str, Path]], builders: dict[str, CorpusBuilder], problems: CatalogueProblems) -> None:
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
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        if not args.overwrite:
            raise UserError(f"--out {args.out} is not empty: name another folder, or give --overwrite")
        if not (args.out / "report.json").is_file():
            raise UserError(f"--out {args.out} holds no report.json, so it is no corpus made here: name another folder")
    problems = CatalogueProblems()
    debs = find_packages(names, args.cache, problems, download_them=not args.no_download)
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
    return resumable(lambda: run(args), name="debian_l10n.py", interrupted="what is in the cache stays there")


if __name__ == "__main__":
    sys.exit(main())
