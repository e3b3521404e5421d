"""Rules for requests: imperatives at the start, tasks, programs, lists of steps, what the reader is asked to do.

The patterns are in the notation of :func:`nid_plugin.audit.matching.phrases`.
"""

import re

from nid_plugin.audit.matching import GAP, IMPERATIVE, LIST_MARK, SENTENCE_START, Match, phrases, spans, without_quotes

_OPENING = phrases(
    rf"(?:{LIST_MARK})?((task|exercise|problem|question|example|part|tip)\s*\#?[\d.]*[:.)] )?"
    r"((dear|hi|hello|hey)\b[^,:!\n]{0,40}[,:!] )?(\w+, (?=please\b))?"
    # A clause before the imperative: "Before you start, …", "To apply, …", "Given an array, …"
    r"((before|after|when|whenever|once|if|while|unless|to|for|in|on|with|given|using|until|as soon as)\b"
    rf"[^.!?\n,:]{{3,90}}, )?(?P<imperative>{IMPERATIVE}|rt if\b)",
    flags=re.IGNORECASE,
)
_SPEECH_AFTER = phrases(
    r"[^.!?\n]{0,120}, (\w+ ){1,4}?"
    r"(said|says|asked|murmured|whispered|cried|shouted|replied|wrote|used to say|would say)\b"
)


def imperative_opening(text: str) -> list[Match]:
    """The imperative with which the text begins, if it does; quoted speech does not count."""
    plain = without_quotes(text)
    found = _OPENING.match(plain, len(plain) - len(plain.lstrip()))
    if found is None or _SPEECH_AFTER.match(plain, found.end()):
        return []
    return [Match(*found.span("imperative"))]


_ITEM = phrases(rf"^{LIST_MARK}(?P<item>\S[^\n]*)")
_ITEM_IMPERATIVE = phrases(
    rf"\W{{0,3}}((in|on|from|under|to|if|when|once|after|before|with)\b[^.!?\n,:]{{3,60}}, )?({IMPERATIVE})"
)
_SEQUENCE = phrases(
    rf"{SENTENCE_START}(first(ly)?|second(ly)?|third(ly)?|next|then|after that|afterwards|finally|lastly)\b,? "
    rf"({IMPERATIVE})"
)
STEPS = 3
"""So many items make a list of steps."""
SHARE_OF_IMPERATIVES = 0.6


def step_lists(text: str) -> list[Match]:
    """Lists of which most items are imperatives, and sentences first …, then …, finally … with imperatives."""
    items = list(_ITEM.finditer(text))
    steps = [item for item in items if _ITEM_IMPERATIVE.match(item["item"])]
    found = []
    if len(steps) >= STEPS and len(steps) >= SHARE_OF_IMPERATIVES * len(items):
        found.append(Match(steps[0].start(), steps[-1].end()))
    sentences = spans(_SEQUENCE, without_quotes(text))
    if len(sentences) >= STEPS:
        found.append(Match(sentences[0].start, sentences[-1].end))
    return found


def _asking(sentence_start: str) -> str:
    """What may stand before the verb of a request."""
    return (
        rf"(({sentence_start}(?:{LIST_MARK})?|, )(please |now |then )?"
        r"|\b(can|could|would|will) (you|someone|anyone|somebody|anybody) (please |kindly |help me (to )?)?"
        r"|\b(please|kindly) |\bi (want|need|would like) you to |\bhelp me (to )?|\byour task is to )"
    )


_ASK = _asking(SENTENCE_START)
_ASK_NOT_AFTER_COLON = _asking(SENTENCE_START.replace(":;…", ""))  # what follows a colon in a program is no request
_WRITING = (
    r"(essay|stor(y|ies)|poems?|haiku|limerick|songs?|lyrics|paragraphs?|summar(y|ies)|e-?mails?|letters?|articles?"
    r"|blog posts?|posts?|sentences?|headlines?|slogans?|titles?|captions?|speech|reports?|reviews?|dialogues?"
    r"|scripts? for|screenplay|outline|lists? of|list|synonyms?|antonyms?|examples?|ideas?|reasons?|tips|questions?"
    r"|arguments?|differences?|advantages|steps|facts|instructions|definition|description|translation|analysis"
    r"|conversation|biography|recipe|joke|plan|itinerary|product description|cover letter|opinion|answers?)"
)
_PERSONS = (
    "(agent|expert|assistant|writer|teacher|tutor|chef|coach|doctor|consultant|developer|engineer|journalist|editor"
    "|translator|analyst|guide|specialist|marketer|copywriter|lawyer)"
)
_WORKED_ON = (
    r"(the|this|these|that|your|my|our|his|her|how|why|what|whether|in|into|it|each|an?|both|one|any|and|between|to|on"
    r"|\d|\w+ and\b)"
)
_TASKS = phrases(
    rf"{_ASK}(write|compose|draft|create|generate|produce|give|provide|list|name|suggest|tell|show|make|come up with"
    rf"|prepare|brainstorm|propose|find|think of)\b(?=(?![^.!?\n]{{0,30}}\brest of){GAP}\b{_WRITING}\b)",
    rf"{_ASK}(summari[sz]e|paraphrase|rewrite|rephrase|translate|proofread|explain|describe|discuss|compare|contrast"
    rf"|outline|classify|analy[sz]e|elaborate|critique) {_WORKED_ON}",
    r"\b(in|of|under|about|at least|at most|no more than|fewer than) \d{2,4}(\s*(to|-|–)\s*\d{2,4})? words\b",
    rf"^\W{{0,5}}you are (an?|the) ([\w-]+ ){{1,5}}?{_PERSONS}\b",
    r"\bact as (an?|my|the) \w+",
    r"\bessay (prompt|question|topic)s?\b",
    r"\bshow your work\b",
    r"\bin your own words\b",
)


