"""The ONNX models against torch, for every family of masked LMs."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from nat_plugin.export import onnx_graph
from nat_plugin.export.onnx_graph import BLOCK, quantize, write_onnx
from nat_plugin.export.session import OnnxModel
from nat_plugin.models.masked_lm import MaskedLm, random_masked_lm, shape_config

SHAPE = {"layers": 2, "dim": 32, "ffn_dim": 48, "heads": 2, "positions": 24}
BLANK = 7
LENGTHS = [12, 2, 7]


@dataclass
class Model:
    """What ``write_onnx`` reads of a ``CtcPmlmModel``."""

    masked_lm: MaskedLm
    blank: int = BLANK


def model_of(family: str, symbols: int = 150, *, tied: bool = True) -> Model:
    torch.manual_seed(1)
    config = shape_config(family, vocab_size=symbols, **SHAPE)
    config.tie_word_embeddings = tied
    made = random_masked_lm(config)
    with torch.no_grad():
        for parameter in made.parameters():  # biases and norms too; logits far apart
            parameter.add_(0.3 * torch.randn_like(parameter))
        made.weight.mul_(8)
    return Model(made)


def batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(5, 150, (3, max(LENGTHS)), generator=torch.Generator().manual_seed(2))
    tokens[:, 0] = 0
    lengths = torch.tensor(LENGTHS)
    return tokens.masked_fill(torch.arange(tokens.size(1))[None] >= lengths[:, None], 1), lengths


def logits(model: Model, tokens: Tensor, lengths: Tensor) -> Tensor:
    lm = model.masked_lm.eval()
    real = torch.arange(tokens.size(1))[None] < lengths[:, None]
    with torch.inference_mode():
        return torch.nn.functional.linear(lm(tokens, real)[:, 1:], lm.weight, lm.bias)


@pytest.fixture(scope="module", params=["xlm-roberta", "roberta", "bert", "distilbert", "untied", "whole blocks"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    if request.param == "untied":
        model = model_of("xlm-roberta", tied=False)
    elif request.param == "whole blocks":
        model = model_of("xlm-roberta", symbols=2 * BLOCK)
    else:
        model = model_of(request.param)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(model, path)
    return model, path


def test_labels_and_log_probabilities_are_those_of_torch(exported: tuple[Model, Path]) -> None:
    model, path = exported
    tokens, lengths = batch()
    real = (torch.arange(tokens.size(1) - 1)[None] < lengths[:, None] - 1).numpy()
    expected = logits(model, tokens, lengths)
    session = OnnxModel(path, threads=1)
    found = session(tokens.numpy(), lengths.numpy())
    assert found.labels.shape == (3, 11, 1) and found.log_probs.shape == (3, 11, 0)
    assert found.blank_log_probs.shape == (3, 0)
    assert (found.best == expected.argmax(-1).numpy())[real].all()
    assert len(np.unique(found.best)) > 2
    log_probs = expected.log_softmax(-1)
    found = session(tokens.numpy(), lengths.numpy(), top=6)
    values, labels = log_probs.topk(6)
    assert (found.labels == labels.numpy())[real].all()
    assert np.allclose(found.log_probs[real], values.numpy()[real], atol=1e-4)
    assert np.allclose(found.blank_log_probs[real], log_probs[:, :, BLANK].numpy()[real], atol=1e-4)


def test_any_batch_and_length(exported: tuple[Model, Path]) -> None:
    model, path = exported
    session = OnnxModel(path, threads=1)
    for sentences, width in ((1, 2), (1, 24), (5, 3)):
        tokens, lengths = torch.full((sentences, width), 9), torch.full((sentences,), width)
        expected = logits(model, tokens, lengths).argmax(-1)
        assert (session(tokens.numpy(), lengths.numpy()).best == expected.numpy()).all()
    nothing = session(np.zeros((0, 5), dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert nothing.labels.shape == (0, 0, 1)
    assert session(np.zeros((4, 1), dtype=np.int64), np.ones(4, dtype=np.int64), top=3).log_probs.shape == (4, 0, 3)


def test_of_equal_scores_the_first_label_wins(tmp_path: Path) -> None:
    model = model_of("xlm-roberta", symbols=2 * BLOCK + 40)
    with torch.no_grad():
        model.masked_lm.weight.fill_(0.5)
        model.masked_lm.bias.zero_()
        for label in (140, 141, BLOCK + 70, 2 * BLOCK + 3):  # in one block and in several
            model.masked_lm.bias[label] = 3
    write_onnx(model, tmp_path / "model.onnx")
    tokens, lengths = batch()
    found = OnnxModel(tmp_path / "model.onnx", threads=1)(tokens.numpy(), lengths.numpy())
    assert (found.best == 140).all()


def test_labels_that_fill_the_last_block_are_never_chosen(tmp_path: Path) -> None:
    model = model_of("xlm-roberta", symbols=BLOCK + 1)
    with torch.no_grad():
        model.masked_lm.bias.fill_(-50)  # less than the zero that a row of zeros would give
    write_onnx(model, tmp_path / "model.onnx")
    tokens, lengths = batch()
    session = OnnxModel(tmp_path / "model.onnx", threads=1)
    assert session(tokens.numpy(), lengths.numpy()).labels.max() <= BLOCK
    found = session(tokens.numpy(), lengths.numpy(), top=BLOCK + 1)
    assert found.labels.max() <= BLOCK
    assert np.allclose(np.exp(found.log_probs).sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_int8_is_close_to_float32(exported: tuple[Model, Path], tmp_path: Path, reduce_range: bool) -> None:
    model, path = exported
    quantize(path, tmp_path / "int8.onnx", reduce_range=reduce_range)
    tokens, lengths = batch()
    real = (torch.arange(tokens.size(1) - 1)[None] < lengths[:, None] - 1).numpy()
    expected = logits(model, tokens, lengths).log_softmax(-1).numpy()
    found = OnnxModel(tmp_path / "int8.onnx", threads=1)(tokens.numpy(), lengths.numpy(), top=expected.shape[-1])
    by_label = np.empty_like(expected)
    np.put_along_axis(by_label, found.labels, found.log_probs, axis=-1)
    assert 0 < np.square(by_label - expected)[real].mean() < 0.01 * expected[real].var()
    initializers = onnx.load(str(tmp_path / "int8.onnx")).graph.initializer
    floats = [math.prod(i.dims) for i in initializers if i.data_type == onnx.TensorProto.FLOAT]
    assert max(floats) <= (SHAPE["positions"] + 2) * SHAPE["dim"]  # position embeddings stay float, matrices do not
    assert (tmp_path / "int8.onnx").stat().st_size < 0.7 * path.stat().st_size


def test_int8_products_run_as_one_operation_each(tmp_path: Path) -> None:
    """What the speed rests on: onnxruntime must recognise the forms that are written."""
    import onnxruntime

    write_onnx(model_of("xlm-roberta"), tmp_path / "model.onnx")
    quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert "MatMulInteger" not in kinds and "MatMul" not in kinds
    # A layer: query, key, value share their quantised input; then output and feed-forward. Behind them the head.
    assert kinds.count("MatMulIntegerToFloat") == 2 * 3 and kinds.count("DynamicQuantizeMatMul") == 2 * 3 + 2


def test_tied_tables_stand_in_the_file_once(tmp_path: Path) -> None:
    for tied, copies in ((True, 1), (False, 2)):
        write_onnx(model_of("xlm-roberta", symbols=5000, tied=tied), tmp_path / "model.onnx")
        large = [i for i in onnx.load(str(tmp_path / "model.onnx")).graph.initializer if max(i.dims, default=0) >= 5000]
        assert len([i for i in large if len(i.dims) == 2]) == copies


def test_weights_beyond_the_limit_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("xlm-roberta")
    write_onnx(model, tmp_path / "one.onnx")
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 5000)
    write_onnx(model, tmp_path / "two.onnx")
    quantize(tmp_path / "two.onnx", tmp_path / "small.onnx")
    assert (tmp_path / "two.onnx.data").stat().st_size > (tmp_path / "two.onnx").stat().st_size / 2
    tokens, lengths = (tensor.numpy() for tensor in batch())
    found = [OnnxModel(tmp_path / name, threads=1)(tokens, lengths).best for name in ("one.onnx", "two.onnx")]
    assert (found[0] == found[1]).all()
    OnnxModel(tmp_path / "small.onnx", threads=1)(tokens, lengths)


def test_the_model_stays_as_it_was_and_no_path_of_this_machine_is_in_the_file(tmp_path: Path) -> None:
    model = model_of("xlm-roberta")
    model.masked_lm.train().to(torch.bfloat16)
    before = {name: value.clone() for name, value in model.masked_lm.state_dict().items()}
    write_onnx(model, tmp_path / "model.onnx")
    assert model.masked_lm.training and model.masked_lm.weight.dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in model.masked_lm.state_dict().items())
    content = (tmp_path / "model.onnx").read_bytes()
    assert b"site-packages" not in content and b"masked_lm.py" not in content
