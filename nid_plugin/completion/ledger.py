"""The ledger: a folder in which every answer is on the disk before it counts, once, whatever interrupts the run.

``settings.json`` says what was asked, ``results.jsonl`` holds one line an answer, ``failures.jsonl`` what was given up,
``spending.log`` what was paid (see ``spending.py``), ``lock`` keeps a second run out. The files of lines are only ever
appended to. Ids are made from the settings and the text, so that a run started again asks for what is missing alone.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nid_plugin.completion.changes import differences
from nid_plugin.completion.durable_file import FULL, DurableFile, Reserve, sync_folder
from nid_plugin.completion.results import STATUSES, Failure, Result, failure_from, result_from, to_line
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

FORMAT = 1


class Ledger:
    """An open ledger; made by :func:`open_ledger`.

    Attributes:
        notes: what was found and mended on opening, a phrase each.
        counts: results by status.
        finish_reasons: results by finish reason.
        usage: tokens of all results.
        uncounted: those of them whose price was not known.
    """

    def __init__(self, folder: Path, reserve_bytes: int = 0, *, read_only: bool = False) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self.finish_reasons: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self.reserve = Reserve(folder / ".reserve", reserve_bytes) if reserve_bytes else None
        self._results = DurableFile(folder / "results.jsonl", _is_result, read_only=read_only)
        self._failures = DurableFile(folder / "failures.jsonl", _is_failure, read_only=read_only)
        self._offsets: dict[int, int] = {}
        self._failed: dict[int, tuple[bool, str]] = {}
        self._load()

    def __contains__(self, request_id: str) -> bool:
        """Whether there is a result (a failure is none)."""
        return int(request_id, 16) in self._offsets

    def __len__(self) -> int:
        """How many results there are."""
        return len(self._offsets)

    def state(self, request_id: str) -> str:
        """``done``, ``empty``, ``refused``, ``failed for good``, ``failed for now`` (is asked again) or ``left``."""
        number = int(request_id, 16)
        if number in self._offsets:
            return STATUSES[self._offsets[number] % len(STATUSES)]
        if number not in self._failed:
            return "left"
        return "failed for good" if self._failed[number][0] else "failed for now"

    def failure_reason(self, request_id: str) -> str:
        """Why a request was given up last; empty where it never was."""
        return self._failed.get(int(request_id, 16), (False, ""))[1]

    def result(self, request_id: str) -> Result | None:
        """The result of a request, None where there is none."""
        offset = self._offsets.get(int(request_id, 16))
        return None if offset is None else self._read(offset)

    def results(self) -> Iterator[Result]:
        """All results, in the order in which they came."""
        for offset in self._offsets.values():
            yield self._read(offset)

    def failed(self) -> Iterator[Failure]:
        """What was given up last, of every request without a result."""
        last: dict[int, Failure] = {}
        for _, line in self._failures.lines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                failure = failure_from(json.loads(line))
                last[int(failure.id, 16)] = failure
        return (failure for number, failure in last.items() if number not in self._offsets)

    def append(self, results: Sequence[Result], failures: Sequence[Failure] = ()) -> bool:
        """Put results and failures on the disk. A result whose id is there already is left out (the first one stays).

        Returns:
            whether the disk was full and the reserve had to be used: all is saved, but no more should be asked.

        Raises:
            OSError: it cannot be written, not even into the reserve.
        """
        new = {int(result.id, 16): result for result in reversed(results)}
        fresh = [(n, result) for n, result in reversed(new.items()) if n not in self._offsets]
        lines = [to_line(result) for _, result in fresh]
        short, offset = self._append(self._results, b"".join(lines))
        for (number, result), line in zip(fresh, lines, strict=True):
            self._note(number, offset, result)
            offset += len(line)
        failed_short, _ = self._append(self._failures, b"".join(map(to_line, failures)))
        for failure in failures:
            self._failed[int(failure.id, 16)] = (failure.permanent, failure.reason)
        return short or failed_short

    def close(self) -> None:
        """Close the files."""
        self._results.close()
        self._failures.close()
        if self.reserve is not None:
            self.reserve.release()

    def _append(self, file: DurableFile, data: bytes) -> tuple[bool, int]:
        if not data:
            return False, file.size
        try:
            return False, file.append(data)
        except OSError as error:
            if error.errno not in FULL or self.reserve is None:
                raise
            self.reserve.release()
            return True, file.append(data)

    def _read(self, offset: int) -> Result:
        return result_from(json.loads(self._results.read_line(offset // len(STATUSES))))

    def _note(self, number: int, offset: int, result: Result) -> None:
        # One int holds place and status: a dictionary of a million of them stays small.
        self._offsets[number] = offset * len(STATUSES) + STATUSES.index(result.status)
        self.counts[result.status] += 1
        self.finish_reasons[result.finish_reason] += 1
        self.usage.update(result.usage)
        if result.cost is None:
            self.uncounted.update(result.usage)

    def _load(self) -> None:
        damaged = repeated = 0
        for offset, line in self._results.lines():
            try:
                result = result_from(json.loads(line))
            except (ValueError, TypeError, KeyError):
                damaged += 1
                continue
            number = int(result.id, 16)
            if number in self._offsets:
                repeated += 1
                continue
            self._note(number, offset, result)
        for _, line in self._failures.lines():
            try:
                failure = failure_from(json.loads(line))
            except (ValueError, TypeError, KeyError):
                damaged += 1
                continue
            self._failed[int(failure.id, 16)] = (failure.permanent, failure.reason)
        if torn := bool(self._results.torn) + bool(self._failures.torn):
            self.notes.append(f"{torn} half-written last line cut off; what it was for is asked again")
        if damaged:
            self.notes.append(f"{damaged:,} unreadable lines passed over; what they were for is asked again")
        if repeated:
            self.notes.append(f"{repeated:,} results were there twice; the first of each counts")


def _is_result(line: bytes) -> bool:
    return _reads(line, result_from)


def _is_failure(line: bytes) -> bool:
    return _reads(line, failure_from)


def _reads(line: bytes, read: Any) -> bool:
    try:
        read(json.loads(line))
    except (ValueError, TypeError, KeyError):
        return False
    return True


@contextlib.contextmanager
def open_ledger(
    folder: str, settings: dict[str, Any], *, reserve_bytes: int = 0, option: str = "--ledger"
) -> Iterator[Ledger]:
    """A ledger to work on, made if it is not there; nobody else can open it meanwhile.

    Args:
        folder: of the ledger.
        settings: JSON-able; must be those with which the ledger was made, once something was asked.
        reserve_bytes: space on the disk to set aside, for answers in flight when the disk fills up.
        option: that names the ledger on the command line, for errors.

    Raises:
        UserError: another run works on it, it was made with other settings (all differences are listed), or the folder
            is something else.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the ledger's folder cannot be made ({error.strerror})") from error
    with locked(path, option):
        _remove_leftovers(path)
        _take_settings(path, settings, option)
        ledger = Ledger(path, reserve_bytes)
        try:
            yield ledger
        finally:
            ledger.close()


