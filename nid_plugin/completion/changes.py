"""What differs between settings as they were written down and as they are."""

import json
from collections.abc import Iterator
from typing import Any


def differences(there: Any, now: Any, name: str = "") -> Iterator[str]:
    """One phrase for each setting (``NAME: was …, is …``) in which two JSON-able values differ.

    Args:
        there: as it was written to a file.
        now: as it is now; tuples count as lists.
        name: of the value.
    """
    if isinstance(now, tuple):
        now = list(now)
    if isinstance(there, dict) and isinstance(now, dict):
        for key in [*there, *(key for key in now if key not in there)]:
            yield from differences(there.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif there != now:
        yield f"{name}: was {_short(there)}, is {_short(now)}"


def _short(value: Any, width: int = 200) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 1] + "…"
