"""Choose the lines of running text worth learning a language from, without anything that a corpus holds out."""

import random
import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from nat_plugin.data.cleaning import has_foreign_characters, letter_share, normal_key
from nat_plugin.data.marked_up_text import HOLE
from nat_plugin.data.text_rules import comma_below, fold_space, unify_placeholders, unify_punctuation

_LONGEST = 500  # characters; a longer paragraph is cut at the ends of sentences
_FEWEST_WORDS = 3
_LEAST_LETTERS = 0.6  # of the visible characters; less is code or a table


class Dropped(StrEnum):
    """Why a line was left out; the names under which it is counted."""

    SHORT = "fewer than 3 words"
    LONG = "longer than 500 characters without an end of a sentence"
    INCOMPLETE = "text that the document would fill in"
    LETTERS = "hardly any letters"
    ENCODING = "wrongly encoded or in another script"
    LANGUAGE = "in another of the languages"
    UNTRANSLATED = "same as an English line"
    HELD_OUT = "in a validation or test side"
    DUPLICATE = "duplicate line"
    SAMPLED = "beyond --max-lines"


# The commonest words that tell the languages apart ("in" and "an" do not).
_ENGLISH = """the of and to is that for with this are be you it not as can if from by your will have or which has when
    all use used may"""
_GERMAN = """der die das und ist nicht mit ein eine den dem des zu auf für von werden wird oder sie im als auch einer
    eines einen bei durch wenn diese dieser kann können sind zum zur nach"""
_ROMANIAN = """și de la este nu în pentru cu sau care un o pe se din fi ca să lui prin sunt acest această mai dacă
    poate puteți ce al ale cel dumneavoastră"""
_FUNCTION_WORDS = {
    code: frozenset(words.split()) for code, words in (("en", _ENGLISH), ("de", _GERMAN), ("ro", _ROMANIAN))
}
_WORD = re.compile(r"[^\W\d_]+")
_LETTERED_WORD = re.compile(r"\S*[^\W\d_]\S*")  # "sd_bus_open" and "/var/cache" are one word each
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-ZÄÖÜĂÂÎȘȚ])")
# Latin-2 read as Latin-1 or the reverse: no Romanian word is spelled with these.
_WRONG_ROMANIAN = re.compile("[ãþºªÞÃ]")


def cut_at_sentences(paragraph: str, longest: int = _LONGEST) -> list[str]:
    """The paragraph as lines of whole sentences, each up to ``longest`` characters unless one sentence is longer."""
    if len(paragraph) <= longest:
        return [paragraph]
    lines: list[str] = []
    for sentence in _SENTENCE_END.split(paragraph):
        if lines and len(lines[-1]) + 1 + len(sentence) <= longest:
            lines[-1] += " " + sentence
        else:
            lines.append(sentence)
    return lines


def looks_like_another(text: str, language: str) -> bool:
    """Whether the text has more of the commonest words of another language than of its own."""
    words = _WORD.findall(text.casefold())
    counts = {code: sum(word in known for word in words) for code, known in _FUNCTION_WORDS.items()}
    own = counts.pop(language, 0)
    return max(counts.values(), default=0) > own


class TextCollector:
    """Gathers the lines of one language; what is dropped is counted by source and reason.

    Attributes:
        kept: the lines by source, in the order in which they came.
        dropped: counts by source and ``Dropped``.
    """

    def __init__(self, language: str, held_out: Iterable[str] = ()) -> None:
        """``held_out``: lines that must not occur, compared without case, punctuation, digits and white space."""
        self.language = language
        self.kept: dict[str, list[str]] = {}
        self.dropped: dict[str, Counter[str]] = {}
        self._held_out = {_leak_key(line) for line in held_out} - {""}
        self._seen: set[str] = set()
        self._met: set[str] = set()
        self._corpora: set[str] = set()

    def add(self, source: str, paragraphs: Iterable[str]) -> None:
        """Take the paragraphs of a document; each becomes one line, or several if it is long."""
        for paragraph in paragraphs:
            text = fold_space(unify_punctuation(unify_placeholders(fold_space(paragraph))))
            if self.language == "ro":
                text = comma_below(text)
            for line in cut_at_sentences(text):
                self._met.add(line)
                self._take(source, line, self._problem(line))

    def add_lines(self, source: str, lines: Iterable[str]) -> None:
        """Take lines of a corpus as they are: only duplicates and what is held out are dropped."""
        self._corpora.add(source)
        for line in lines:
            self._met.add(line)
            self._take(source, line, self._leak(line))

    def drop_lines_of(self, english: "TextCollector") -> None:
        """Drop what the English documents or corpora say word for word: translators left it. Corpora stay whole."""
        for source in self.kept.keys() - self._corpora:
            translated = [line for line in self.kept[source] if line not in english._met]
            if left := len(self.kept[source]) - len(translated):
                self.dropped.setdefault(source, Counter())[Dropped.UNTRANSLATED] += left
            self.kept[source] = translated

    def lines(self, max_lines: int | None = None, seed: int = 1) -> list[str]:
        """All lines in order, or a sample of ``max_lines`` of them (still in order), the rest counted as dropped."""
        places = [(source, line) for source, lines in self.kept.items() for line in lines]
        if max_lines is not None and len(places) > max_lines:
            chosen = sorted(random.Random(f"{seed} {self.language}").sample(range(len(places)), max_lines))
            for source, lines in self.kept.items():
                self.dropped.setdefault(source, Counter())[Dropped.SAMPLED] += len(lines)
            places = [places[index] for index in chosen]
            self.kept = {}
            for source, line in places:
                self.kept.setdefault(source, []).append(line)
                self.dropped[source][Dropped.SAMPLED] -= 1
        return [line for _, line in places]

    def _take(self, source: str, line: str, problem: Dropped | None) -> None:
        if problem is None and line in self._seen:
            problem = Dropped.DUPLICATE
        if problem is None:
            self._seen.add(line)
            self.kept.setdefault(source, []).append(line)
        else:
            self.dropped.setdefault(source, Counter())[problem] += 1

    def _problem(self, line: str) -> Dropped | None:
        if len(_LETTERED_WORD.findall(line)) < _FEWEST_WORDS:
            return Dropped.SHORT
        if HOLE in line:
            return Dropped.INCOMPLETE
        if len(line) > _LONGEST:
            return Dropped.LONG
        if letter_share(line) < _LEAST_LETTERS:
            return Dropped.LETTERS
        if has_foreign_characters(line) or (self.language == "ro" and _WRONG_ROMANIAN.search(line)):
            return Dropped.ENCODING
        if looks_like_another(line, self.language):
            return Dropped.LANGUAGE
        return self._leak(line)

    def _leak(self, line: str) -> Dropped | None:
        """A held-out line, alone or as a sentence of the line."""
        parts = [line, *_SENTENCE_END.split(line)]
        return Dropped.HELD_OUT if any(_leak_key(part) in self._held_out for part in parts) else None


def _leak_key(text: str) -> str:
    """Letters alone: "Back up 3 files" and "backup files" count as the same."""
    return normal_key(text).replace(" ", "")


def read_corpora(folders: Iterable[Path], language: str) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """The training sides in ``language`` as (name, lines), and all lines of its validation and test sides."""
    train, held_out = [], []
    for folder in folders:
        for path in sorted(folder.glob(f"*.{language}")):
            lines = path.read_text(encoding="utf-8").split("\n")
            if path.stem == "train":
                train.append((f"corpus {folder.name}", [line for line in lines if line]))
            else:
                held_out += lines
    return train, held_out
