"""What is found in one pair, whatever the others are."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nid_plugin.audit.copying import Copied, copied, repeated_share
from nid_plugin.audit.decontamination import EvaluationIndex, Hit
from nid_plugin.audit.detectors import DETECTORS, SIDES, Side, find_all
from nid_plugin.audit.matching import Match
from nid_plugin.controls.text_measures import normalised_words
from nid_plugin.documents.words import words
from nid_plugin.pairs import Pair

EXCERPT_BEFORE, EXCERPT_AFTER = 60, 120
"""Characters shown before and after the start of what was found."""

SHORT_WORDS = 20
COPIED_SHARE, COPIED_RUN = 0.25, 50
REPEATED_SHARE = 0.25

PROPERTIES = {
    "very-short": f"the completion has fewer than {SHORT_WORDS} words",
    "cut-short": "the teacher was stopped by its token limit (finish reason `length`)",
    "copies-prompt": f"at least {COPIED_SHARE:.0%} of the completion's 8-grams stand in the prompt, or a run of "
    f"{COPIED_RUN} words",
    "repetitive": f"at least {REPEATED_SHARE:.0%} of the completion's 8-grams are repeated",
    "language-change": "prompt and completion are surely in different languages",
    "own-second-half": f"at least {COPIED_SHARE:.0%} of the completion's 8-grams stand in the document's own second "
    f"half, or a run of {COPIED_RUN} words",
    "evaluation-overlap": "the pair has a run of words of an evaluation item",
}
"""What a pair by itself may be, besides what the detectors look for."""


@dataclass(frozen=True, slots=True)
class SideFacts:
    """One side of a pair.

    Attributes:
        words, characters: words are separated by white space; a letter of a script without spaces is a word.
        found: detector → an excerpt at the first place.
        language: where it is sure.
    """

    words: int
    characters: int
    found: dict[str, str]
    language: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in a pair.

    Attributes:
        sides: of each side.
        from_prompt: what the completion has of the prompt.
        from_second_half: what it has of the document's own second half; None where that is not known.
        repeated: share of the completion's 8-grams that it had before; None below 8 words.
        hits: of evaluation items.
        properties: those of ``PROPERTIES`` that the pair has.
    """

    sides: dict[Side, SideFacts]
    from_prompt: Copied
    from_second_half: Copied | None
    repeated: float | None
    hits: list[Hit] = field(default_factory=list)
    properties: tuple[str, ...] = ()

    def detected(self) -> set[str]:
        """The detectors that found something on either side."""
        return {name for side in self.sides.values() for name in side.found}


class Examiner:
    """Examines pairs; made once in each process.

    Args:
        languages: look at languages.
        evaluation: items to look for.
    """

    def __init__(self, *, languages: bool, evaluation: EvaluationIndex | None) -> None:
        self._language: Callable[[str], str | None] = _unknown
        if languages:
            from nid_plugin.audit.language import sure_language

            self._language = sure_language()
        self._evaluation = evaluation

    def examine(self, pair: Pair, second_half: str | None = None) -> Facts:
        """Look at one pair, and at the second half of its document where it is known."""
        texts: dict[Side, str] = {"prompt": printable(pair.prompt), "completion": printable(pair.completion)}
        sides = {side: self._side(side, texts[side]) for side in SIDES}
        prompt, completion = normalised_words(texts["prompt"]), normalised_words(texts["completion"])
        facts = Facts(
            sides=sides,
            from_prompt=copied(completion, prompt),
            from_second_half=None if second_half is None else copied(completion, normalised_words(second_half)),
            repeated=repeated_share(completion),
            hits=self._evaluation.hits(prompt, completion) if self._evaluation else [],
        )
        return replace(facts, properties=tuple(_properties(pair, facts)))

    def _side(self, side: Side, text: str) -> SideFacts:
        found = {name: excerpt(text, matches[0]) for name, matches in find_all(text, side, DETECTORS).items()}
        return SideFacts(len(words(text)), len(text), found, self._language(text))


def _properties(pair: Pair, facts: Facts) -> list[str]:
    prompt, completion = (facts.sides[side] for side in SIDES)
    has = {
        "very-short": completion.words < SHORT_WORDS,
        "cut-short": pair.finish_reason == "length",
        "copies-prompt": _much(facts.from_prompt),
        "repetitive": (facts.repeated or 0) >= REPEATED_SHARE,
        "language-change": None not in (prompt.language, completion.language)
        and prompt.language != completion.language,
        "own-second-half": facts.from_second_half is not None and _much(facts.from_second_half),
        "evaluation-overlap": bool(facts.hits),
    }
    return [name for name in PROPERTIES if has[name]]


def _much(part: Copied) -> bool:
    return (part.share or 0) >= COPIED_SHARE or part.longest >= COPIED_RUN


def _unknown(text: str) -> str | None:
    return None


def excerpt(text: str, match: Match) -> str:
    """The text around a match on one line, with … where it was cut."""
    start, end = max(0, match.start - EXCERPT_BEFORE), min(len(text), max(match.start + EXCERPT_AFTER, match.start + 1))
    shown = re.sub(r"\s+", " ", text[start:end]).strip()
    return ("…" if start > 0 else "") + shown + ("…" if end < len(text) else "")


def printable(text: str) -> str:
    """The text with lone surrogates replaced, which no file and no library takes."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
