"""A subset of a data-bin as token text: what fairseq-preprocess would be given to make it again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugin_common.errors import UserError

_BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class Side:
    """One language of a subset; sentences are read from disk one by one."""

    language: str
    dictionary: Any
    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """``[N]`` tokens of each sentence, ``</s>`` included."""
        return np.asarray(self.dataset.sizes)

    def text(self, index: int) -> str:
        """The tokens of a sentence joined by spaces, without the final ``</s>``."""
        ids = self.dataset[index].tolist()
        if ids and ids[-1] == self.dictionary.eos():
            ids.pop()
        return " ".join(self.dictionary.symbols[i] for i in ids)


@dataclass(frozen=True)
class BinaryCorpus:
    """A subset of a data-bin.

    ``dictionary_files`` and ``files`` (the subset's) decide its content; :meth:`digest` stands for it.
    """

    folder: Path
    subset: str
    source: Side
    target: Side
    dictionary_files: tuple[Path, ...]
    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.source)

    def digest(self) -> str:
        """SHA-256 over the dictionaries and both sides of the subset (about a second a gigabyte)."""
        return sha256(*self.dictionary_files, *self.files)


def open_corpus(folder: str, subset: str, source_lang: str, target_lang: str) -> BinaryCorpus:
    """Open both sides of a subset.

    Raises:
        UserError: files are missing (all are named), or the sides differ in length.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; give the --destdir of fairseq-preprocess")
    languages = (source_lang, target_lang)
    dictionaries = tuple(root / f"dict.{language}.txt" for language in languages)
    pairs = [f"{subset}.{source_lang}-{target_lang}", f"{subset}.{target_lang}-{source_lang}"]
    pair = next((name for name in pairs if (root / f"{name}.{source_lang}.idx").is_file()), pairs[0])
    files = tuple(root / f"{pair}.{language}.{end}" for language in languages for end in ("idx", "bin"))
    missing = [path.name for path in (*dictionaries, *files) if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder}: lacks {', '.join(missing)}; {_known_subsets(root, languages)} check DATA_BIN, the name of the "
            "subset, --source-lang and --target-lang, or run fairseq-preprocess"
        )
    source, target = (_open_side(root, pair, language) for language in languages)
    if len(source) != len(target):
        raise UserError(
            f"{folder}: {pair} has {len(source):,} sentences of {source_lang} and {len(target):,} of {target_lang}; "
            "preprocess files of the same number of lines"
        )
    return BinaryCorpus(root, subset, source, target, dictionaries, files)


def languages_of(folder: str, subset: str) -> tuple[str, str]:
    """The pair in the names of a subset's files, in the order of fairseq-preprocess.

    Raises:
        UserError: no file, or files of several pairs.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; give the --destdir of fairseq-preprocess")
    pairs = sorted({path.name.split(".")[-3] for path in root.glob(f"{subset}.*-*.*.idx")})
    if len(pairs) != 1 or pairs[0].count("-") != 1:
        known = sorted({path.name.split(".")[0] for path in root.glob("*.*-*.*.idx")})
        raise UserError(
            f"{folder}: {subset} is there in several pairs of languages ({', '.join(pairs)}); give --source-lang and "
            "--target-lang"
            if pairs
            else f"{folder}: no subset {subset}; it has {', '.join(known) or 'none'}; check DATA_BIN and --subset"
        )
    source, target = pairs[0].split("-")
    return source, target


def sha256(*files: Path, on_block: Callable[[int], object] = lambda size: None) -> str:
    """SHA-256 of the files' bytes one after the other, as hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                on_block(len(block))
    return digest.hexdigest()


def _open_side(root: Path, pair: str, language: str) -> Side:
    from fairseq.data import Dictionary, data_utils

    dictionary_file, prefix = root / f"dict.{language}.txt", root / f"{pair}.{language}"
    try:
        dictionary = Dictionary.load(str(dictionary_file))
        dataset = data_utils.load_indexed_dataset(str(prefix), dictionary)
    except Exception as error:  # damaged files lead fairseq to many kinds of exceptions
        reason = str(error).strip() or type(error).__name__
        raise UserError(f"{prefix}: not what fairseq-preprocess writes ({reason}); preprocess again") from error
    if dataset is None:
        raise UserError(f"{prefix}.idx: not what fairseq-preprocess writes; preprocess again")
    return Side(language, dictionary, dataset)


def _known_subsets(root: Path, languages: tuple[str, str]) -> str:
    pairs = ("-".join(languages), "-".join(reversed(languages)))
    known = sorted({path.name.split(".")[0] for pair in pairs for path in root.glob(f"*.{pair}.*.idx")})
    return f"it has the subsets {', '.join(known)} of this pair;" if known else "it has no subset of this pair;"
