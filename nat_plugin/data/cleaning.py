"""From the texts of programs to sentences: placeholders, accelerators, markup, and what is no sentence at all.

Every rule works on both sides alike; what it drops is counted under a name.
"""

import html
import re
import unicodedata
from collections import Counter

from nat_plugin.data.catalogues import Pair

PLACEHOLDER = "{}"
_PLACEHOLDERS = re.compile(
    r"""%\([^)\s]+\)[-+#0 ]*\d*(?:\.\d+)?[a-zA-Z]      # %(name)s
      | %\d+\$[-+#0 ]*\d*(?:\.\d+)?l{0,2}[a-zA-Z]      # %1$s
      | %[-+#0]*\d*(?:\.\d+)?(?:hh|h|ll|l|z|j)?[sdiufgxXceEGopL](?![a-zA-Z])  # %s, %5.2f, %ld
      | %(?:n|L?\d{1,2})(?![\d%a-zA-Z])                # %1 (Qt), %n
      | %%?\{[^{}]*\}                                  # %{name}
      | \$\{[^{}]*\} | \$[A-Za-z_]\w*                  # ${name}, $name
      | \{\{[^{}]*\}\} | \{[\w.!:,\[\]-]*\}            # {{ name }}, {name}, {0}
      | @[A-Z_]{2,}@ | \#\{[^{}]*\}                    # @NAME@, #{name}
    """,
    re.VERBOSE,
)
_TAG = re.compile(r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>|<!--.*?-->|</?\d+>", re.DOTALL)
_LEFT_MARKUP = re.compile(r"[<>]\S|\[/?(?:b|i|u|url|color)[^\]]*\]|\*\*|__|``|\\[a-z]{2,}|::\s*$|&[a-z]+;")
_ACCELERATOR_SUFFIX = re.compile(r"\s?\([&_~]\w\)")
_ACCELERATOR = re.compile(r"(?<![\w&])&(?=\w)|(?<=\w)&(?=[a-zäöüßșțăâî])|(?<!\w)[_~](?=\w)|(?<=[A-Za-zäöüß])[_~](?=[a-zäöüß])")
_SPACES = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")
_MOJIBAKE = re.compile(r"[ÃÂÅÄ][\u0080-\u00bf]|\ufffd")
_CODE = re.compile(r"https?://|[\w-]+@[\w-]+\.|(?:^|\s)--?\w+[=\w-]*|;\s*$|\w+\(\)|/\w+/\w+|\w+_\w+|\.\w{2,4}/|=\s*\S+\s*;|[#|]{2}")
_OTHER_SCRIPT = re.compile(r"[\u0370-\u1aff\u1c80-\u1dbf\u2c00-\ud7ff\uf900-\ufdff]")

MAX_CHARACTERS = 300
MAX_LENGTH_RATIO = 3.0
MIN_LETTERS_SHARE = 0.5


def clean_pair(pair: Pair, dropped: Counter[str]) -> Pair | None:
    """The pair as two plain sentences, or None with the reason counted in ``dropped``."""
    source, target = clean_text(pair.source), clean_text(pair.target)
    reason = reason_to_drop(source, target)
    if reason is None:
        return Pair(source, target)
    dropped[reason] += 1
    return None


def clean_text(text: str) -> str:
    """NFC text on one line, without tags and accelerators, with every placeholder written ``{}``."""
    text = unicodedata.normalize("NFC", text)
    text = text.replace("\\n", " ").replace("\u00ad", "")
    text = _PLACEHOLDERS.sub(PLACEHOLDER, text)
    text = _TAG.sub(" ", text)
    text = _without_accelerators(text)
    text = html.unescape(text)
    text = _SPACES.sub(" ", "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)).strip()
    text = re.sub(r" ([.,;:!?…)])", r"\1", text)
    return re.sub(r"([(]) ", r"\1", text)


def _without_accelerators(text: str) -> str:
    """``_File``, ``Save &As``, ``Datei (_F)`` → ``File``, ``Save As``, ``Datei``; ``AT&T`` and ``snake_case`` stay.

    A text has one accelerator at most: two or more marks, or an HTML entity, say that the mark means something else.
    """
    text = _ACCELERATOR_SUFFIX.sub("", text)
    marks = _ACCELERATOR.findall(text)
    if len(marks) != 1 or re.search(r"&\w+;", text):
        return text
    return _ACCELERATOR.sub("", text)


def reason_to_drop(source: str, target: str) -> str | None:
    """Why a cleaned pair is no pair of sentences, or None."""
    texts = (source, target)
    rules = (
        ("no letters", any(len(_LETTER.findall(t)) < 2 for t in texts)),
        ("too long", any(len(t) > MAX_CHARACTERS for t in texts)),
        ("placeholders differ", source.count(PLACEHOLDER) != target.count(PLACEHOLDER)),
        ("markup", any(_LEFT_MARKUP.search(t) for t in texts)),
        ("code", any(_CODE.search(t) for t in texts)),
        ("wrongly encoded", any(_MOJIBAKE.search(t) for t in texts)),
        ("other script", any(_OTHER_SCRIPT.search(t) for t in texts)),
        ("few letters", any(_letters_share(t) < MIN_LETTERS_SHARE for t in texts)),
        ("untranslated", source == target and len(source.split()) > 1),
        ("lengths differ", _length_ratio(source, target) > MAX_LENGTH_RATIO),
    )
    return next((name for name, applies in rules if applies), None)


def _letters_share(text: str) -> float:
    visible = text.replace(PLACEHOLDER, "").replace(" ", "")
    return len(_LETTER.findall(visible)) / max(1, len(visible))


def _length_ratio(source: str, target: str) -> float:
    """Of the longer to the shorter in characters; ten are added to both, so that short texts may differ more."""
    lengths = sorted((len(source) + 10, len(target) + 10))
    return lengths[1] / lengths[0]
