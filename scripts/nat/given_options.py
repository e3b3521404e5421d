"""Options that the user adds to a stage: which of them decide its result, and which only how it is computed."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from plugin_common.stages import Command, Stage

_LOGGING = ("log-file", "log-format", "log-interval", "no-progress-bar")
_TRAINING = (
    *_LOGGING, "bucket-cap-mb", "data-buffer-size", "ddp-backend", "empty-cache-freq", "find-unused-parameters",
    "batch-size-valid", "max-tokens-valid", "tensorboard-logdir", "wandb-project",
)  # fmt: skip
# With --max-len-a nat distill, like fairseq-generate, lets a hypothesis be as long as the longest source of its batch
# allows. Other batches can change only hypotheses that are at that limit, which is no reason to decode anew.
_TRANSLATING = (*_LOGGING, "batch-size", "data-buffer-size", "max-tokens")
HOW = {
    "download": ("archives", "checksums", "mirror", "retries", "timeout"),
    "clean": ("workers",),
    "tokenize": ("workers",),
    "preprocess": ("workers",),
    "preprocess-distilled": ("workers",),
    "distill": ("batch-size", "max-tokens"),
    # Of fairseq's own task workers can change which sentences are seen: num-workers is missing for the baseline.
    "at-train": _TRAINING,
    "at-generate": _TRANSLATING,
    "nat-train": (*_TRAINING, "num-workers"),
    "nat-generate": (*_TRANSLATING, "num-workers"),
}
"""By stage: options that leave its result alone. Of ``speed`` none does: how is what it measures."""


def with_options(stage: Stage, given: Sequence[str]) -> Stage:
    """The stage with ``given`` options added to its commands, as far as they run the same program as the first.

    They count instead of those of the same name that the command has among its ``how``.
    """
    options = grouped(given)
    how = [option for option in options if option[0].removeprefix("--") in HOW.get(stage.name, ())]
    deciding = [option for option in options if option not in how]
    program = stage.commands[0].words[:2]
    same = 2 if program[0] in ("nat", "python") else 1
    return replace(
        stage,
        steps=tuple(
            tuple(_added(c, deciding, how) if c.words[:same] == program[:same] else c for c in step)
            for step in stage.steps
        ),
    )


def grouped(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Each option with its values: ``--a 1 2 --b`` are ``(--a, 1, 2)`` and ``(--b,)``."""
    groups: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("--"):
            groups.append((word,))
        else:
            groups[-1] += (word,)
    return groups


def _added(command: Command, deciding: Collection[tuple[str, ...]], how: Collection[tuple[str, ...]]) -> Command:
    named = {option[0] for option in (*deciding, *how)}
    kept = [option for option in grouped(command.how) if option[0] not in named]
    return replace(
        command,
        words=(*command.words, *(word for option in deciding for word in option)),
        how=tuple(word for option in (*kept, *how) for word in option),
    )
