"""Read gettext catalogues (``.mo`` and ``.po``) as pairs of a source string and its human translation."""

import gettext
import io
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module

from plugin_common.errors import UserError

CONTEXT_SEPARATOR = b"\x04"
PLURAL_SEPARATOR = b"\x00"
# n = 1 selects the singular's form, n = 2 the plural's. Of Romanian's three forms that is "2 fișiere", the one that
# reads like an English plural ("20 de fișiere", the third form, adds a word that the source does not show).
SINGULAR_NUMBER, PLURAL_NUMBER = 1, 2
_MO_MAGIC = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}


class CatalogueError(UserError):
    """A catalogue that cannot be read at all: truncated, not a catalogue, or of an unknown charset."""


class Unread(StrEnum):
    """Why an entry of a catalogue gave no pair."""

    EMPTY = "translation empty"
    FUZZY = "marked fuzzy"
    ENCODING = "wrongly encoded"
    PLURAL_RULE = "plural form missing or its rule unreadable"


@dataclass(frozen=True)
class Catalogue:
    """The pairs of one catalogue file, in the file's order, and a count of each reason for entries that gave none."""

    pairs: list[tuple[str, str]]
    unread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Entry:
    """One entry as bytes: the source forms (singular, plural) and the translated forms, context removed."""

    sources: list[bytes]
    targets: list[bytes]


def read_catalogue(content: bytes, name: str) -> Catalogue:
    """Pairs of the catalogue ``content``; ``name`` is the file's name for messages and tells ``.po`` from ``.mo``.

    The header is skipped, contexts (``msgctxt``) are stripped, fuzzy and obsolete entries of ``.po`` files left out.
    A plural entry gives up to two pairs: singular with the form for n = 1, plural with the form for n = 2, by the
    catalogue's own ``Plural-Forms`` rule. Entries that are not valid in the declared charset are counted, not repaired.

    Raises:
        CatalogueError: the file is truncated, is no catalogue, or declares an unknown charset.
    """
    unread: Counter[str] = Counter()
    entries = list(_po_entries(content, name, unread) if name.endswith(".po") else _mo_entries(content, name))
    header = b"".join(entry.targets[0] for entry in entries if entry.sources == [b""]).decode("ascii", "replace")
    charset = _charset(header, name)
    plural_form = plural_rule(header)
    pairs: list[tuple[str, str]] = []
    for entry in entries:
        if entry.sources == [b""]:
            continue
        for source, target in _forms(entry, plural_form, unread):
            try:
                pair = source.decode(charset), target.decode(charset)
            except UnicodeDecodeError:
                unread[Unread.ENCODING] += 1
                continue
            if pair[1]:
                pairs.append(pair)
            else:
                unread[Unread.EMPTY] += 1
    return Catalogue(pairs, unread)


def plural_rule(header: str) -> Callable[[int], int] | None:
    """The function n → index of the plural form that the header's ``Plural-Forms`` line declares.

    Without such a line: the rule of English and German (n != 1). None if the line cannot be read.
    """
    line = re.search(r"^Plural-Forms:(.*)$", header, re.MULTILINE | re.IGNORECASE)
    expression = re.search(r"plural\s*=\s*([^;]+)", line[1]) if line else None
    if line is None:
        return lambda n: int(n != 1)
    if expression is None:
        return None
    try:
        return gettext.c2py(expression[1])
    except (ValueError, RecursionError):
        return None


def _forms(
    entry: _Entry, plural_form: Callable[[int], int] | None, unread: Counter[str]
) -> Iterator[tuple[bytes, bytes]]:
    if len(entry.sources) == 1:
        yield entry.sources[0], entry.targets[0]
        return
    for source, number in zip(entry.sources, (SINGULAR_NUMBER, PLURAL_NUMBER), strict=False):
        index = plural_form(number) if plural_form else -1
        if 0 <= index < len(entry.targets):
            yield source, entry.targets[index]
        else:
            unread[Unread.PLURAL_RULE] += 1


