"""Read the messages of programs that do without gettext: Fluent, Java properties and JSON, one string a message.

For text in one language only: nothing here says which message translates which.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable

from nat_plugin.data.text_rules import PLACEHOLDER, remove_markup

_FLUENT_START = re.compile(r"^(?:-?[A-Za-z][\w-]*|[ \t]+\.(?P<attribute>[A-Za-z][\w-]*)) ?= ?(?P<value>.*)$")
_FLUENT_VARIANT = re.compile(r"^\s*\*?\[[^\]]*\]\s?(?P<value>.*)$")
# A short-cut letter, a size and the like are no text.
_FLUENT_NO_TEXT = frozenset({"accesskey", "key", "style", "commandkey"})
_PROPERTY = re.compile(r"^\s*(?P<key>[^\s#!=:][^\s=:]*)\s*[=:]\s*(?P<value>.*)$")
_PROPERTY_NO_TEXT = re.compile(r"(?i)(?:accesskey|commandkey|\.key|\.accesskey)$")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
_WIKI_SYNTAX = re.compile(r"\[\[|\]\]|\{\{|\}\}|\[https?:|\[\$|^[*#:;=]|''|__[A-Z]+__")


def fluent_messages(source: str) -> list[str]:
    """The values and attributes of a Fluent file; of a choice (``{ $n -> [one] ... }``) each variant by itself."""
    messages: list[str] = []
    current: list[str] | None = None
    for line in [*source.splitlines(), ""]:
        start = _FLUENT_START.match(line)
        variant = None if start else _FLUENT_VARIANT.match(line)
        if start or variant or not line.startswith((" ", "\t")) or line.strip() in ("", "}"):
            if current:
                messages.append(" ".join(current))
            current = None
        if start:
            current = None if start["attribute"] in _FLUENT_NO_TEXT else [start["value"]]
        elif variant:
            current = [variant["value"]]
        elif current is not None and line.strip():
            current.append(line.strip())
    return _plain(message for message in messages if "->" not in message)


def properties_messages(source: str) -> list[str]:
    """The values of a properties file, continued lines joined and ``\\u`` escapes written out."""
    messages = []
    for line in re.sub(r"\\\r?\n\s*", "", source).splitlines():
        found = _PROPERTY.match(line)
        if found and not _PROPERTY_NO_TEXT.search(found["key"]):
            value = _UNICODE_ESCAPE.sub(lambda code: chr(int(code[1], 16)), found["value"])
            messages.append(value.replace(r"\n", " ").replace("\\", ""))
    return _plain(messages)


def json_messages(content: bytes) -> list[str]:
    """The strings of a JSON object of messages, without those that hold wiki syntax; ``$1`` becomes a placeholder."""
    try:
        messages = json.loads(content)
    except ValueError:
        return []
    values = messages.values() if isinstance(messages, dict) else []
    texts = [value for value in values if isinstance(value, str) and not _WIKI_SYNTAX.search(value)]
    return _plain(re.sub(r"\$\d", PLACEHOLDER, text) for text in texts)


def language_pack_messages(content: bytes) -> list[str]:
    """The messages of all Fluent and properties files in a language pack (a zip archive); empty if it is damaged."""
    messages: list[str] = []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith((".ftl", ".properties")):
                    text = archive.read(name).decode("utf-8", errors="replace")
                    messages += fluent_messages(text) if name.endswith(".ftl") else properties_messages(text)
    except (zipfile.BadZipFile, EOFError, OSError):
        return []
    return messages


def _plain(messages: Iterable[str]) -> list[str]:
    folded = (" ".join(remove_markup(message).split()) for message in messages)
    return [message for message in folded if message]
