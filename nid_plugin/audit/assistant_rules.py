"""Rules for what only an assistant writes: about itself, about the task, and that it will not do it.

The patterns are in the notation of :func:`nid_plugin.audit.matching.phrases`.
"""

from nid_plugin.audit.matching import Match, phrases, spans, without_quotes

_KIND = (
    r"(AI|A\.I\.|artificial intelligence|(large )?language model|chat\s?bot|virtual assistant|computer program"
    r"|machine learning model)( (language )?(model|assistant|system|program|chatbot|developed|trained))*"
)
_MAKERS = (
    r"(OpenAI|Anthropic|Google( DeepMind)?|DeepMind|Meta( AI)?|Mistral( AI)?|Microsoft|Alibaba( Cloud)?|Hugging\s?Face"
    r"|DeepSeek)"
)
_NAMES = "(ChatGPT|Claude|Bard|Gemini|Llama|Mistral|Copilot|Qwen|DeepSeek|SmolLM)"
_IDENTITY = phrases(
    rf"\b(as|being|since i('m| am)) (just |only |merely )?an? {_KIND}\b(?=[^.!?\n]{{0,80}}\b(i|my|me)\b)",
    rf"\bi\b[^.!?\n]{{0,80}}\bas an? {_KIND}\b",
    rf"\bi('m| am) (\w+, )?(just |only |merely |actually )?(an?|your) (\w+ )?{_KIND}\b",
    rf"\bi('m| am) {_NAMES}\b",
    r"\bi (was|am|'m) (designed|programmed|trained) (to|for)\b",
    rf"\bi (was|am|have been) (created|trained|developed|made|built|designed) by {_MAKERS}\b",
    r"\byou are (a helpful(,\s*\w+)*( AI)? assistant|ChatGPT|an AI\b)",
    r"\bmy (knowledge cut-?\s?off|programming\b|last (knowledge )?update (was|in))",
    r"\bmy training (data|only|cut-?off|goes|ended|does|covers)",
    r"\bi (do not|don't|cannot|can't) have (access to )?real[-\x20]time",
    r"\bi (do not|don't|cannot|can't) have personal (opinions|feelings|experiences|beliefs)",
    r"\bi (do not|don't|cannot|can't) have the (ability|capability) to (browse|access)",
    r"\bi (do not|don't|cannot|can't) (browse the (internet|web)|access (the internet|external))",
)


def identity(text: str) -> list[Match]:
    """The writer speaks of itself as a program."""
    return spans(_IDENTITY, without_quotes(text))


_CANNOT = (
    r"\bi\s*(can('t|not| not)|(am|'m) (not able|unable) to|won't|will not"
    r"|(am|'m) not (comfortable|allowed|permitted) (to|with)) (\w+ly )?"
)
_WANTED = (
    r"(text|passage|article|story|excerpt|paragraph|document|message|prompt|input|essay|snippet|narrative|post|material"
    r"|content|information|instructions?|advice|assistance|guidance|copyrighted|explicit|harmful|request|conversation"
    r"|task|question)s?"
)
_REFUSAL = phrases(
    # "I can't assist with …" refuses by itself; "can't help" has other senses.
    rf"{_CANNOT}(assist|comply|fulfil+|engage in|participate in|support (this|that|such))\b",
    rf"{_CANNOT}help (you )?(with (that|this|your)|\w+ing|with \w+ing|you (with|to|write|create|make|find|do))\b",
    rf"{_CANNOT}(provide|continue|generate|create|write|complete|produce|reproduce|give|offer|share|discuss|answer|do"
    rf"|promote|browse|respond|repeat|finish)\b(?=[^.!?\n]{{0,50}}\b{_WANTED}\b)",
    r"\bi (must|have to|need to) (respectfully |politely )?(decline|refuse)\b",
    r"\b(would|is|it's) (not be|not|be)?\s*(in)?appropriate for me to\b",
    r"\b(against|violates?|within) (my|our|openai's) "
    r"(guidelines|programming|policy|policies|content polic(y|ies)|ethical)\b",
)


def refusals(text: str) -> list[Match]:
    """The writer declines to do what was asked."""
    return spans(_REFUSAL, without_quotes(text))


