"""Write a folder so that it appears under its name only when it is complete."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder that takes the name ``path`` when the block ends without an exception, and vanishes otherwise.

    What stood under the name before is replaced: check beforehand whether it may be. Parent folders are made.
    """
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.unfinished-"))
    try:
        made = scratch / "folder"
        made.mkdir()
        yield made
        _put_in_place(made, target, scratch / "replaced")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(made: Path, path: Path, replaced: Path) -> None:
    if path.exists():
        path.rename(replaced)
    try:
        made.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
