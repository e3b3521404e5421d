"""Read checkpoint files safely and copy them so that a crash never leaves half a file.

Knows torch, not fairseq: a checkpoint here is any file that ``torch.save`` wrote.
"""

import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plugin_common.errors import UserError


def allow_scalar_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read what fairseq stores beside tensors: ``Namespace`` and numpy scalars.

    Exactly these are data, none runs code of a stranger; everything else stays refused. Idempotent.
    """
    from argparse import Namespace

    from numpy._core import multiarray

    scalar_types: tuple[type, ...] = (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)
    data: list[Any] = [Namespace, multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype]
    torch.serialization.add_safe_globals(data + [type(np.dtype(kind)) for kind in scalar_types])


def check_checkpoint_file(path: str | Path) -> None:
    """Raise ``UserError`` unless ``path`` is a complete, unaltered file of ``torch.save``.

    Every record's CRC-32 is compared, because torch loads flipped bytes without a word (about a second a gigabyte).
    A file of the older, non-zip format has no checksums: it passes here and is judged by loading it.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; check the path, `ls {path.parent}` shows what is there")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a checkpoint file such as {path / 'checkpoint_best.pt'}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the checkpoint is empty (0 bytes): writing it was cut off; {_RECOVER}")
    with path.open("rb") as file:
        looks_zipped = file.read(4) == b"PK\x03\x04"
    if not looks_zipped:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # altered headers lead zipfile to a dozen kinds of exceptions
        raise UserError(f"{path}: the checkpoint is truncated or damaged ({error}); {_RECOVER}") from error
    if damaged is not None:
        raise UserError(f"{path}: the checkpoint is damaged: the checksum of {damaged} does not match; {_RECOVER}")


_RECOVER = (
    "copy it again from its source, or use another checkpoint of the same run (checkpoint_best.pt, checkpointN.pt)"
)


def check_and_load(path: str | Path) -> dict[str, Any]:
    """Check the file, then load it to the CPU without running any code that it may hold.

    Raises ``UserError`` for a missing, empty, truncated, altered or foreign file and for one that holds pickled code.
    """
    check_checkpoint_file(path)
    allow_scalar_globals()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise explain_load_error(path, error) from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, not a checkpoint (expected a dict with 'model')")
    return state


def explain_load_error(path: str | Path, error: Exception) -> UserError:
    """What an exception out of ``torch.load(path, weights_only=True)`` means to the user."""
    refused = re.search(r"(?:GLOBAL|global:?) (?:GLOBAL )?([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and refused and "nsupported" in str(error):
        return UserError(
            f"{path}: the checkpoint holds pickled code ({refused.group(1)}) and was not loaded: it could run "
            "anything. Ask its author for one that holds tensors and plain settings only, as this plugin writes them"
        )
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "weights_only" in first_line:  # torch advises to do without
        first_line = "it does not hold tensors and plain settings"
    return UserError(f"{path}: not a checkpoint that torch can read ({first_line}); {_RECOVER}")


def copy_atomically(source: str | Path, destination: str | Path) -> None:
    """Copy to a temporary name beside ``destination``, flush to disk, then rename over it."""
    temporary = f"{destination}.tmp"
    try:
        shutil.copyfile(source, temporary)
        with open(temporary, "rb") as file:  # noqa: PTH123 - keeps str paths as they are
            os.fsync(file.fileno())
        os.replace(temporary, destination)  # noqa: PTH105
    finally:
        Path(temporary).unlink(missing_ok=True)