@contextlib.contextmanager
def read_ledger(folder: str) -> Iterator[Ledger]:
    """A ledger to look into, while others may work on it; nothing in it is changed.

    Raises:
        UserError: the folder is no ledger.
    """
    read_settings(Path(folder))
    ledger = Ledger(Path(folder), read_only=True)
    try:
        yield ledger
    finally:
        ledger.close()


@contextlib.contextmanager
def locked(folder: Path, option: str = "--ledger") -> Iterator[None]:
    """Keep others out of a ledger; the lock goes with the process, however it ends.

    Raises:
        UserError: another run works on the ledger.
    """
    with (folder / "lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            who = stream.read().strip() or "another process"
            shards = " (and its own --shard of the documents; `nid merge` joins them)" if option == "--ledger" else ""
            raise UserError(
                f"{folder}: {who} works on this ledger; wait for it, or give this run its own {option}{shards}"
            ) from error
        except OSError as error:
            raise UserError(
                f"{folder}: the file system there cannot lock files ({error.strerror}), so that two runs could pay for "
                f"the same; give a folder on a local disk for {option}"
            ) from error
        stream.seek(0)
        stream.truncate()
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings with which a ledger was made.

    Raises:
        UserError: the folder is no ledger.
    """
    path = folder / "settings.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        form, settings = record["format"], dict(record["settings"])
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: is no ledger (it has no settings.json); give the folder of `nid complete --ledger`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not the settings of a ledger ({error})") from error
    if form != FORMAT:
        raise UserError(f"{path}: a ledger of format {form}, this version reads format {FORMAT}")
    return settings


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings in a new ledger."""
    with atomic_output(str(folder / "settings.json")) as stream:
        stream.write(
            json.dumps({"format": FORMAT, "settings": settings}, indent=1, ensure_ascii=False).encode() + b"\n"
        )
    sync_folder(folder)


def check_settings(folder: Path, settings: dict[str, Any], option: str = "--ledger") -> None:
    """Complain where a ledger was made with other settings, unless nothing was asked with them yet.

    Raises:
        UserError: lists every difference.
    """
    changed = list(differences(read_settings(folder), settings))
    if changed and not nothing_asked(folder):
        listed = "\n".join(f"  - {difference}" for difference in changed)
        raise UserError(
            f"{folder}: this ledger was made with other settings:\n{listed}\n"
            f"Give the settings as they were, or another {option}."
        )


def _take_settings(folder: Path, settings: dict[str, Any], option: str) -> None:
    if (folder / "settings.json").exists():
        check_settings(folder, settings, option)
    else:
        strangers = sorted(entry.name for entry in folder.iterdir() if not _may_be_there(entry.name))
        if strangers:
            raise UserError(
                f"{folder}: is no ledger and not empty ({', '.join(strangers[:3])}); give a new folder for {option}"
            )
    if not (folder / "settings.json").exists() or read_settings(folder) != json.loads(json.dumps(settings)):
        write_settings(folder, settings)


def _remove_leftovers(folder: Path) -> None:
    """Files that a killed run had begun; each run would leave one as large as all documents."""
    for name in ("halves.jsonl", "pairs.jsonl"):
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def nothing_asked(folder: Path) -> bool:
    """Whether nothing was ever sent on behalf of a ledger, so that its settings may still change."""
    names = ("results.jsonl", "failures.jsonl", "spending.log", "batches.jsonl")
    return not any((folder / name).exists() and (folder / name).stat().st_size for name in names)


def _may_be_there(name: str) -> bool:
    return name == "lock" or name.startswith(".")
