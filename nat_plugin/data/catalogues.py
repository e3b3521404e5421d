"""Pairs of sentences from gettext catalogues (``.mo``): human translations of the texts of programs.

The format is read here and not by :mod:`gettext`, which stops at the first entry that does not decode; here such an entry
is counted and left out.
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from gettext import c2py
from typing import NamedTuple

_MAGIC = {0x950412DE: "<", 0xDE120495: ">"}


class CatalogueError(ValueError):
    """The bytes are no readable ``.mo`` file."""


class Pair(NamedTuple):
    """A text and its translation."""

    source: str
    target: str


def read_catalogue(data: bytes, dropped: Counter[str]) -> Iterator[Pair]:
    """Source texts with their translations, in the order of the file.

    A plural entry gives two pairs: the singular with the form for one, the plural with the form for two. Contexts are taken off, the header is
    skipped.

    Args:
        data: the file.
        dropped: gets the counts of what is left out: ``undecodable``, ``untranslated``, ``plural form missing``.

    Raises:
        CatalogueError: not a ``.mo`` file, or a truncated one.
    """
    entries = list(_raw_entries(data))
    header = next((target for source, target in entries if source == b""), b"")
    charset, plural_index = _charset(header), _plural_rule(header)
    for raw_source, raw_target in entries:
        if raw_source == b"":
            continue
        try:
            sources = _without_context(raw_source.decode(charset)).split("\0")
            targets = raw_target.decode(charset).split("\0")
        except UnicodeDecodeError:
            dropped["undecodable"] += 1
            continue
        yield from _pairs_of_entry(sources, targets, plural_index, dropped)


def _pairs_of_entry(
    sources: list[str], targets: list[str], plural_index: Callable[[int], int], dropped: Counter[str]
) -> Iterator[Pair]:
    numbers = [1] if len(sources) == 1 else [1, 2]
    for text, number in zip(sources, numbers, strict=False):
        form = 0 if len(sources) == 1 else plural_index(number)
        if form >= len(targets):
            dropped["plural form missing"] += 1
        elif not targets[form].strip():
            dropped["untranslated"] += 1
        else:
            yield Pair(text, targets[form])


def _raw_entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(data) < 20:
        raise CatalogueError("too short for a .mo file")
    order = _MAGIC.get(struct.unpack("<I", data[:4])[0])
    if order is None:
        raise CatalogueError("no .mo file (wrong magic number)")
    _version, count, sources, targets = struct.unpack(f"{order}4I", data[4:20])
    if max(sources, targets) + 8 * count > len(data):
        raise CatalogueError("truncated .mo file")
    for i in range(count):
        texts = []
        for table in (sources, targets):
            length, start = struct.unpack_from(f"{order}2I", data, table + 8 * i)
            if start + length > len(data):
                raise CatalogueError("truncated .mo file")
            texts.append(data[start : start + length])
        yield texts[0], texts[1]


def _charset(header: bytes) -> str:
    found = re.search(rb"charset=([\w.:-]+)", header)
    name = found.group(1).decode("ascii") if found else "utf-8"
    try:
        "".encode(name)
    except LookupError:
        return "utf-8"
    return name


def _plural_rule(header: bytes) -> Callable[[int], int]:
    """From a number to the index of its form, by the header's ``Plural-Forms`` (default: one and many)."""
    found = re.search(rb"plural=([^;\n]+)", header)
    if found:
        try:
            rule = c2py(found.group(1).decode("ascii"))
            rule(1), rule(2)
        except (ValueError, UnicodeDecodeError, RecursionError, ZeroDivisionError):
            pass
        else:
            return rule
    return lambda n: int(n != 1)


def _without_context(text: str) -> str:
    return text.split("\x04", 1)[-1]

