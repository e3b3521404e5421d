"""Options that the user adds to a stage: which of them leave its result alone."""

from collections.abc import Sequence

from plugin_common.stages import Stage
from scripts.common import given_options

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
    """See :func:`scripts.common.given_options.with_options`."""
    return given_options.with_options(stage, given, HOW.get(stage.name, ()))
