"""What the detectors share: matches, quoted speech put out of sight, sentence starts, English imperatives."""

import re
from functools import lru_cache
from typing import NamedTuple

HIDDEN = "·"


class Match(NamedTuple):
    """Where a detector found something: characters ``start`` to ``end`` (exclusive) of the text."""

    start: int
    end: int


_QUOTED = re.compile(
    r"“[^“”]{1,2000}?(?:”|\Z)"
    r"|\"[^\"\n]{1,2000}?(?:\"|\n|\Z)"
    r"|«[^«»]{1,2000}?»"
    # Single quotes: an apostrophe inside a word neither opens nor closes.
    r"|(?<!\w)['‘](?=\w)(?:[^'’‘\n]|['’](?=\w)){2,2000}[,.?!…]['’](?!\w)"
)


_LONG_BLANKS = re.compile(r"(?<!\s)\s{102,}")
_KEPT_BLANKS = 50
_FILLER = "\0"


def without_long_blanks(text: str) -> str:
    """The text with the middle of long runs of white space filled, as long as before.

    The rules try white space in several ways, which takes time that grows with the square of its length. What begins a
    line after such a run still does.
    """
    return _LONG_BLANKS.sub(_filled, text)


def _filled(blanks: re.Match[str]) -> str:
    middle = blanks.group()[_KEPT_BLANKS:-_KEPT_BLANKS]
    end = "\n" if "\n" in blanks.group()[:-_KEPT_BLANKS] else _FILLER
    kept = blanks.group()[:_KEPT_BLANKS], blanks.group()[-_KEPT_BLANKS:]
    return f"{kept[0]}{_FILLER * (len(middle) - 1)}{end}{kept[1]}"


@lru_cache(maxsize=8)
def without_quotes(text: str) -> str:
    """The text with what stands in quotation marks hidden, as long as before.

    What somebody in a story or a report says is not said to the reader.
    """
    return _QUOTED.sub(lambda found: HIDDEN * len(found.group()), text)


def spans(pattern: re.Pattern[str], text: str) -> list[Match]:
    """Every match of the pattern."""
    return [Match(*found.span()) for found in pattern.finditer(text)]


_UNIT_GROUP = re.compile(r"(?<!\\)\((?!\?)")


def phrases(*alternatives: str, flags: re.RegexFlag = re.IGNORECASE | re.MULTILINE) -> re.Pattern[str]:
    """A pattern that finds any of these, each a regular expression in a notation made for prose.

    A blank stands for white space of any length, ``'`` for either apostrophe, ``(`` opens a group that captures
    nothing. Blanks and apostrophes that are meant as such are written ``\\x20`` and ``\\x27``.
    """
    return re.compile("|".join(map(expanded, alternatives)), flags)


def expanded(notation: str) -> str:
    """The regular expression of one phrase (see :func:`phrases`)."""
    return _UNIT_GROUP.sub("(?:", notation).replace(" ", r"\s+").replace("'", "['’]")


GAP = r"[^.!?\n]{0,60}"
"""Anything of a sentence in between, not long."""

SENTENCE_START = r"(?:^|(?<=[.!?:;…])[\t\x20]+|(?<=[.!?][\x27\"”’)])[\t\x20]+)"
"""Where a sentence may begin; for ``re.MULTILINE``."""

LIST_MARK = r"[\t\x20]*(?:[-*•–·‣]|\(?\d{1,2}[.)]|\(?[a-hA-H][.)]|(?:step|row|part)[\t\x20]+\d{1,2}[.:)]?)[\t\x20]+"
"""The mark before an item of a list: bullet, number, letter or ``Step 3:``; needs ``re.IGNORECASE`` for the last."""

