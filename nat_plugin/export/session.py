"""An exported model in onnxruntime: from up-sampled tokens to labels, in numpy arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from plugin_common.errors import UserError

CPU = "CPUExecutionProvider"

# onnxruntime's fused skip + layer normalisation is several times slower on a CPU than the two it replaces.
SLOWER_FUSIONS = ["SkipLayerNormFusion"]


@dataclass(frozen=True)
class Labels:
    """What one pass gives; B sentences, T positions (``<s>`` is not among them), K labels a position.

    Attributes:
        labels: ``[B, T, K]`` int64, the most probable first; K is 1 where no scores were asked for.
        log_probs: ``[B, T, K]`` float32 natural logarithms, or ``[B, T, 0]`` where none were asked for.
        blank_log_probs: ``[B, T]`` float32, the blank's, or ``[B, 0]``.
    """

    labels: np.ndarray
    log_probs: np.ndarray
    blank_log_probs: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """``[B, T]`` the most probable label of each position."""
        best: np.ndarray = self.labels[:, :, 0]
        return best


class OnnxModel:
    """One ONNX model, loaded; several threads may call it at once.

    Args:
        path: the file.
        threads: that one call may use; None leaves it to onnxruntime (all cores).
        provider: an execution provider of the installed onnxruntime.

    Attributes:
        metadata: entries that the file carries beside the graph.

    Raises:
        UserError: a provider that is not there, or a file that onnxruntime cannot load.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None, provider: str = CPU) -> None:
        check_provider(provider)
        self._path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = int(threads)
        providers = [provider] if provider == CPU else [provider, CPU]
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=providers,
                disabled_optimizers=SLOWER_FUSIONS if provider == CPU else None,
            )
        except Exception as error:  # the library raises its own exceptions, which have only RuntimeError in common
            raise UserError(
                f"{path}: onnxruntime {onnxruntime.__version__} cannot load it ({_first_line(error)}); make the folder "
                "again with `nat export`, or install the version that it names in its README.md"
            ) from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, tokens: np.ndarray, lengths: np.ndarray, *, top: int = 0) -> Labels:
        """One pass.

        Args:
            tokens: ``[B, T + 1]`` int64: ``<s>`` and the up-sampled source, right-padded.
            lengths: ``[B]`` int64 real tokens, ``<s>`` counted.
            top: how many labels with their log-probabilities are wanted; 0 gives the best one without.

        Raises:
            UserError: onnxruntime fails, for want of memory or because the file is no such model.
        """
        batch, width = tokens.shape
        if batch == 0 or width < 2:
            empty = np.zeros((batch, 0, max(top, 1)))
            return Labels(
                empty.astype(np.int64), empty[:, :, :top].astype(np.float32), empty[:, :, 0].astype(np.float32)
            )
        try:
            labels, log_probs, blanks = self._session.run(
                ("labels", "log_probs", "blank_log_probs"),
                {"tokens": tokens, "lengths": lengths, "top": np.array([top], dtype=np.int64)},
            )
        except Exception as error:  # as above
            raise UserError(
                f"{self._path}: onnxruntime {onnxruntime.__version__} cannot run it on {batch} x {width} tokens "
                f"({_first_line(error)}); lower --positions-per-run if memory is short, else make the folder again "
                "with `nat export`"
            ) from error
        return Labels(labels, log_probs, blanks)


def check_provider(provider: str) -> None:
    """Refuse an execution provider that the installed onnxruntime lacks.

    Raises:
        UserError: with the list of those that are there.
    """
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise UserError(
            f"provider {provider}: not in this onnxruntime; available are {', '.join(available)} (CUDA needs the "
            "package onnxruntime-gpu)"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
