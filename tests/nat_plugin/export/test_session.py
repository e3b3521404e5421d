from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nat_plugin.export.session import CPU, OnnxModel, check_provider
from plugin_common.errors import UserError

TOKENS = np.array([[0, 5, 113, 6, 113], [0, 7, 113, 1, 1]])
LENGTHS = np.array([5, 3])


@pytest.fixture(scope="module")
def model(exported: Path) -> OnnxModel:
    return OnnxModel(exported / "model.onnx", threads=1)


def test_without_scores(model: OnnxModel) -> None:
    found = model(TOKENS, LENGTHS)
    assert found.labels.shape == (2, 4, 1)
    assert found.log_probs.shape == (2, 4, 0)
    assert found.blank_log_probs.shape == (2, 0)
    assert found.best.tolist() == found.labels[:, :, 0].tolist()


def test_the_best_labels_and_their_log_probabilities(model: OnnxModel) -> None:
    best = model(TOKENS, LENGTHS).best
    three, every = model(TOKENS, LENGTHS, top=3), model(TOKENS, LENGTHS, top=114)
    for row, column in ((0, 0), (0, 3), (1, 1)):  # real positions
        log_probs, labels = every.log_probs[row, column], every.labels[row, column]
        assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-4)
        assert (np.diff(log_probs) <= 0).all()
        assert sorted(labels) == list(range(114))
        assert labels[0] == best[row, column]
        assert three.labels[row, column].tolist() == labels[:3].tolist()
        assert three.log_probs[row, column] == pytest.approx(log_probs[:3], abs=1e-5)
        assert three.blank_log_probs[row, column] == pytest.approx(log_probs[labels == 0][0], abs=1e-5)


@pytest.mark.parametrize("top", [0, 4])
@pytest.mark.parametrize("shape", [(0, 5), (3, 1), (0, 1)])
def test_nothing_to_run(model: OnnxModel, shape: tuple[int, int], top: int) -> None:
    found = model(np.zeros(shape, dtype=np.int64), np.ones(shape[0], dtype=np.int64), top=top)
    assert found.labels.shape == (shape[0], 0, max(top, 1))
    assert found.log_probs.shape == (shape[0], 0, top)
    assert found.blank_log_probs.shape == (shape[0], 0)
    assert found.best.shape == (shape[0], 0)


def test_provider_that_is_not_there(exported: Path) -> None:
    check_provider(CPU)
    with pytest.raises(UserError, match=rf"provider NoneProvider: not in this onnxruntime; available are .*{CPU}"):
        OnnxModel(exported / "model.onnx", provider="NoneProvider")


def test_a_run_that_fails(model: OnnxModel) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime .* cannot run it on 1 x 3 tokens \(.*; lower --pos"):
        model(np.array([[0, 5, 10_000]]), np.array([3]))


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"model\.onnx: onnxruntime {onnxruntime.__version__} cannot load it \("):
        OnnxModel(file)
