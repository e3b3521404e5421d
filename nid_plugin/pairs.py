"""Pairs of prompt and completion: what fine-tuning reads, one JSON object a line."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from plugin_common.errors import UserError
from plugin_common.json_lines import check_unicode, json_object, read_raw_lines
from plugin_common.json_output import json_line, lines_output

HALF_OF_DOCUMENT = "document"
"""Teacher and finish reason of a pair whose completion is the document's own second half."""

_MARK = b"\xef\xbb\xbf"  # some programs begin a file of UTF-8 with it


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and its completion.

    Attributes:
        id: 32 hexadecimal digits, of the request that gave the completion.
        prompt: the document's first half as it stands.
        completion: what the teacher wrote; never empty.
        source: where the document came from.
        teacher: name of the model, or ``document`` for the document's own second half.
        finish_reason: why the teacher stopped: ``stop``, ``length``, …; ``document`` for the second half.
        usage: tokens that the endpoint counted, ``prompt_tokens`` and ``completion_tokens``.
    """

    id: str
    prompt: str
    completion: str
    source: str
    teacher: str
    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)


def read_pairs(path: str, *, unicode: bool = False) -> Iterator[Pair]:
    """The pairs of a file (``.gz`` and ``.zst`` too), in order; memory for one line.

    Only ``prompt`` and ``completion`` must be there, so that pairs of other makers can be read; further fields are
    passed over.

    Args:
        path: see above.
        unicode: refuse prompts and completions that are no valid Unicode (half of a surrogate pair, which JSON can
            hold and a broken server may send): no tokenizer takes them.

    Raises:
        UserError: the file cannot be read, or a line is no pair (names file, line and field).
    """
    return (pair for pair, _ in read_pairs_and_lines(path, unicode=unicode))


def read_pairs_and_lines(path: str, *, unicode: bool = False) -> Iterator[tuple[Pair, bytes]]:
    """As :func:`read_pairs`, each pair with its line as it stands in the file, without its end."""
    for number, line in read_raw_lines(path):
        where = f"{path}, line {number}"
        record = json_object(line, where)
        if unicode:
            check_unicode(line, {name: record.get(name) for name in ("prompt", "completion")}, where)
        yield _pair(record, where, number), line.removeprefix(_MARK).rstrip(b"\r\n")


def _pair(record: dict[str, Any], where: str, number: int) -> Pair:
    for name in ("prompt", "completion"):
        if not isinstance(record.get(name), str):
            found = type(record[name]).__name__ if name in record else f"only {', '.join(sorted(record)) or 'no field'}"
            raise UserError(f'{where}: a pair needs a text "{name}", found {found}; is this a file of pairs?')
        if not record[name].strip():
            raise UserError(f'{where}: "{name}" is empty; remove the line')
    texts = {"id": str(number), "source": where, "teacher": "", "finish_reason": ""}
    for name, default in texts.items():
        value = record.get(name, default)
        if not isinstance(value, str):
            raise UserError(f'{where}: "{name}" must be a text, found {type(value).__name__}')
        texts[name] = value
    usage = record.get("usage") or {}
    if not isinstance(usage, dict):
        raise UserError(f'{where}: "usage" must be an object, found {type(usage).__name__}')
    return Pair(prompt=record["prompt"], completion=record["completion"], usage=usage, **texts)


def write_pairs(path: str, pairs: Iterable[Pair]) -> int:
    """Write the pairs, one line each (compressed: ``.gz``, ``.zst``); the file appears only when it is complete.

    Returns how many there are.

    Raises:
        UserError: the file cannot be written.
    """
    count = 0
    with lines_output(path) as stream:
        for count, pair in enumerate(pairs, start=1):  # noqa: B007 (the count is the result)
            stream.write(pair_line(pair))
    return count


def pair_line(pair: Pair) -> bytes:
    """The line of a pair, with its newline."""
    return json_line(asdict(pair))


FIELDS = tuple(field.name for field in fields(Pair))
