"""Which files of a Debian package are documents, in which language, and the paragraphs of each."""

import gzip
import re
import zlib
from pathlib import PurePosixPath

from nat_plugin.data.man_pages import man_paragraphs
from nat_plugin.data.marked_up_text import html_paragraphs, xml_paragraphs
from nat_plugin.data.message_files import json_messages, language_pack_messages

LANGUAGES = ("en", "de", "ro")

_LANGUAGE_FOLDERS = {
    "en": frozenset({"C", "en", "en-US", "en_US", "en-us"}),
    "de": frozenset({"de", "de-DE", "de_DE"}),
    "ro": frozenset({"ro", "ro-RO", "ro_RO"}),
}
_ANY_LANGUAGE_FOLDER = re.compile(r"[a-z]{2}|[a-z]{2,3}(?:[-_][A-Za-z]{2})?@[a-z]+|[a-z]{2,3}[-_][A-Za-z]{2}")
_LANGUAGE_IN_NAME = re.compile(r"[._]([a-z]{2}(?:[-_][a-zA-Z]{2,4})?)\.x?html?$")
_MAN_FOLDER = re.compile(r"^/?usr/share/man/(?:(?P<language>[^/]+)/)?man\d\w*/[^/]+\.\d\w*(?:\.gz)?$")
_HELP_FOLDER = re.compile(r"^/?usr/share/(?:help/[^/]+|gnome/help/[^/]+/[^/]+|doc/HTML/[^/]+|doc/kde/HTML/[^/]+)/")
_HTML_FOLDER = re.compile(r"^/?usr/share/(?:doc/|libreoffice/help/|gimp/[\d.]+/help/|[\w-]*reference/)")
_NO_PROSE = re.compile(
    r"/(?:_sources|_static|_images|images|Common_Content|examples)/|changelog|NEWS|genindex|/search\."
)
_LANGUAGE_PACK = re.compile(r"/langpack-(?P<language>[A-Za-z-]+)@[^/]+\.xpi$")
_JSON_MESSAGES = re.compile(r"/i18n/(?P<language>[a-z]{2,3})\.json$")


def language_of(path: str, package: str) -> str | None:
    """Language of a document by its path in the package, None if it is no document or in a language not asked for.

    Documents in a package's folder that name no language are in that of the package's name (``...-de``), or English.
    """
    path = path.removeprefix(".")
    if _NO_PROSE.search(path):
        return None
    if messages := _LANGUAGE_PACK.search(path) or _JSON_MESSAGES.search(path):
        return _folder_language(messages["language"])
    if page := _MAN_FOLDER.match(path):
        return _folder_language(page["language"]) if page["language"] else "en"
    name = PurePosixPath(path).name
    if _HELP_FOLDER.match(path) and name.endswith((".page", ".docbook", ".xml")):
        return next((code for part in PurePosixPath(path).parts if (code := _folder_language(part))), None)
    if not (_HTML_FOLDER.match(path) and name.endswith((".html", ".htm", ".xhtml"))):
        return None
    if marked := _LANGUAGE_IN_NAME.search(name):
        return _folder_language(marked[1])
    for part in PurePosixPath(path).parts[3:-1]:
        if _ANY_LANGUAGE_FOLDER.fullmatch(part):
            return _folder_language(part)
    last = package.rpartition("-")[2]
    return last if last in LANGUAGES else "en"


def _folder_language(name: str) -> str | None:
    return next((code for code, folders in _LANGUAGE_FOLDERS.items() if name in folders), None)


def paragraphs_of(path: str, content: bytes) -> list[str]:
    """The paragraphs of a document whose ``language_of`` is known; empty if it cannot be read."""
    if path.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return []
    if _LANGUAGE_PACK.search(path):
        return language_pack_messages(content)
    if _JSON_MESSAGES.search(path):
        return json_messages(content)
    if _MAN_FOLDER.match(path.removeprefix(".")):
        try:
            return man_paragraphs(content.decode("utf-8"))
        except UnicodeDecodeError:
            return []
    return html_paragraphs(content) if path.endswith((".html", ".htm", ".xhtml")) else xml_paragraphs(content)
