"""What the literature does with the text of WMT14 en-de, WMT16 en-ro and IWSLT14 de-en before a model is trained on it.

The models here read plain text and segment it themselves, so the result stays plain: Moses tokens only decide which
pairs are too long or too different in length. docs/user-guide/download.md names each rule's source.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from importlib.metadata import version
from itertools import islice, zip_longest
from pathlib import Path

from nat_plugin.data.literature_corpora import SPLITS, dataset_for
from nat_plugin.data.moses_text import (
    close_up_punctuation,
    fold_space,
    moses_token_bounds,
    moses_tokens,
    normalise_punctuation,
    normalise_romanian,
    remove_non_printing,
    remove_romanian_diacritics,
    straighten_apostrophes,
)
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError, raise_all
from plugin_common.ordered_pool import ordered_map
from plugin_common.progress import progress_bar
from plugin_common.text_lines import read_lines

log = logging.getLogger(__name__)

REPORT = "report.json"
PAIRS_IN_A_BLOCK = 2000
MAX_WORD_LENGTH = 1000  # characters

Pair = tuple[str, str]


class Drop(StrEnum):
    """Why a training pair was dropped; the names under which it is counted."""

    EMPTY = "a side is empty"
    TOO_LONG = "a side has too many tokens"
    RATIO = "lengths differ too much"
    LONG_WORD = "a word of more than 1000 characters"
    DUPLICATE = "duplicate pair"


@dataclass(frozen=True)
class Rules:
    """What is done to one benchmark in one direction.

    Attributes:
        dataset: ``wmt14``, ``wmt16`` or ``iwslt14``.
        source_lang, target_lang: the direction.
        max_tokens: longest side of a training pair, in Moses tokens.
        max_ratio: largest ratio of the longer side to the shorter one, in Moses tokens.
        split_hyphens: count hyphenated words as several tokens.
        valid_every: every such pair of the cleaned training text goes to valid; None where there is a valid set.
        remove_diacritics: Romanian source text loses its diacritics.
        deduplicate: a pair that is there already is dropped.
    """

    dataset: str
    source_lang: str
    target_lang: str
    max_tokens: int
    max_ratio: float
    split_hyphens: bool
    valid_every: int | None = None
    remove_diacritics: bool = False
    deduplicate: bool = False


@dataclass
class CleaningReport:
    """What became of a corpus.

    Attributes:
        rules: what was done.
        read: training pairs read.
        dropped: training pairs dropped, by reason; read − dropped = train + what was held out for valid.
        lines: lines of each split written.
        changed: lines that normalisation changed, by file (of those kept, in training).
        emptied: lines of valid and test that hold text but are empty after normalisation, by file; they stay.
        sacremoses: its version.
    """

    rules: Rules
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    emptied: Counter[str] = field(default_factory=Counter)
    sacremoses: str = ""

    def as_dict(self) -> dict[str, object]:
        """The same as plain values for JSON."""
        counts = {name: dict(getattr(self, name)) for name in ("dropped", "lines", "changed", "emptied")}
        return {"rules": asdict(self.rules), "read": self.read, **counts, "sacremoses": self.sacremoses}

    def as_lines(self) -> list[str]:
        """The figures as lines of text."""
        written = ", ".join(f"{split} {self.lines[split]:,}" for split in SPLITS)
        rows = [f"{self.rules.dataset}: {self.read:,} training pairs read; written: {written}"]
        rows += [f"dropped, {reason}: {count:,}" for reason, count in self.dropped.most_common() if count]
        rows += [f"{name}: {count:,} lines changed by normalisation" for name, count in self.changed.items() if count]
        rows += [f"{name}: {count:,} lines are empty after normalisation" for name, count in self.emptied.items()]
        return rows


def rules_for(
    dataset: str, source_lang: str, target_lang: str, *, remove_diacritics: bool = False, deduplicate: bool = False
) -> Rules:
    """The literature's rules for a benchmark and direction.

    Raises:
        UserError: no such benchmark or pair; diacritics of a source that is not Romanian.
    """
    dataset_for(dataset, source_lang, target_lang)
    if remove_diacritics and source_lang != "ro":
        raise UserError(
            f"--remove-diacritics is about Romanian source text (Sennrich et al., 2016); the source is {source_lang}: "
            "leave the option out"
        )
    make = partial(
        Rules, dataset, source_lang, target_lang, remove_diacritics=remove_diacritics, deduplicate=deduplicate
    )
    if dataset == "wmt14":
        return make(max_tokens=250, max_ratio=1.5, split_hyphens=True)
    if dataset == "wmt16":
        return make(max_tokens=80, max_ratio=9.0, split_hyphens=True)
    return make(max_tokens=175, max_ratio=1.5, split_hyphens=False, valid_every=23)


def normalise(text: str, language: str, split: str, rules: Rules) -> str:
    """A line in uniform spelling, its case as it was; ``split`` is ``train``, ``valid`` or ``test``."""
    if rules.dataset == "iwslt14":
        if split == "test":
            # One of the five test parts (TEDX.dev2012) has a space before each punctuation mark. Tokens are the same.
            text = close_up_punctuation(straighten_apostrophes(text))
        return fold_space(text)
    text = remove_non_printing(normalise_punctuation(text, language))
    if language == "ro":
        text = normalise_romanian(text)
        if rules.remove_diacritics:
            text = remove_romanian_diacritics(text)
    return fold_space(text)


def final_case(text: str, rules: Rules) -> str:
    """A normalised line as the model reads it: IWSLT14 is in lower case."""
    return text.lower() if rules.dataset == "iwslt14" else text


def judge(pair: Pair, rules: Rules) -> Drop | None:
    """Why a normalised training pair is to be dropped; None to keep it.

    Its case has to be the original one: Moses tells ends of sentences by it.

    The rules of Moses' ``clean-corpus-n``: no empty side, at most ``max_tokens`` tokens a side, the longer side at most
    ``max_ratio`` times the shorter one, no word of more than 1000 characters.
    """
    languages = (rules.source_lang, rules.target_lang)
    if not all(pair):
        return Drop.EMPTY
    if _surely_kept(pair, rules):
        return None
    sides = [
        moses_tokens(text, language, split_hyphens=rules.split_hyphens)
        for text, language in zip(pair, languages, strict=True)
    ]
    short, long = sorted(len(tokens) for tokens in sides)
    if not short:
        return Drop.EMPTY
    if long > rules.max_tokens:
        return Drop.TOO_LONG
    if long / short > rules.max_ratio:
        return Drop.RATIO
    if any(len(token) > MAX_WORD_LENGTH for tokens in sides for token in tokens):
        return Drop.LONG_WORD
    return None


def _surely_kept(pair: Pair, rules: Rules) -> bool:
    """Whether bounds of the numbers of tokens suffice to keep the pair: most pairs need no tokeniser."""
    (low_1, high_1), (low_2, high_2) = (moses_token_bounds(text) for text in pair)
    return (
        min(low_1, low_2) > 0
        and max(high_1, high_2) <= rules.max_tokens
        and max(high_1 / low_2, high_2 / low_1) <= rules.max_ratio
        and max(map(len, pair)) <= MAX_WORD_LENGTH
    )


def clean_corpus(
    dataset: str,
    source_lang: str,
    target_lang: str,
    raw: Path,
    output: Path,
    *,
    workers: int = 1,
    remove_diacritics: bool = False,
    deduplicate: bool = False,
    train_pairs: int | None = None,
) -> CleaningReport:
    """Make ``output/{train,valid,test}.{source,target}`` and ``report.json`` of what ``nat download`` wrote to ``raw``.

    Training pairs are normalised and filtered; valid and test are normalised only, line k stays line k. Memory does not
    grow with the corpus, except by about 100 bytes a pair with ``deduplicate``. The files appear together at the end.

    Args:
        dataset, source_lang, target_lang: as for ``nat download``.
        raw: folder with ``train`` and ``test`` files, and ``valid`` files unless valid is taken from train (IWSLT14).
        output: folder for the result, another one than ``raw``; made if need be.
        workers: processes.
        remove_diacritics: of Romanian source text.
        deduplicate: drop repeated training pairs; the literature does not.
        train_pairs: read the first training pairs only, this many.

    Raises:
        UserError: missing files (all at once), sides of different length, invalid UTF-8, no pair left.
    """
    rules = rules_for(dataset, source_lang, target_lang, remove_diacritics=remove_diacritics, deduplicate=deduplicate)
    splits = [split for split in SPLITS if not (split == "valid" and rules.valid_every)]
    files = {split: (raw / f"{split}.{source_lang}", raw / f"{split}.{target_lang}") for split in splits}
    missing = [path for pair in files.values() for path in pair if not path.is_file()]
    problems = [f"{path}: no such file; `nat download {dataset}` makes it" for path in missing]
    if raw.resolve() == output.resolve():
        problems.append(f"{output}: is input and output; give another folder for the output")
    raise_all(problems)
    report = CleaningReport(rules, sacremoses=version("sacremoses"))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be made ({error.strerror}); give a folder you may write to") from error
    with ExitStack() as stack:
        writers = {split: _Writer(stack, output, split, (source_lang, target_lang), report) for split in SPLITS}
        for split in splits:
            pairs = islice(_pairs(files[split]), train_pairs if split == "train" else None)
            _clean_split(split, pairs, rules, writers, report, workers)
        if not report.lines["train"]:
            raise UserError(f"{files['train'][0]}: no pair left after cleaning: {', '.join(report.as_lines()[1:])}")
    with atomic_output(str(output / REPORT)) as stream:
        stream.write((json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n").encode())
    return report


@dataclass(frozen=True)
class _Cleaned:
    """A pair after cleaning: its text, how its sides were changed, and why it is to be dropped, if it is."""

    pair: Pair
    changed: tuple[bool, bool]
    drop: Drop | None


class _Writer:
    """Writes a split's two files and counts."""

    def __init__(
        self, stack: ExitStack, folder: Path, split: str, languages: tuple[str, str], report: CleaningReport
    ) -> None:
        self.split = split
        self.names = [f"{split}.{language}" for language in languages]
        self._streams = [stack.enter_context(atomic_output(str(folder / name))) for name in self.names]
        self._report = report

    def write(self, cleaned: _Cleaned) -> None:
        self._report.lines[self.split] += 1
        for name, stream, text, changed in zip(self.names, self._streams, cleaned.pair, cleaned.changed, strict=True):
            stream.write(f"{text}\n".encode())
            self._report.changed[name] += changed
            if changed and not text:
                self._report.emptied[name] += 1


