"""What was sent off in batches, and how far each part got; survives a kill at any moment.

``LEDGER/batches/NAME.jsonl`` is the input file of a part, as it is uploaded; ``LEDGER/batches.jsonl`` says what became
of each part, one line a step, on the disk before the next step is done:

``creating``
    The file is uploaded and the batch about to be created: from here on it may exist, and its requests are asked in no
    other way. (A file that was written or uploaded and got no further is forgotten: nothing of it was asked.)
``created``
    The batch exists under this id.
``collected``
    It has ended and all that came of it is in the ledger; or it was given up. Its files here are removed.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nid_plugin.completion.durable_file import DurableFile, sync_folder
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

JOURNAL, FOLDER = "batches.jsonl", "batches"

BATCH = "batch-"
"""What the names of batches in the journal of spending begin with."""

State = Literal["creating", "created", "collected"]
STATES: tuple[State, ...] = ("creating", "created", "collected")


@dataclass(frozen=True)
class Part:
    """One batch and its input file.

    Attributes:
        name: of the file, without ending, and in the batch's metadata; no other part anywhere has it.
        requests: how many are in it.
        most: US dollars that it can cost at most.
        file_id: the endpoint's name of the input file, once there is one.
        batch_id: the endpoint's name of the batch, once it is known.
    """

    name: str
    requests: int = 0
    most: float = 0.0
    file_id: str = ""
    batch_id: str = ""


class Parts:
    """The parts of a ledger that are under way.

    Args:
        folder: of the ledger, which this process has locked; or ``read_only``.
        read_only: only look; another process may be at work.

    Attributes:
        open: parts that may be under way, by name: their requests must not be asked in another way.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder / FOLDER
        self.open: dict[str, Part] = {}
        self._journal = DurableFile(folder / JOURNAL, read_only=read_only)
        for _, line in self._journal.lines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # after a power cut: the next step was not done
                record = json.loads(line)
                self._apply(record.pop("state"), Part(**record))
        if not read_only:
            self._remove_leftovers()

    def write(self, lines: Iterable[bytes]) -> Part:
        """Make the input file of a new part, line by line.

        Raises:
            UserError, OSError: it cannot be written.
        """
        part, count = Part(f"nid-{os.urandom(16).hex()}"), 0
        self.folder.mkdir(exist_ok=True)
        with atomic_output(str(self.input(part))) as stream:
            for count, line in enumerate(lines, start=1):  # noqa: B007 (the count is the result)
                stream.write(line)
        sync_folder(self.folder)
        return replace(part, requests=count)

    def note(self, part: Part, state: State) -> None:
        """Put a part's new state on the disk.

        Raises:
            OSError: it cannot be written.
        """
        self._journal.append(json.dumps({"state": state, **asdict(part)}).encode() + b"\n")
        self._apply(state, part)
        if state == "collected":
            self._remove_leftovers()

    def input(self, part: Part) -> Path:
        """The part's input file."""
        return self.folder / f"{part.name}.jsonl"

    def download(self, part: Part, what: str) -> Path:
        """Where the part's output or error file is put while it is read."""
        return self.folder / f"{part.name}.{what}"

    def requests(self, part: Part) -> Iterator[dict[str, Any]]:
        """The lines of the part's input file.

        Raises:
            UserError: it is not there any more.
        """
        try:
            with self.input(part).open("rb") as stream:
                yield from map(json.loads, stream)
        except FileNotFoundError as error:
            raise UserError(
                f"{self.input(part)}: is not there, though its batch {part.batch_id} is under way; put it back"
            ) from error

    def open_ids(self) -> set[int]:
        """Ids (as numbers) of all requests that may be under way."""
        return {int(line["custom_id"], 16) for part in self.open.values() for line in self.requests(part)}

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _apply(self, state: State, part: Part) -> None:
        self.open.pop(part.name, None)
        if state != "collected":
            self.open[part.name] = part

    def _remove_leftovers(self) -> None:
        """Remove the files of parts that are not open (any more), and what a kill left half-written."""
        needed = {self.input(part) for part in self.open.values()}
        for file in set(self.folder.glob("*")) - needed:
            file.unlink()


def open_requests(folder: Path) -> tuple[int, set[int]]:
    """How many batches of a ledger may be under way, and the ids (as numbers) of their requests."""
    if not (folder / JOURNAL).exists():
        return 0, set()
    parts = Parts(folder, read_only=True)
    try:
        return len(parts.open), parts.open_ids()
    finally:
        parts.close()
