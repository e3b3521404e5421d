"""Find the best or the latest checkpoints in a folder of ``fairseq-train --save-dir``."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from plugin_common.checkpoint_average import CheckpointInfo, checkpoint_info, load_lazily
from plugin_common.errors import UserError, raise_all

# Names that fairseq gives, in the order in which copies of one state are preferred.
_BEST_OF_SEVERAL = re.compile(r"checkpoint\.best_.+\.pt")
_EPOCH = re.compile(r"checkpoint\d+\.pt")
_UPDATES = re.compile(r"checkpoint_\d+_\d+\.pt")
_LAST = re.compile(r"checkpoint_last\.pt")
_BEST = re.compile(r"checkpoint_best\.pt")


def best_checkpoints(
    folder: str | Path,
    count: int,
    *,
    metric: str | None = None,
    maximize: bool | None = None,
    allow_fewer: bool = False,
) -> list[CheckpointInfo]:
    """The ``count`` checkpoints with the best validation results, best first; of equal ones the later.

    All checkpoints in the folder are looked at; copies of one state (``checkpoint_best.pt``) count once. Results are
    read from inside the files: the number in a file's name is rounded, and its last digit is random.

    Args:
        metric: needed only where the folder's checkpoints were validated by different metrics.
        maximize: whether more is better; by default as the training was told.
        allow_fewer: take what there is where there are fewer than ``count``, but one at least.

    Raises:
        UserError: fewer than ``count`` such checkpoints, different metrics, or a file that cannot be read.
    """
    every = _read(folder, (_BEST_OF_SEVERAL, _EPOCH, _UPDATES, _BEST, _LAST))
    validated = [(info, info.value) for info in every if info.value is not None and not math.isnan(info.value)]
    metrics = sorted({info.metric for info, _ in validated})
    if metric is None and len(metrics) > 1:
        raise UserError(f"{folder}: its checkpoints were validated by {', '.join(metrics)}; give --metric {metrics[0]}")
    if metric is not None and metrics and metric not in metrics:
        raise UserError(f"{folder}: no checkpoint was validated by {metric}; give --metric {' or '.join(metrics)}")
    fitting = [(info, value) for info, value in validated if metric in (None, info.metric)]
    directions = {info.maximize for info, _ in fitting} if maximize is None else {maximize}
    if len(directions) > 1:
        raise UserError(
            f"{folder}: its trainings disagree on whether a higher {fitting[0][0].metric} is better; give --maximize "
            "or --minimize"
        )
    sign = -1 if True in directions else 1
    fitting.sort(key=lambda pair: (sign * pair[1], -pair[0].updates))
    infos = [info for info, _ in fitting]
    return _enough(folder, infos, count, "--best", "validated checkpoints", allow_fewer)


def last_checkpoints(folder: str | Path, count: int, *, allow_fewer: bool = False) -> list[CheckpointInfo]:
    """The ``count`` most trained of the checkpoints saved by epoch or by update, latest first.

    Raises:
        UserError: fewer than ``count`` of them, or a file that cannot be read.
    """
    infos = sorted(_read(folder, (_EPOCH, _UPDATES, _LAST)), key=lambda info: -info.updates)
    return _enough(folder, infos, count, "--last", "checkpoints saved by epoch or update", allow_fewer)


def _read(folder: str | Path, patterns: Sequence[re.Pattern[str]]) -> list[CheckpointInfo]:
    """One info for each state of the training among the files of these names."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; expected the --save-dir of fairseq-train")
    names = sorted(path.name for path in Path(folder).iterdir())
    infos: dict[int, CheckpointInfo] = {}
    problems = []
    for name in (name for pattern in patterns for name in names if pattern.fullmatch(name)):
        try:
            info = checkpoint_info(Path(folder) / name, load_lazily(Path(folder) / name))
            infos.setdefault(info.updates, info)
        except UserError as error:
            problems.append(f"{error}; or move it away")
    raise_all(problems)
    return list(infos.values())


def _enough(
    folder: str | Path, infos: list[CheckpointInfo], count: int, option: str, kind: str, allow_fewer: bool
) -> list[CheckpointInfo]:
    if len(infos) < (1 if allow_fewer else count):
        remedy = "expected checkpointN.pt, checkpoint.best_METRIC_VALUE.pt, …"
        if infos:
            remedy = f"give {option} {len(infos)} or --allow-fewer"
        raise UserError(f"{folder}: {option} {count} asked, but it holds {len(infos)} different {kind}; {remedy}")
    return infos[:count]