def _charset(header: str, name: str) -> str:
    declared = re.search(r"charset=([\w.:-]+)", header)
    charset = declared[1] if declared and declared[1] != "CHARSET" else "utf-8"
    try:
        "a".encode(charset)
    except (LookupError, UnicodeError):
        raise CatalogueError(f"{name}: unknown charset {charset!r} in its header") from None
    return charset


def _mo_entries(content: bytes, name: str) -> Iterator[_Entry]:
    """The entries of a ``.mo`` file, as the GNU gettext manual ("The Format of GNU MO Files") lays them out.

    The standard library decodes a whole file or fails; here one wrongly encoded entry must not cost the others.
    """
    order = _MO_MAGIC.get(content[:4])
    if order is None:
        raise CatalogueError(f"{name}: not a .mo catalogue (it does not start with the format's magic number)")
    try:
        _revision, count, sources_at, targets_at = struct.unpack_from(f"{order}4I", content, 4)
        for row in range(count):
            source = _mo_string(content, order, sources_at + 8 * row)
            target = _mo_string(content, order, targets_at + 8 * row)
            without_context = source.rpartition(CONTEXT_SEPARATOR)[2]
            yield _Entry(without_context.split(PLURAL_SEPARATOR), target.split(PLURAL_SEPARATOR))
    except (struct.error, IndexError):
        raise CatalogueError(f"{name}: truncated or damaged .mo catalogue (an offset points past its end)") from None


def _mo_string(content: bytes, order: str, at: int) -> bytes:
    length, offset = struct.unpack_from(f"{order}2I", content, at)
    if offset + length > len(content):
        raise IndexError
    return content[offset : offset + length]


def _po_entries(content: bytes, name: str, unread: Counter[str]) -> Iterator[_Entry]:
    """The entries of a ``.po`` file, parsed by Babel and given back as bytes of the declared charset."""
    try:
        pofile = import_module("babel.messages.pofile")  # an optional dependency
    except ImportError:
        raise UserError(f"{name}: reading .po catalogues needs the package babel: pip install babel") from None
    charset = _charset(content[:8192].decode("ascii", "replace"), name)
    # Undecodable bytes travel as surrogates, so that only the entries that hold them are dropped later.
    text = io.StringIO(content.decode(charset, "surrogateescape"))
    try:
        catalogue = pofile.read_po(text, ignore_obsolete=True, charset=charset, abort_invalid=True)
    except (pofile.PoFileError, ValueError, IndexError) as error:
        raise CatalogueError(f"{name}: not a readable .po catalogue ({error})") from None

    def as_bytes(value: object) -> list[bytes]:
        forms = value if isinstance(value, tuple | list) else [value]
        return [str(form or "").encode(charset, "surrogateescape") for form in forms]

    yield _Entry([b""], as_bytes("\n".join(f"{key}: {value}" for key, value in catalogue.mime_headers)))
    for message in catalogue:
        if not message.id:
            continue
        if message.fuzzy:
            unread[Unread.FUZZY] += 1
            continue
        yield _Entry(as_bytes(message.id), as_bytes(message.string))


def catalogue_paths(paths: Iterable[str], language: str) -> list[str]:
    """Which files of a package are catalogues of ``language`` ("de": folders, files named ``de`` or ``de_DE``), sorted.

    A ``.po`` file counts only where no ``.mo`` file of the same name stands beside it.
    """
    code = rf"{re.escape(language)}(?:[_-]{re.escape(language.upper())})?(?:\.[uU][tT][fF]-?8)?"
    pattern = re.compile(rf"(?:^|/)(?:{code}/LC_MESSAGES/[^/]+|(?:[^/]*-)?{code})\.(?:mo|po)$")
    found = {path for path in paths if pattern.search(path)}
    return sorted(path for path in found if path.endswith(".mo") or f"{path[:-3]}.mo" not in found)
