"""Rules for marks of a conversation: roles, marked questions, questions to the reader, offers of help.

``phrases`` takes its notation from :func:`nid_plugin.audit.matching.phrases`; other patterns are plain ones.
"""

import re

from nid_plugin.audit.matching import Match, phrases, spans, without_quotes

_USER_TURN = re.compile(r"^[ \t*>]*(?:user|human|prompter|you)\**[ \t]*:[ \t*]*\S?", re.I | re.M)
_ASSISTANT_TURN = re.compile(
    r"^[ \t*>]*(?:assistant|ai|bot|chatbot|chatgpt|gpt|ai assistant|model)\**[ \t]*:[ \t*]*\S?", re.I | re.M
)
_ROLE_TOKEN = re.compile(
    r"<\|(?:im_start|im_end|user|assistant|system|eot_id|start_header_id|end_header_id)\|>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|^\#{2,4}[ \t]*(?:instructions?|response|user|assistant|human|system|input)[ \t]*:[ \t]*$",
    re.I | re.M,
)


def role_markers(text: str) -> list[Match]:
    """Turns of a user and of an assistant (both must be there), or tokens and headings of chat templates."""
    found = spans(_ROLE_TOKEN, text)
    users, assistants = spans(_USER_TURN, text), spans(_ASSISTANT_TURN, text)
    if users and assistants:
        found += users + assistants
    return sorted(found)


_QUESTION_MARK = re.compile(r"^[ \t*]*(?:\d{1,2}[.)][ \t]*)?(?:Q|Question)[ \t]*\d{0,2}\**[ \t]*[.:)][ \t*]*\S", re.M)
_ANSWER_MARK = re.compile(r"^[ \t*]*(?:\d{1,2}[.)][ \t]*)?(?:A|Answer)[ \t]*\d{0,2}\**[ \t]*[.:)][ \t*]*\S", re.M)


def questions_and_answers(text: str) -> list[Match]:
    """Marked questions, where a marked answer follows the first of them."""
    questions = spans(_QUESTION_MARK, text)
    if not questions or not _ANSWER_MARK.search(text, questions[0].end):
        return []
    return questions


_QUESTION = re.compile(r"(?<![^.!?\n])[^.!?\n]*\?")
_TO_YOU = re.compile(r"\b(?:you|your|yours|yourself|ya)\b", re.I)
_ELLIPTIC = phrases(
    r"\W*(so,? |but |and |well,? )?("
    r"ever\s|(tired|sick|afraid) of\b|looking (for|to)\b|planning\b|wondering\b|thinking (of|about)\b|curious\b"
    r"|want (to|a|an|some|more)\b|need (a|an|some|to|help|more)\b|ready (to|for)\b|got (a|an|any)\b"
    r"|any (ideas?|thoughts?|suggestions?|tips?|advice|help|questions?)\b|interested in\b|struggling\b|confused\b"
    r"|(has|does|did|is|can|could|would|will) (any|some)(one|body)\b|sounds? (familiar|good|great|interesting)\b"
    r"|agree\b|what (should|can|do) i\b|how (do|can|should|would) i\b|where (can|do) i\b|should i\b|what would be\b"
    r"|what happens if\b)"
)
_SPEAKER = re.compile(r"[ \t]*(?!Dear\b)(?:\[[^\]\n]{1,20}\][ \t]*)?<?[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*){0,2}[:>][ \t]")


def reader_questions(text: str) -> list[Match]:
    """Questions with *you* in them, or in one of the short forms that only a reader can be asked in.

    Quoted speech is left out, and so are lines that begin with the name of a speaker.
    """
    plain = without_quotes(text)
    found = []
    for question in _QUESTION.finditer(plain):
        if not _TO_YOU.search(question.group()) and not _ELLIPTIC.match(question.group()):
            continue
        line = plain.rfind("\n", 0, question.start()) + 1
        if not _SPEAKER.match(plain, line):
            lead = len(question.group()) - len(question.group().lstrip())
            found.append(Match(question.start() + lead, question.end()))
    return found


_HELP = phrases(
    r"\A\W*(sure|certainly|of course|absolutely|definitely|no problem|gladly|okay|ok)"
    r"(!|[,.]?( here\b| below\b| let me\b| i('d| can| would|'ll)\b| happy\b))",
    r"\bhope (this|that|it|these) (\w+ )?(helps?|helped|clears?|answers?|(is|was) (of )?(use|useful|helpful))\b",
    r"\blet (me|us) know if (you('d| (have|need|would|want|require|get|run|are|like))|there('s| is)|anything)",
    r"\bfeel free to (ask|reach|contact|message|get in|let|pm|dm|email|drop|post|reply)\b",
    r"\b(do not|don't) hesitate to\b",
    r"\banything else (i|we) can\b",
    r"\bhow (can|may) (i|we) (help|assist) you\b",
    r"\b(happy|glad|pleased|here|ready|thrilled|excited|delighted) to (help|assist)\b(?! (him|her|them))",
    r"\bif you have (any )?(other|further|more|additional)?\s*questions?\b",
    r"\bwould you like me to\b",
    r"\bglad (it|that|i) (worked|helped|could help)\b",
    r"\bi can (certainly )?(help|assist) (you )?with (that|any)\b",
    r"\bi'll (assist|help) you\b",
    r"\bask away\b",
)


def help_offers(text: str) -> list[Match]:
    """Phrases of giving or offering help outside of quoted speech."""
    return spans(_HELP, without_quotes(text))
