"""Make monolingual text from the manuals, help pages and manual pages of Debian packages.

    apt-get update
    python scripts/data/debian_text.py --corpora runs/debian-l10n/en-de runs/debian-l10n/en-ro --out runs/debian-text

apt downloads the packages into a cache folder (nothing is installed, no root is needed); the documents are read
straight from the packages. Writes OUT/{en,de,ro}.txt, one sentence or paragraph a line, OUT/report.json, and
OUT/COPYRIGHT with the packages' copyright files.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nat_plugin.data.corpora import write_json
from nat_plugin.data.debian_packages import (
    Problems,
    find_packages,
    package_files,
    read_names,
)
from nat_plugin.data.documents import LANGUAGES, language_of, paragraphs_of
from nat_plugin.data.monolingual import TextCollector, read_corpora
from plugin_common.command_line import resumable
from plugin_common.errors import UserError, raise_all
from plugin_common.progress import progress_bar
from plugin_common.whole_folder import whole_folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REPORT = "report.json"
OUTPUTS = (REPORT, "COPYRIGHT", *(f"{language}.txt" for language in LANGUAGES))


@dataclass
class TextProblems(Problems):
    """What gave nothing, by the reason."""

    without_text: list[str] = field(default_factory=list)
    without_copyright_file: list[str] = field(default_factory=list)


@dataclass
class Gathered:
    """All that the packages gave: lines by language, documents by language, copyright files by package."""

    collectors: dict[str, TextCollector]
    documents: Counter[str] = field(default_factory=Counter)
    documents_without_text: Counter[str] = field(default_factory=Counter)
    copyrights: dict[str, bytes] = field(default_factory=dict)


def read_package(name: str, deb: Path, gathered: Gathered) -> bool:
    """Add a package's documents in the languages asked for; whether there is any.

    Raises:
        UserError: the file is no Debian package, or is damaged.
    """
    copyright_file = f"./usr/share/doc/{name}/copyright"
    found: list[tuple[str, str, bytes]] = []
    for path, content in package_files(
        deb, lambda path: path == copyright_file or language_of(path, name) in gathered.collectors
    ):
        if path == copyright_file:
            gathered.copyrights[name] = content
        else:
            found.append((language_of(path, name) or "", path, content))
    for language, path, content in sorted(found):
        paragraphs = paragraphs_of(path, content)
        gathered.documents[language] += 1
        gathered.documents_without_text[language] += not paragraphs
        gathered.collectors[language].add(name, paragraphs)
    return bool(found)


def gather(debs: Sequence[tuple[str, Path]], gathered: Gathered, problems: TextProblems) -> None:
    """Read all packages (name, file); broken ones are named in ``problems`` and left out.

    Raises:
        UserError: not one package could be read.
    """
    with progress_bar(total=len(debs), unit="package", description="reading") as bar:
        for name, deb in debs:
            try:
                if not read_package(name, deb, gathered):
                    problems.without_text.append(name)
                elif name not in gathered.copyrights:
                    problems.without_copyright_file.append(name)
            except UserError as error:
                logging.warning("%s", error)
                problems.broken.append(name)
            bar.update(1)
    if len(problems.broken) == len(debs):
        raise UserError(f"none of the {len(debs)} packages could be read (see above)")


def collectors_of(languages: Sequence[str], corpora: Sequence[Path]) -> dict[str, TextCollector]:
    """A collector for each language that refuses what any corpus holds out and has the training sides already."""
    collectors = {}
    for language in languages:
        train, held_out = read_corpora(corpora, language)
        collectors[language] = TextCollector(language, held_out)
        for name, lines in train:
            collectors[language].add_lines(name, lines)
    return collectors


def plain_counts(counts: Counter[str]) -> dict[str, int]:
    """Counts by reason as plain values for JSON, the largest first, none of zero."""
    return {str(reason): count for reason, count in counts.most_common() if count}


def source_report(collector: TextCollector) -> dict[str, dict[str, object]]:
    """Lines, words and drops of each source."""
    return {
        source: {
            "lines": len(collector.kept.get(source, [])),
            "words": sum(len(line.split()) for line in collector.kept.get(source, [])),
            "dropped": plain_counts(collector.dropped.get(source, Counter())),
        }
        for source in sorted({*collector.kept, *collector.dropped})
    }


def write(folder: Path, args: argparse.Namespace, gathered: Gathered, problems: TextProblems) -> None:
    """Write the texts, the copyright files and the report."""
    report: dict[str, object] = {}
    for language in args.languages:
        collector = gathered.collectors[language]
        if language != "en":
            collector.drop_lines_of(gathered.collectors["en"])
        lines = collector.lines(args.max_lines, args.seed)
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{language}.txt").write_text(text, encoding="utf-8", newline="\n")
        words = sum(len(line.split()) for line in lines)
        dropped: Counter[str] = sum(collector.dropped.values(), Counter())
        report[language] = {
            "lines": len(lines),
            "words": words,
            "documents": gathered.documents[language],
            "documents_without_text": gathered.documents_without_text[language],
            "dropped": plain_counts(dropped),
            "sources": source_report(collector),
        }
        print(f"{language}: {len(lines):,} lines, {words:,} words; {dropped.total():,} lines dropped")
    notices = [f"==== {name} ====\n".encode() + content for name, content in sorted(gathered.copyrights.items())]
    (folder / "COPYRIGHT").write_bytes(b"\n".join(notices))
    write_json(folder / REPORT, {"problems": vars(problems), "seed": args.seed, "languages": report})
    for label, failed in vars(problems).items():
        if failed:
            print(f"packages {label.replace('_', ' ')}: {len(failed)} ({', '.join(failed)})")
    print(f"report: {args.out / REPORT}")


def check(args: argparse.Namespace) -> None:
    """Find all that is wrong with the options at once.

    Raises:
        UserError: that list.
    """
    expected = ", ".join(LANGUAGES)
    wrong = [f"--languages {code}: expected among {expected}" for code in args.languages if code not in LANGUAGES]
    for folder in args.corpora:
        if lacking := [f"{side}.*" for side in ("train", "valid", "test") if not any(folder.glob(f"{side}.*"))]:
            found = f"no {', '.join(lacking)} there"
            wrong.append(f"--corpora {folder}: {found}; expected a folder made by debian_l10n.py (its OUT/en-de)")
    if args.corpora_only and not args.corpora:
        wrong.append("--corpora-only needs --corpora: name the folders to take the text from")
    if args.max_lines is not None and args.max_lines < 1:
        wrong.append(f"--max-lines {args.max_lines}: expected 1 or more")
    if args.out.exists() and not args.out.is_dir():
        wrong.append(f"--out {args.out} is no folder: give another name")
    elif args.out.exists() and (there := sorted(path.name for path in args.out.iterdir())):
        if strange := [name for name in there if name not in OUTPUTS]:
            wrong.append(f"--out {args.out} holds {', '.join(strange[:3])}, not made here: name another folder")
        elif not args.overwrite:
            wrong.append(f"--out {args.out} is not empty: name another folder, or give --overwrite")
    raise_all(wrong)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    check(args)
    problems = TextProblems()
    debs = []
    if not args.corpora_only:
        debs = find_packages(read_names(args.packages), args.cache, problems, download_them=not args.no_download)
    args.languages = list(dict.fromkeys(args.languages))
    # English is always read: it shows what the other languages left untranslated.
    gathered = Gathered(collectors_of(["en", *(code for code in args.languages if code != "en")], args.corpora))
    if debs:
        gather(debs, gathered, problems)
    with whole_folder(
        args.out, marker=REPORT, replaces=lambda there: [name for name in OUTPUTS if (there / name).exists()]
    ) as folder:
        write(folder, args, gathered, problems)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script: 0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="example:\n  python scripts/data/debian_text.py --packages manpages-de gedit-common --out runs/text",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the text that --out already holds")
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), metavar="CODE", help="default: %(default)s")
    parser.add_argument(
        "--corpora",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="corpora of debian_l10n.py (OUT/en-de ...): training sides are added, held-out lines are left out",
    )
    parser.add_argument(
        "--corpora-only", action="store_true", help="take the text of --corpora alone: no packages, no apt"
    )
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[str(HERE / "debian_text_packages.txt")],
        metavar="FILE-OR-NAME",
        help="default: the list beside this script",
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "debian-packages", help="where packages are put and kept"
    )
    parser.add_argument(
        "--no-download", action="store_true", help="use the packages in --cache as they are; needs no apt"
    )
    parser.add_argument("--max-lines", type=int, help="most lines of a language, drawn by --seed (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="decides the draw of --max-lines (default %(default)s)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return resumable(lambda: run(args), name="debian_text.py", interrupted="what is in the cache stays there")


if __name__ == "__main__":
    sys.exit(main())