# Verbs that begin an imperative whatever follows (but a word that shows them to be a noun).
_PLAIN_VERBS = (
    "add adjust admit aim allow analyse analyze apply arrange assemble assume avoid become begin believe blend boil "
    "bring brown browse brush build bury calculate carry carve catch choose chop clean cleanse combine compare "
    "complete compose compute configure confirm connect consider construct convert cook correct count create crush "
    "decide deduce define delete deploy derive describe detach determine develop dice dip disable disassemble discard "
    "disconnect discover discuss dissolve download drain drink drizzle eat elaborate eliminate enable encourage enjoy "
    "ensure enter erase establish evaluate examine expand explain explore extract fasten fetch figure find fold "
    "forget fry generate get give go grab grate grease hang identify ignore imagine implement include indicate inhale "
    "insert inspect install invite keep knead knit learn listen locate loosen lower make marinate mash melt memorize "
    "minimize mix modify mount move navigate note obtain omit paraphrase paste peel perform picture pin pour practise "
    "predict preheat prepare preserve press proceed proofread protect prove provide pull purchase purl reboot recall "
    "reduce refer refresh refrigerate reinstall relax remember remind remove rename repeat rephrase replace rewrite "
    "rinse rotate sauté save scatter scrape screw scroll season select send separate sew shake share sharpen shave "
    "simmer simplify sit skim skip slice slide soak solve specify sprinkle squeeze stay steer stir strain subscribe "
    "substitute suggest summarise summarize suppose swap switch take tap taste tell thank thaw think thread throw tie "
    "tighten toast toss translate trim trust turn unfold uninstall unlock unpack unplug unscrew unzip upload use "
    "utilize verify wait warm wash wear weigh whisk wipe withdraw wrap write "
)
# Verbs that are also nouns or adjectives: only with an object, a preposition or an adverb after them.
_DOUBTFUL_VERBS = (
    "act advance answer ask attach attack back bake balance bend bet blow book break buy call change charge chat "
    "check click clip close code color colour comment contact continue control cover cross cycle dance date debug "
    "delay demand design do draft draw dress drill drive drop edit email escape estimate exercise exit expect "
    "experience express face fall feed feel fight file fill finish fit fix flip fly focus follow force form format "
    "free freeze grant grill group grow guess guide handle have head hear heat help hide hold hope host insulate join "
    "judge jump kill knock label lead lean leave lift light limit link list load lock log look love man map mark "
    "match measure meet mind mulch name need offer open order outline own pack paint park pass pause pay peg permit "
    "phone pick pitch place plan plant plate play plot plug point polish post power pray present print process "
    "program promise prompt push quit quote raise rank rate reach record regard register rehearse release rent repair "
    "reply report request require research reset resist respect rest restart return review ride ring rise roll rub "
    "sand say scan score seal search secure see seek seize sell serve settle shift shoot shop shout show sign sing "
    "sketch sleep smile smooth snap sort spare speak speed spend spin spot spray stand start state stick stop store "
    "study submit support surround sweep swim tag talk target teach tear test text time top touch trace track trade "
    "train transfer travel treat try twist type underline unite update upgrade vary view visit vote walk watch water "
    "win wind wish wonder work worry "
)
# "Set in 1920s London, …", "Run by volunteers, …", "Read today, …": participles that look like the verb.
_PARTICIPLES = "beat cast cut hit let put read run set shut split spread"

_NO_IMPERATIVE = (
    "(?! (of|is|was|are|were|has|had|will|would|can|could|may|might|and \\w+ing|which|who|as \\w+ might)\\b)"
)
_DETERMINERS = (
    "the an? this these those that your my our his her their its it them me us him yourself yourselves all any each "
    "every some both one two three four five ten only no not another other more less up out off down away back over "
    "how what where why here there now well open closed calm still"
)
_PREPOSITIONS = (
    r"to with at from about into onto for on in if whether until between north south east west home \w+ly \w+ing"
)
_STATES = "calm quiet patient kind honest careful sure aware specific creative concise brief polite ready"
_LEADS = (
    "first second third then next now finally lastly simply just also always never carefully gently please kindly "
    "afterwards again instead optionally"
)


def _any_of(words: str) -> str:
    return f"({'|'.join(words.split())})"


def _followed_by(words: str) -> str:
    return rf"(?= ({_any_of(words)}\b|[\d\"“\x27‘«#$·./~-]))"


_NO_COMPOUND = r"\b(?![-\x27’:=\x28])"
_VERB = "|".join(
    [
        _any_of(_PLAIN_VERBS) + _NO_COMPOUND + _NO_IMPERATIVE,
        _any_of(_DOUBTFUL_VERBS) + _NO_COMPOUND + _followed_by(f"{_DETERMINERS} {_PREPOSITIONS}"),
        _any_of(_PARTICIPLES) + r"\b" + _followed_by(_DETERMINERS),
        rf"(stay|be) {_any_of(_STATES)}\b",
        r"(do not|don't|never|always|make sure|be sure)\b(?! (in|mind|did|had|has|was|have|before|again|one|been))",
        r"(click|press|tap|choose|select|open|type|enter) (?=(?-i:[A-Z]))",
    ]
)
IMPERATIVE = rf"(({_any_of(_LEADS)}|after that)\b,? ){{0,3}}({_VERB})"
"""An imperative of English at the place where a sentence begins, in the notation of :func:`phrases`."""