def task_requests(text: str) -> list[Match]:
    """Requests for a text or an answer, outside of quoted speech."""
    return spans(_TASKS, without_quotes(text))


_PROGRAM = (
    r"(functions?|program|script|class|method|algorithm|quer(y|ies)|regex|regexp|regular expression|codes?|code snippet"
    r"|macro|makefile|dockerfile|component|unit tests?|one-liner|sql|select statement|shell command|stored procedure"
    r"|html( page)?|css|api endpoint|data structure|web scraper|parser|compiler|formula for excel|excel formula"
    r"|timer in \w+)"
)
_CODE = phrases(
    rf"({_ASK_NOT_AFTER_COLON}(write|create|implement|develop|code|build|generate|design|make|fix|debug|refactor"
    r"|optimi[sz]e|convert|complete|correct|program|(give|show|provide) (me|us|an?))\b"
    r"|\bhow (do|can|would|could|should|to) (i |we |one )?(write|create|implement|code|build|make)\b"
    r"|\bi('m| am)? (need|want|looking for|would like|trying to write)\b)"
    rf"(?={GAP}\b{_PROGRAM}\b)"
)
_COMMENT = re.compile(r"[ \t]*(?:#|//|/\*)")


def code_requests(text: str) -> list[Match]:
    """Requests for a program or a part of one; comments in programs do not count."""
    found = spans(_CODE, without_quotes(text))
    return [match for match in found if not _COMMENT.match(text, text.rfind("\n", 0, match.start) + 1)]


_NO_REQUEST = (
    r"(?!yourself|him\b|her\b|them\b|everyone|(do not|don't) hesitate|feel free|(write|list|explain|summari[sz]e"
    r"|translate|give me|describe|help me|rewrite|create|generate|provide an?|answer)\b)"
)
_BEFORE = (
    rf"{SENTENCE_START}(\W{{0,3}}(and|or|so|then|(to|if you|for) [^.!?\n,]{{3,60}})[,\x20]\s*)?"
    r"(simply |just |also |don't forget to )?"
)
_DEEDS = "|".join(
    [
        r"(contact|phone|e-?mail|message|visit|join|follow|like|support|write to) "
        r"(us|me|our|my|the (agent|author|office)|now|today|www|https?|\+?\d)",
        r"(call|text) (us|our|the (agent|office)|now|today|\+?\d)",
        r"subscribe\b|sign up\b|rsvp\b|stay tuned\b|donate\b|upvote\b|retweet\b|rt if\b|tag \w+ friends?",
        r"share (this|it|your|with)\b|leave (a|your|us) (comment|review|reply|message|note)|comment below",
        r"tell (us|me)\b|let (us|me) know\b(?! if you)|send (your|us|an?|me)\b",
        r"(order|buy|shop|book|register|apply|call|donate|join) (now|today|online|here)\b",
        r"click (here|on the link|the link)|check out (our|my|the|this)\b|enter the code|use (the )?(promo )?code",
        r"(talk|speak) to your doctor|consult (a|your)\b",
    ]
)
_REQUEST = phrases(
    rf"\bplease,? {_NO_REQUEST}[a-z]+",
    r"\b(is|are) (kindly )?(asked|urged|encouraged|invited|requested|advised) to "
    r"(contact|call|e-?mail|write|send|report|come|visit|register)\b",
    rf"{_BEFORE}({_DEEDS})",
    r"\byou can (also )?(support (me|us|my|our)|leave an?|contact us|reach us|follow (me|us))\b",
    r"\b(or|and) (visit (our|us|www)|call us|like us|follow us|don't forget to (subscribe|like|share))",
    r"\bdon't forget to (subscribe|like|share|comment|vote)\b",
    r"\bin the comments\b(?=[^.?\n]{0,30}[!.])",
    r"\b(could|can|would) you (please )?(provide|share|send|paste|post|clarify)\b",
)


def reader_requests(text: str) -> list[Match]:
    """Requests that the reader get in touch, buy, share and the like, outside of quoted speech."""
    return spans(_REQUEST, without_quotes(text))
