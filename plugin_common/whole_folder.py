"""Write a folder so that it counts as made only when it is complete."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from plugin_common.atomic_file import clean_up_when_terminated
from plugin_common.errors import UserError


@contextlib.contextmanager
def whole_folder(
    path: str | Path, *, marker: str, replaces: Callable[[Path], Iterable[str]] | None = None
) -> Iterator[Path]:
    """A folder to write into, whose files get to ``path`` when the block ends without an exception.

    Where nothing stands under the name, the folder appears there in one step. A folder that is there already (it may be
    a mount point, a symbolic link to one, the current folder) stays, and the files are moved into it, ``marker`` last:
    a folder without it is no complete one. Files that others put there stay, too.

    Args:
        path: parent folders are made.
        marker: name of the file by which readers know the folder.
        replaces: names of files in an existing folder that the new ones replace; without it, an existing folder must be
            empty.

    Raises:
        UserError: the place cannot be written, or got contents in the meantime.
    """
    target = Path(path).resolve()
    there = target.is_dir()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target if there else target.parent, prefix=_prefix(target)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); check folder and rights") from error
    try:
        made = scratch / "folder"
        made.mkdir()
        with clean_up_when_terminated():
            yield made
            if there:
                _move_into(target, made, path, marker, replaces)
            else:
                _give_name(target, made, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.unfinished-"


def _give_name(target: Path, made: Path, path: str | Path) -> None:
    try:
        made.rename(target)
    except OSError as error:
        raise UserError(
            f"{path}: was made by someone else in the meantime ({error.strerror}), which stays; give another name"
        ) from error


def _move_into(
    target: Path, made: Path, path: str | Path, marker: str, replaces: Callable[[Path], Iterable[str]] | None
) -> None:
    if replaces is None and any(not entry.name.startswith(_prefix(target)) for entry in target.iterdir()):
        raise UserError(f"{path}: got files in the meantime, which stay; give another folder")
    old = [] if replaces is None else [name for name in replaces(target) if name != marker]
    for name in [marker, *old]:
        (target / name).unlink(missing_ok=True)
    for file in sorted(made.iterdir(), key=lambda file: (file.name == marker, file.name)):
        file.replace(target / file.name)
