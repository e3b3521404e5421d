"""Decide which pairs of a catalogue are sentences worth learning from, and write them in one uniform way."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from nat_plugin.data import text_rules
from nat_plugin.data.text_rules import PLACEHOLDER

Pair = tuple[str, str]


class Drop(StrEnum):
    """Why a pair was dropped; the names under which it is counted."""

    CREDITS = "names of translators"
    ENCODING = "wrongly encoded or in another script"
    MARKUP = "markup that is not known"
    PLACEHOLDERS_DIFFER = "placeholders differ in number"
    FORMAT_CODE = "format codes that are not known"
    ACCELERATOR = "accelerator that is not clear"
    NO_LETTERS = "hardly any letters"
    CODE = "program code or a command's options"
    UNTRANSLATED = "same as the source"
    TOO_LONG = "too long"
    LENGTHS_DIFFER = "lengths differ too much"
    NO_DIACRITICS = "catalogue written without diacritics"
    DUPLICATE = "duplicate pair"
    OTHER_TRANSLATION = "another translation of the same source"


@dataclass(frozen=True)
class CleaningRules:
    """Limits for one side unless said otherwise; a pair beyond them is dropped and counted.

    Attributes:
        max_characters: longest string, in characters, after cleaning.
        max_words: longest string, in words separated by spaces.
        max_length_ratio: largest ratio of the two lengths in characters, ``length_slack`` added to both.
        length_slack: lets short strings differ more ("OK" and "Bestätigen").
        min_letter_share: smallest share of letters among the characters that are neither space nor placeholder.
        identical_words: pairs with the same string on both sides are kept up to this number of words ("Server").
        max_placeholders: most placeholders in a string.
    """

    max_characters: int = 400
    max_words: int = 70
    max_length_ratio: float = 2.5
    length_slack: int = 12
    min_letter_share: float = 0.6
    identical_words: int = 1
    max_placeholders: int = 4


_CREDITS = re.compile(
    r"translator[-_ ]credits?|^your (names|emails)$|(name|email) of translators|launchpad contributions",
    re.IGNORECASE,
)
_MARKUP_LEFT = re.compile(r"<[^\s<>=][^<>]*>|&[a-zA-Z]{2,8};|\{%|%\}|\[/?\w+\]\(|</|/>|<>")
_FORMAT_LEFT = re.compile(r"%[A-Za-z(\[{]|(?<!\{)\}|\{(?!\})|\$\{|\$\(")
_MOJIBAKE = re.compile(
    "[\ufffd\x80-\x9f\ue000-\uf8ff]|[ÃÂÅÄ][\u00a0-\u00bf]|â€|[ÃÅÄ][\u2000-\u2122Š-ž]|[^\\W\\d_]\\?[^\\W\\d_]"
)
_LATIN = re.compile(r"[A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ]")
_LETTER = re.compile(r"[^\W\d_]")
_CODE = re.compile(
    r"""(^|\s)--?[a-zA-Z][\w-]*   # a command's option
    | \w_\w | \w\(\) | \w\.\w+\( | :: | [=!]= | := | -> | => | \\ | ;\s*$ | [^\s\w{}]{5,} | (\{\}){3,}
    | (^|[\s"'(])/\w+/ | \w=[\w"'{] | @\w | :\w+:` | (^|\s)[A-Za-z]\w*\.(py|c|h|js|so|conf|cfg|ini|xml|html)\b
    | [a-z][a-z0-9]+[A-Z][a-z]+[A-Z]\w+ | ``
    """,
    re.VERBOSE,
)
_LETTERED_WORD = re.compile(r"\S*[^\W\d_]\S*")
_LETTERS_OF_ITS_OWN = {"ro": frozenset("ăâîșțşţ")}
_KEY_NOISE = re.compile(r"[\W\d_]+")


def normal_key(text: str) -> str:
    """What two strings share when they differ only in case, punctuation, digits, placeholders and spaces."""
    return _KEY_NOISE.sub(" ", text.casefold()).strip()


def clean_pair(source: str, target: str, *, language: str, rules: CleaningRules | None = None) -> Pair | Drop:
    """The pair as plain text with uniform placeholders, or the reason for which it is no good.

    Args:
        source: an English message as the catalogue has it.
        target: its translation.
        language: code of the target's language; "ro" has its letters ș and ț made uniform.
        rules: limits; the defaults of ``CleaningRules`` if None.
    """
    rules = rules or CleaningRules()
    if _CREDITS.search(source) or _CREDITS.search(target):
        return Drop.CREDITS
    source = text_rules.strip_context_prefix(source, target)
    source, target = _as_text(source), _as_text(target)
    stripped = text_rules.strip_accelerators(source, target)
    if stripped is None:
        return Drop.ACCELERATOR
    source, target = (text_rules.fold_space(text_rules.unify_punctuation(side)) for side in stripped)
    if language == "ro":
        target = text_rules.comma_below(target)
    reason = _content_problem(source, target, rules) or _size_problem(source, target, rules)
    return reason or (source, target)


def clean_pairs(
    pairs: Iterable[Pair], counts: Counter[str], *, language: str, rules: CleaningRules | None = None
) -> Iterator[Pair]:
    """The good pairs, in order; ``counts`` grows by one under the reason (a ``Drop``) for each that is not."""
    for source, target in pairs:
        cleaned = clean_pair(source, target, language=language, rules=rules)
        if isinstance(cleaned, Drop):
            counts[cleaned] += 1
        else:
            yield cleaned


def _as_text(text: str) -> str:
    return text_rules.unify_placeholders(text_rules.remove_markup(text_rules.fold_space(text)))


def _content_problem(source: str, target: str, rules: CleaningRules) -> Drop | None:
    both = (source, target)
    if any(has_foreign_characters(side) for side in both):
        return Drop.ENCODING
    if any(_MARKUP_LEFT.search(side) for side in both):
        return Drop.MARKUP
    if any(_FORMAT_LEFT.search(side) for side in both):
        return Drop.FORMAT_CODE
    if source.count(PLACEHOLDER) != target.count(PLACEHOLDER):
        return Drop.PLACEHOLDERS_DIFFER
    if source.count(PLACEHOLDER) > rules.max_placeholders:
        return Drop.NO_LETTERS
    if any(letter_share(side) < rules.min_letter_share for side in both):
        return Drop.NO_LETTERS
    if any(_CODE.search(side) for side in both):
        return Drop.CODE
    return None


def _size_problem(source: str, target: str, rules: CleaningRules) -> Drop | None:
    if source == target and len(_LETTERED_WORD.findall(source)) > rules.identical_words:
        return Drop.UNTRANSLATED
    if any(len(side) > rules.max_characters or side.count(" ") >= rules.max_words for side in (source, target)):
        return Drop.TOO_LONG
    short, long = sorted((len(source), len(target)))
    if (long + rules.length_slack) / (short + rules.length_slack) > rules.max_length_ratio:
        return Drop.LENGTHS_DIFFER
    return None


def has_foreign_characters(text: str) -> bool:
    """Whether text is wrongly encoded ("MenÃ¼"), or more than a tenth of its letters are of another script."""
    return bool(_MOJIBAKE.search(text)) or not _is_latin(text)


def _is_latin(text: str) -> bool:
    """At least nine in ten letters are Latin ones (a Greek letter or two may stand in a formula)."""
    letters = len(_LETTER.findall(text))
    return len(_LATIN.findall(text)) >= 0.9 * letters


def letter_share(text: str) -> float:
    """Letters among the visible characters; 0 for fewer than two letters."""
    visible = text.replace(PLACEHOLDER, "").replace(" ", "")
    letters = len(_LETTER.findall(visible))
    return letters / len(visible) if letters >= 2 else 0.0


def lacks_diacritics(pairs: Iterable[Pair], *, language: str, least_share: float = 0.3, enough: int = 20) -> bool:
    """Whether a catalogue was typed on a keyboard without the language's letters (Romanian: "Creaza Pagina Noua").

    Of translations with four words or more nearly all Romanian ones hold one of ă â î ș ț; here fewer than
    ``least_share`` of at least ``enough`` do. Always False for languages that can do without.
    """
    if language not in _LETTERS_OF_ITS_OWN:
        return False
    long_ones = [target.casefold() for _, target in pairs if len(target.split()) >= 4]
    with_letters = sum(1 for target in long_ones if not _LETTERS_OF_ITS_OWN[language].isdisjoint(target))
    return len(long_ones) >= enough and with_letters < least_share * len(long_ones)