def _clean_split(
    split: str,
    pairs: Iterator[Pair],
    rules: Rules,
    writers: dict[str, _Writer],
    report: CleaningReport,
    workers: int,
) -> None:
    seen: set[bytes] = set()
    kept = 0
    with progress_bar(total=None, unit=" pairs", description=f"clean {split}") as bar:
        for block in ordered_map(partial(_clean_block, split, rules), _blocks(pairs), workers):
            bar.update(len(block))
            for cleaned in block:
                if split != "train":
                    writers[split].write(cleaned)
                    continue
                report.read += 1
                drop = cleaned.drop
                if drop is None and rules.deduplicate:
                    key = blake2b("\n".join(cleaned.pair).encode(), digest_size=12).digest()
                    drop = Drop.DUPLICATE if key in seen else None
                    seen.add(key)
                if drop is not None:
                    report.dropped[str(drop)] += 1
                    continue
                kept += 1
                held_out = rules.valid_every is not None and kept % rules.valid_every == 0
                writers["valid" if held_out else "train"].write(cleaned)


def _clean_block(split: str, rules: Rules, pairs: list[Pair]) -> list[_Cleaned]:
    languages = (rules.source_lang, rules.target_lang)
    cleaned = []
    for source, target in pairs:
        pair = (normalise(source, languages[0], split, rules), normalise(target, languages[1], split, rules))
        drop = judge(pair, rules) if split == "train" else None
        pair = (final_case(pair[0], rules), final_case(pair[1], rules))
        cleaned.append(_Cleaned(pair, (pair[0] != source, pair[1] != target), drop))
    return cleaned


def _blocks(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Some thousand pairs at a time."""
    while block := list(islice(pairs, PAIRS_IN_A_BLOCK)):
        yield block


def _pairs(files: tuple[Path, Path]) -> Iterator[Pair]:
    """The pairs of two line-aligned files."""
    sides = [read_lines(str(path), "space") for path in files]
    for number, (source, target) in enumerate(zip_longest(*sides, fillvalue=None), 1):
        if source is None or target is None:
            longer, shorter = (files[1], files[0]) if source is None else files
            raise UserError(
                f"{shorter} ends after {number - 1:,} lines, {longer} goes on; expected as many lines in both, make "
                "both anew with nat download"
            )
        yield source, target
