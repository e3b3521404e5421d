"""Keep the API key out of whatever is shown or written."""

import re
from collections.abc import Callable

HIDDEN = "[key]"
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|key)-[A-Za-z0-9_*-]{8,}|(?<=[Bb]earer )\S{8,}")


def redactor(api_key: str) -> Callable[[str], str]:
    """A function that hides the key, any form of it that endpoints echo (``sk-ab***yz``), and other keys, in a text."""

    def redact(text: str) -> str:
        if len(api_key) >= 4:
            text = text.replace(api_key, HIDDEN)
        return _LOOKS_LIKE_A_KEY.sub(HIDDEN, text)

    return redact
