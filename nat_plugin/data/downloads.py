"""Download a file so that neither a broken connection nor a killed process nor an altered file goes unnoticed.

The data goes to ``NAME.part`` and takes its name only when it is complete, checked and on the disk. An interrupted
download is continued (``Range``, guarded by ``If-Range``); a server without ranges starts over. Two processes that want
the same file: the second one waits, then finds it there.
"""

import contextlib
import fcntl
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from nat_plugin.data.file_checks import Digest, Expected, Hashes, checked, hashes_of
from plugin_common.errors import UserError
from plugin_common.progress import progress_bar

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0  # seconds
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ELSEWHERE = "give --mirror URL-OR-FOLDER to take it from elsewhere"


@dataclass(frozen=True)
class Patience:
    """When to give up.

    Attributes:
        retries: attempts in a row that bring nothing new, after the first.
        timeout: seconds without a byte, or without a connection, that end an attempt.
        first_pause: seconds before the first retry; doubled each time, up to ``LONGEST_PAUSE``, plus up to a half.
    """

    retries: int = 5
    timeout: float = 30.0
    first_pause: float = 1.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after the ``failures``-th failure in a row; random, so that many do not come back at once."""
        return min(self.first_pause * 2 ** (failures - 1), LONGEST_PAUSE) * random.uniform(1.0, 1.5)


class _Temporary(Exception):
    """Worth another attempt, after at least ``wait`` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str,
    target: Path,
    expected: Expected,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Digest:
    """Bring ``url`` to the file ``target`` and return its digest; a ``target`` that is there already is only checked.

    Args:
        url: http or https.
        target: its folder exists.
        expected: what the file has to be.
        patience: see :class:`Patience`.
        sleep: waits the given number of seconds.

    Raises:
        UserError: not found, not reachable, altered, no space; names URL, what was expected and what to do.
    """
    if target.exists():
        return checked(target, expected)
    _check_address(url)
    part = target.with_name(f"{target.name}.part")
    try:
        with _locked(part):
            if target.exists():  # another process has brought it while this one waited
                part.unlink(missing_ok=True)
                return checked(target, expected)
            digest = _complete(url, part, target, expected, patience or Patience(), sleep)
            part.replace(target)
            _sync_folder(target.parent)
            _note_of(part).unlink(missing_ok=True)
            return digest
    except OSError as error:
        raise UserError(
            f"{part}: cannot be written ({error.strerror or error}); check rights and free space of {part.parent}; "
            "what is there already is kept and continued"
        ) from error


def _check_address(url: str) -> None:
    """Refuse what another attempt cannot help; the client takes some of it for a server's name that is not known."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # the port is checked when it is asked for
        problem = "" if parts.scheme in ("http", "https") else "neither http nor https"
        if not problem and (not host or any(map(str.isspace, host))):
            problem = "no server's name, or one with a space"
    except ValueError as error:
        problem = str(error)
    if problem:
        raise UserError(f"{url}: not an address to download from ({problem}); expected http(s)://…")


def _complete(
    url: str, part: Path, target: Path, expected: Expected, patience: Patience, sleep: Callable[[float], None]
) -> Digest:
    """Fill ``part`` until it is the whole, checked file; returns its digest."""
    import httpx2

    resumed = part.stat().st_size > 0
    timeout = httpx2.Timeout(patience.timeout)
    headers = {"Accept-Encoding": "identity", "User-Agent": "nat-download"}  # as stored: checksums are of the archive
    with httpx2.Client(timeout=timeout, follow_redirects=True, headers=headers) as client:
        while True:
            digest = _fill(client, url, part, expected, patience, sleep)
            problem = expected.problem(digest)
            if problem is None:
                return digest
            if not resumed:
                break
            # The beginning may be of an older version of the file, or of another mirror's.
            log.warning("%s: continued download differs (%s): starting over", url, problem)
            part.write_bytes(b"")
            resumed = False
    altered = target.with_name(f"{target.name}.altered")
    part.replace(altered)
    _note_of(part).unlink(missing_ok=True)
    raise UserError(
        f"{url}: not the file that was expected: {problem}; set aside as {altered}. Look at it (an error page?) and "
        f"try again, {_ELSEWHERE}, or, if this file is meant, give its SHA-256 with --checksums FILE"
    )


def _fill(
    client: "httpx2.Client",
    url: str,
    part: Path,
    expected: Expected,
    patience: Patience,
    sleep: Callable[[float], None],
) -> Digest:
    """Stream the rest of ``url`` to ``part``, attempt after attempt; returns the digest of the whole."""
    failures, furthest = 0, part.stat().st_size
    with progress_bar(total=expected.size, unit="B", description=part.name.removesuffix(".part")) as bar:
        while True:
            try:
                return _attempt(client, url, part, expected, bar)
            except _Temporary as error:
                size = part.stat().st_size
                failures = 1 if size > furthest else failures + 1
                furthest = max(furthest, size)
                if failures > patience.retries:
                    raise UserError(
                        f"{url}: {error}, {failures} times in a row; {size:,} bytes are kept in {part} and continued "
                        f"next time. Check the connection and try again, or {_ELSEWHERE}"
                    ) from error
                pause = max(patience.pause(failures), error.wait)
                log.warning("%s: %s; trying again in %.1f s", url, error, pause)
                sleep(pause)


def _attempt(client: "httpx2.Client", url: str, part: Path, expected: Expected, bar: Any) -> Digest:
    """One request; raises ``_Temporary`` where another one may help."""
    import httpx2

    hashes = hashes_of(part)
    validator = _read_validator(part, url)
    headers = {}
    # Without a validator only a checksum can tell afterwards whether both halves belong together.
    if hashes.size and (validator or expected.has_checksum):
        headers = {"Range": f"bytes={hashes.size}-"} | ({"If-Range": validator} if validator else {})
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416 and _total(response) == hashes.size:
                return hashes.digest()
            start = _start_of(response, url, part, hashes.size)
            if start == 0:
                hashes = Hashes()
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            _check_size(url, part, total, expected)
            _check_space(part, (total or expected.size or 0) - start)
            _write_validator(part, url, response)
            _write(response, part, hashes, bar, total)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise UserError(f"{url}: not an address to download from ({error}); expected http(s)://…") from error
    except httpx2.TooManyRedirects as error:
        raise UserError(f"{url}: redirected in circles; {_ELSEWHERE}") from error
    except httpx2.TransportError as error:
        raise _Temporary(f"{type(error).__name__}: {error}") from error
    if total is not None and hashes.size != total:
        raise _Temporary(f"the connection ended after {hashes.size:,} of {total:,} bytes")
    return hashes.digest()


def _start_of(response: "httpx2.Response", url: str, part: Path, have: int) -> int:
    """The position in the file at which the response's body starts: 0, or ``have`` where the server continues."""
    status = response.status_code
    if status == 200:
        return 0
    if status == 206:
        if response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            return have
        part.write_bytes(b"")
        raise _Temporary(f"the server sent another range than asked for ({response.headers.get('Content-Range')})")
    if status == 416:
        part.write_bytes(b"")
        raise _Temporary("the file there is shorter than what was downloaded before")
    reason = f"HTTP status {status} {response.reason_phrase}".strip()
    if status in _TEMPORARY:
        wait = response.headers.get("Retry-After", "")
        raise _Temporary(reason, min(float(wait), LONGEST_PAUSE) if wait.isdigit() else 0.0)
    raise UserError(f"{url}: {reason}; check the address, or {_ELSEWHERE}")