_GIVEN = (
    "(text|passage|article|story|excerpt|paragraph|document|message|prompt|input|essay|snippet|narrative|sentence"
    "|blog post|transcript)"
)
_THE_GIVEN = rf"\b(the|this|your) {_GIVEN}( (above|provided|given))?"
_CUT = r"(cut|end(s|ed)|incomplete|unfinished|truncated)"
_NEW_VERSION = (
    r"(continu(ation|e[sd]?)|completion|rest of the|next (part|section)|rewritten|revised|version of (the|your)"
    r"|accurate description)"
)
_TASK = phrases(
    r"\A\W{0,4}(continuation|continued|cont'd)\b(?! (on|from) page)(?=\W{0,3}[:\])]| (from|of)\b)",
    rf"\bhere('s| is| are) (a|an|one|the|my|how|some)\b[^.!?\n]{{0,40}}\b{_NEW_VERSION}\b",
    r"\b(this|the following|possible|plausible|suggested) continuation\b",
    rf"\b(given|provided|supplied) {_GIVEN}\b",
    rf"\b({_GIVEN}|information) (that )?you('ve| have)? "
    r"(provided|shared|gave|given|posted|pasted|sent|wrote|written)\b",
    rf"{_THE_GIVEN} (then )?(continues|goes on to|cuts off|ends (abruptly|here|mid))",
    rf"{_THE_GIVEN} (seems|appears) to (have|be)\b[^.!?\n]{{0,40}}\b{_CUT}",
    rf"{_THE_GIVEN} (was|is|has been) (cut off|truncated|incomplete|unfinished)",
    rf"\b(the|this) {_GIVEN} (above|provided|given) "
    r"(describes|discusses|is about|mentions|appears|seems|explains|does not)\b",
    rf"\bthis ({_GIVEN} )?(appears|seems) to be "
    r"(the (opening|beginning|start|first)|an? (excerpt|extract|incomplete|part|passage))",
    rf"\bcontinu(e|ing) (on )?from where (the {_GIVEN}|you|it)\b",
    rf"\bthe rest of (this|the|your) {_GIVEN}\b",
    rf"\b{_GIVEN} (could|might|may) (continue|go on|end)\b",
    rf"\bbased on the ({_GIVEN}|information|context) (you|provided|given|above)\b",
)


def task_talk(text: str) -> list[Match]:
    """Talk about the text that was given, or about continuing it."""
    return spans(_TASK, without_quotes(text))


_MISTAKE = (
    r"(confusion|misunderstanding|miscommunication|misinterpretation|errors?|mistake|inconvenience|oversight|inaccura\w+"
    r"|inefficien\w+|delay|mix-?up)"
)
_MESSAGE = (
    "(code|question|example|text|style|description|explanation|message|statement|understanding|summary|request|query"
    "|approach|observation|point|answer|idea)"
)
_PRODUCT = (
    "(way to|explanation|guide|sample|overview|summary|list|approach|function|script|program|code|snippet|template"
    "|outline|examples?|answer|description|definition)"
)
_GOOD = "(helpful|interesting|great|correct|useful|excellent|clear|good)"
# How a reply begins …
_BEGINNINGS = (
    r"yes[,.!] (that|you|i\b|indeed|exactly|absolutely|of course|\w+ing\b)",
    r"no[,.!] (that|you|i\b|the|it)",
    r"(yes[,.!] )?that('s| is) (\w+ly )?(correct|right|true|great|wonderful|interesting)\b",
    r"(yes[,.!] )?that('s| is) (\w+ly )?a (great|good|fair|wonderful|fantastic|excellent|nice|valid|common|lovely)\b",
    r"(yes[,.!] )?that('s| is) (\w+ly )?an? (\w+ )?(interesting|excellent|important|insightful)\b",
    r"(awesome|great|excellent|wonderful|perfect|fantastic|exactly|congratulations|nice|well done)!",
    r"i('m| am) (so |very |really )?(glad|happy|pleased) (that )?you\b",
    rf"th(is|e) {_MESSAGE} (is|was) (\w+ly |very |quite )?{_GOOD}\b",
    rf"here('s| is| are) (a|an|one|the|some|my|your) ([\w-]+ ){{0,3}}{_PRODUCT}\b",
    r"that sounds (like|great|good|interesting)\b",
    r"you('re| are) (\w+ly )?(right|correct|referring|asking|welcome|looking for|talking about)\b",
    r"you('ve| have) (\w+ )?(provided|asked|shared|given|made|raised)\b",
    rf"your {_MESSAGE} (is|was|seems|looks|appears|has|provides|shows|raises)\b",
    r"(great|good|excellent|interesting) (question|point)\b",
    r"i('m| am) (so )?(glad|happy|sorry) to hear\b",
    r"i (understand|see) (that )?(you|your)\b",
    r"it (sounds|seems|looks) like you('re|'ve| are| have| want)?\b",
    r"thank(s| you) for (sharing|providing|asking|your (question|message|input|interest))",
    r"thank(s| you) for the (information|clarification|update|context)",
)
# … and what only a reply has, wherever it stands in it.
_ANYWHERE = (
    rf"\bi('m| am) (so |very )?sorry (for|about) (the|any|my|that|this) (\w+ ){{0,2}}{_MISTAKE}\b",
    rf"\bi apologi[sz]e for (the|any|my|that|this) (\w+ ){{0,2}}{_MISTAKE}\b",
    r"\b(to|in) (answer|response to|reply to) (to )?your (question|query|request|message)\b",
    r"\byou'(re|ve) right,",
    r"\bas you('ve| have)? (mentioned|asked|pointed out|requested|described|noted|stated)\b",
    r"\b(you|the user)( has|'ve)? (asked for|is (asking|mentioning|referring)|requested)\b",
    r"\bhere('s| is) (a|an|one|my|the) (\w+ ){0,3}"
    r"(solution|breakdown|revised|rewritten|improved|corrected|step-by-step"
    r"|python (function|script|program)|bit you)\b",
    r"\b(improve|quality of) my responses\b",
    r"\b(our|the|this) conversation\b(?=[.!])",
)
_REPLY = phrases(rf"\A\W*(\w+[,!] )?({'|'.join(_BEGINNINGS)})", *_ANYWHERE)


def replies(text: str) -> list[Match]:
    """Reactions to the text before, as if it were the message of a user."""
    return spans(_REPLY, without_quotes(text))
