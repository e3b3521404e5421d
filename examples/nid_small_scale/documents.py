"""Documents of English prose: manuals and manual pages out of Debian packages, or the texts of this repository.

python documents.py --source debian --out runs/nid-documents
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from examples.nid_small_scale.prose import LEAST_PROSE, count_words, documents_of, markdown_paragraphs, prose_share
from nat_plugin.data.debian_packages import Problems, find_packages, package_files
from nat_plugin.data.documents import language_of, paragraphs_of
from nat_plugin.data.marked_up_text import HOLE
from plugin_common.command_line import resumable
from plugin_common.errors import UserError, raise_all
from plugin_common.progress import progress_bar
from plugin_common.whole_folder import whole_folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = HERE / "packages.txt"
SOURCES = ("debian", "repository")
DOCUMENTS, REPORT, COPYRIGHT = "documents.jsonl", "report.json", "COPYRIGHT"
_PILCROW = "¶"  # Sphinx puts it after a heading, as a link


@dataclass(frozen=True)
class Document:
    """A text, and where it may be found and under which licence."""

    text: str
    source: str
    package: str
    licence: str

    @property
    def key(self) -> bytes:
        """The same for equal texts."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).digest()


@dataclass
class Gathered:
    """Documents by package, and what was left out, by the reason."""

    documents: dict[str, list[Document]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    files: int = 0
    copyrights: dict[str, bytes] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    seen: set[bytes] = field(default_factory=set)

    def add_text(self, paragraphs: Sequence[str], source: str, package: str, licence: str, words: range) -> None:
        """Add the documents of a file that have as many words as ``words`` holds."""
        self.files += 1
        whole = [paragraph.replace(_PILCROW, "").strip() for paragraph in paragraphs if HOLE not in paragraph]
        self.left_out["paragraphs with a gap that only a reader's program would fill"] += len(paragraphs) - len(whole)
        for number, piece in enumerate(documents_of([one for one in whole if one], words[-1]), start=1):
            document = Document("\n\n".join(piece), f"{source}#{number}", package, licence)
            if count_words(piece) not in words:
                reason = "shorter or longer than asked for"
            elif prose_share(piece) < LEAST_PROSE:
                reason = "too little running prose"
            elif document.key in self.seen:
                reason = "repeats another one"
            else:
                self.seen.add(document.key)
                self.documents.setdefault(package, []).append(document)
                continue
            self.left_out[reason] += 1


def read_list(path: Path) -> dict[str, str]:
    """Licence by package: a name and the licence a line, ``#`` starts a comment.

    Raises:
        UserError: the file cannot be read, is empty, or has a line without a licence.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--packages {path}: cannot be read ({error.strerror})") from error
    listed = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        name, _, licence = line.partition("#")[0].strip().partition(" ")
        if name and not licence.strip():
            problems.append(f"--packages {path}, line {number}: {name} without the licence of its texts")
        elif name:
            listed[name] = licence.strip()
    if not listed and not problems:
        problems.append(f"--packages {path}: names no package")
    raise_all(problems)
    return listed


def read_debian(args: argparse.Namespace, gathered: Gathered) -> None:
    """Add the English documents of the packages.

    Raises:
        UserError: not one package can be had, or read.
    """
    licences = read_list(args.packages)
    debs = find_packages(sorted(licences), args.cache, gathered.problems, download_them=not args.no_download)
    with progress_bar(total=len(debs), unit=" packages", description="reading") as bar:
        for name, deb in debs:
            try:
                _read_package(name, deb, licences[name], gathered, range(args.least_words, args.most_words + 1))
            except UserError as error:
                logging.warning("%s", error)
                gathered.problems.broken.append(name)
            bar.update(1)


def _read_package(name: str, deb: Path, licence: str, gathered: Gathered, words: range) -> None:
    copyright_file = f"./usr/share/doc/{name}/copyright"
    files = dict(package_files(deb, lambda path: path == copyright_file or language_of(path, name) == "en"))
    gathered.copyrights[name] = files.pop(copyright_file, b"(the package has no copyright file)\n")
    for path, content in sorted(files.items()):
        gathered.add_text(paragraphs_of(path, content), f"{name}:{path.removeprefix('./')}", name, licence, words)


def read_repository(args: argparse.Namespace, gathered: Gathered) -> None:
    """Add the documents of this repository's Markdown files."""
    files = [
        ROOT / "README.md",
        *sorted((ROOT / "docs" / "user-guide").glob("*.md")),
        *sorted((ROOT / "examples").rglob("*.md")),
    ]
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        paragraphs = markdown_paragraphs(path.read_text(encoding="utf-8"))
        words = range(args.least_words, args.most_words + 1)
        gathered.add_text(paragraphs, name, "this repository", "the licence of this repository", words)


def capped(documents: Sequence[Document], most: int, seed: int) -> list[Document]:
    """At most so many of them, drawn by the seed from their texts, in their order."""
    drawn = sorted(documents, key=lambda one: hashlib.blake2b(one.key, key=str(seed).encode()).digest())[:most]
    kept = {document.key for document in drawn}
    return [document for document in documents if document.key in kept]


def write(folder: Path, args: argparse.Namespace, gathered: Gathered) -> None:
    """Write the documents, the copyright files and the report; tells what there is.

    Raises:
        UserError: there is no document.
    """
    kept = {name: capped(own, args.per_package, args.seed) for name, own in sorted(gathered.documents.items())}
    documents = [document for own in kept.values() for document in own]
    if not documents:
        raise UserError(
            f"no document of {args.least_words} to {args.most_words} words came out of {gathered.files:,} files"
        )
    gathered.left_out["more of a package than asked for"] = sum(map(len, gathered.documents.values())) - len(documents)
    with (folder / DOCUMENTS).open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in documents)
    notices = [f"==== {name} ====\n".encode() + text for name, text in sorted(gathered.copyrights.items())]
    (folder / COPYRIGHT).write_bytes(b"\n".join(notices))
    report: dict[str, Any] = {
        "documents": len(documents),
        "words": sum(len(document.text.split()) for document in documents),
        "files": gathered.files,
        "by_package": {name: len(own) for name, own in kept.items()},
        "left_out": {reason: count for reason, count in gathered.left_out.most_common() if count},
        "packages_without_result": vars(gathered.problems),
    }
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{report['documents']:,} documents, {report['words']:,} words, out of {gathered.files:,} files")
    for reason, count in report["left_out"].items():
        print(f"  left out: {count:,} {reason}")
    for problem, names in vars(gathered.problems).items():
        if names:
            print(f"  packages {problem.replace('_', ' ')}: {', '.join(names)}")