def _write(response: "httpx2.Response", part: Path, hashes: Hashes, bar: Any, total: int | None) -> None:
    """Append the body to ``part`` (from its start if ``hashes`` is empty), and bring it to the disk."""
    bar.total = total or bar.total
    bar.n = hashes.size
    with part.open("r+b") as stream:
        stream.truncate(hashes.size)
        stream.seek(hashes.size)
        try:
            for block in response.iter_raw():  # as it comes: a broken connection would lose what is held back
                stream.write(block)
                stream.flush()  # what has arrived is there after any kill
                hashes.update(block)
                bar.update(len(block))
        finally:
            stream.flush()
            os.fsync(stream.fileno())


def _check_size(url: str, part: Path, total: int | None, expected: Expected) -> None:
    """Notice before the download that it is another file."""
    if total is not None and expected.size is not None and total != expected.size:
        part.write_bytes(b"")
        raise UserError(
            f"{url}: is {total:,} bytes long, expected {expected.size:,} ({expected.origin}): another file; check the "
            f"address, {_ELSEWHERE}, or, if this file is meant, give its SHA-256 with --checksums FILE"
        )


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f"{part.parent}: {free:,} bytes free, {needed:,} needed for {part.name}; make room or give another folder "
            "with --archives"
        )


def _total(response: "httpx2.Response") -> int | None:
    """The file's length out of ``Content-Range: bytes */N``."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _note_of(part: Path) -> Path:
    """Where the validator of an unfinished download stands."""
    return part.with_name(f"{part.name}.json")


def _read_validator(part: Path, url: str) -> str | None:
    """The ``ETag`` or date under which ``part`` was begun, if it was begun from ``url``."""
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        return str(note["validator"]) if note["url"] == url and note["validator"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_validator(part: Path, url: str, response: "httpx2.Response") -> None:
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    _note_of(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Hold ``part`` alone; it exists within the block unless that renames it."""
    while True:
        stream = part.open("ab")
        try:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("%s: another process downloads it, waiting", part)
                fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever held the lock before may have renamed or removed the file that was opened here.
            if _is_at(part, stream):
                try:
                    yield stream
                finally:
                    if _is_at(part, stream) and part.stat().st_size == 0:  # nothing to continue
                        part.unlink()
                        _note_of(part).unlink(missing_ok=True)
                return
        finally:
            stream.close()


def _is_at(path: Path, stream: BinaryIO) -> bool:
    """Whether the open file is the one that has this path now; who holds it alone may rename or remove it."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Bring a renaming to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