def check(args: argparse.Namespace) -> None:
    """Find all that is wrong with the options at once.

    Raises:
        UserError: that list.
    """
    wrong = []
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        wrong.append(f"--out {args.out}: is there already; give a new or empty folder")
    if not 1 <= args.least_words <= args.most_words:
        wrong.append(f"--least-words {args.least_words}, --most-words {args.most_words}: expected 1 or more, in order")
    if args.per_package < 1:
        wrong.append(f"--per-package {args.per_package}: expected 1 or more")
    raise_all(wrong)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    check(args)
    gathered = Gathered()
    (read_debian if args.source == "debian" else read_repository)(args, gathered)
    with whole_folder(args.out, marker=REPORT) as folder:
        write(folder, args, gathered)


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SOURCES, default="debian", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"new folder: {DOCUMENTS}, {REPORT}")
    parser.add_argument(
        "--packages", type=Path, default=PACKAGES, metavar="FILE", help="a name and its licence a line (default: ours)"
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "debian-packages", help="where packages are put and kept"
    )
    parser.add_argument("--no-download", action="store_true", help="take the packages in --cache as they are; no apt")
    parser.add_argument("--least-words", type=int, default=150, metavar="N", help="a document (default %(default)s)")
    parser.add_argument("--most-words", type=int, default=1500, metavar="N", help="a document (default %(default)s)")
    parser.add_argument(
        "--per-package", type=int, default=400, metavar="N", help="most documents of a package (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides which these are (default %(default)s)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return resumable(lambda: run(args), name="documents.py", interrupted="what is in the cache stays there")


if __name__ == "__main__":
    sys.exit(main())
