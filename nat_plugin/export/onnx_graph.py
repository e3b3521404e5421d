"""From a model in torch to ONNX files: the Transformer by torch's exporter, what follows it by hand.

The graph reads ``tokens [B, T + 1]`` int64 (``<s>``, the up-sampled source, padding), ``lengths [B]`` int64 and
``top [1]`` int64; it gives ``labels [B, T, K]``, ``log_probs [B, T, K]`` and ``blank_log_probs [B, T]``. With ``top`` 0
there is no softmax: K is 1 (the label of the highest score), the log-probabilities are empty; otherwise K is ``top``.

In float32, the table of embeddings stands in the file once where the projection to the vocabulary is tied to it. In
int8 it does so too: its rows are quantised with a scale each, which is what both uses of it want.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 23
IR_VERSION = 11  # what goes with the opset
LARGEST_FILE = 2**31 - 2**24
"""Bytes of the weights; protobuf ends at 2 GiB, larger models keep their weights in a second file."""

BLOCK = 128
"""Labels of a block in the search for the best one; the vocabulary is filled up to whole blocks."""
NEVER = -1e9  # score of the labels that fill the last block: exp(-1e9) is 0

TABLE, PROJECTION, BIAS, HIDDEN = "embedding_table", "projection", "projection_bias", "hidden"


class _Core(nn.Module):
    """Tokens → states before the projection to the vocabulary, without that at ``<s>``."""

    def __init__(self, masked_lm: Any) -> None:
        super().__init__()
        self.masked_lm = masked_lm

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(tokens.shape[1], device=tokens.device)[None, :] < lengths[:, None]
        return self.masked_lm.head(self.masked_lm.states(tokens, real)[:, 1:])


def write_onnx(model: Any, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the float32 model.

    Args:
        model: a ``CtcPmlmModel``; it is exported as float32, in evaluation mode, on the CPU.
        path: the file; of a model of more than 2 GiB the weights stand beside it in ``<path>.data``.
        metadata: entries that the file carries; the int8 model made of it does, too.
    """
    lm = model.masked_lm
    core = export_core(lm)
    added = -len(lm.weight) % BLOCK  # rows that fill the last block
    _replace_table(core, added if lm.tied else 0)
    tail = _Tail(core.graph, model.blank)
    if lm.tied:
        weight = tail.add("Transpose", [TABLE], perm=[1, 0])
    else:
        weight = tail.constant(PROJECTION, np.pad(_array(lm.weight), ((0, added), (0, 0))).T.copy())
    scores = tail.add("MatMul", [HIDDEN, weight])
    if lm.bias is not None or added:
        bias = np.zeros(len(lm.weight), dtype=np.float32) if lm.bias is None else _array(lm.bias)
        bias = np.pad(bias, (0, added), constant_values=NEVER)
        scores = tail.add("Add", [scores, tail.constant(BIAS, bias)])
    tail.decode(scores)
    helper.set_model_props(core, dict(metadata or {}))
    save(core, path)


def quantize(source: str | Path, path: str | Path, *, reduce_range: bool = False) -> None:
    """Write the int8 model of a float32 one.

    Weights have one scale an output column (embeddings: a row); activations are quantised when the model runs, with one
    scale a tensor ("dynamic quantisation").

    Args:
        source: what :func:`write_onnx` wrote.
        reduce_range: 7 bits for the weights, for processors without VNNI instructions, on which 8 bits may overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=Path(path).parent, prefix=".quantising-") as folder, _quiet():
        model = onnx.load(str(source))
        large = model.ByteSize() > LARGEST_FILE
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        _quantise_table(model.graph, 63 if reduce_range else 127)
        prepared = Path(folder) / "prepared.onnx"
        save(model, prepared)
        del model
        quantize_dynamic(
            prepared,
            Path(folder) / "quantised.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},
        )
        quantised = onnx.load(str(Path(folder) / "quantised.onnx"))
        helper.set_model_props(quantised, metadata)
        save(quantised, path)


def export_core(masked_lm: Any) -> onnx.ModelProto:
    """The Transformer of a ``MaskedLm`` as an ONNX model: tokens, lengths → ``hidden [B, T, D]``."""
    core = _Core(copy.deepcopy(masked_lm)).eval().float()
    tokens = torch.full((2, 6), 5, dtype=torch.int64)
    batch, positions = torch.export.Dim("batch"), torch.export.Dim("positions", min=2)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            core,
            (tokens, torch.tensor([6, 4])),
            dynamo=True,
            input_names=["tokens", "lengths"],
            output_names=[HIDDEN],
            dynamic_shapes={"tokens": {0: batch, 1: positions}, "lengths": {0: batch}},
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    proto.ir_version = IR_VERSION
    del proto.metadata_props[:]
    for node in proto.graph.node:  # where in the source a node comes from: paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    return proto


def save(model: onnx.ModelProto, path: str | Path) -> None:
    """Write a model; weights of more than 2 GiB go into ``<path>.data``."""
    large = model.ByteSize() > LARGEST_FILE
    options: dict[str, Any] = {"save_as_external_data": True, "location": f"{Path(path).name}.data"} if large else {}
    onnx.save(model, str(path), **options)


class _Tail:
    """Adds nodes behind the Transformer."""

    def __init__(self, graph: onnx.GraphProto, blank: int) -> None:
        self._graph, self._blank, self._names = graph, blank, 0
        del graph.output[:]
        graph.input.append(helper.make_tensor_value_info("top", TensorProto.INT64, [1]))

    def constant(self, name: str, value: np.ndarray) -> str:
        """An initializer."""
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operation: str, inputs: list[str], **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        self._names += 1
        name = f"tail_{self._names}_{operation}"
        self._graph.node.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def decode(self, scores: str) -> None:
        """The outputs: by ``top``, the best label alone or the best ones with log-probabilities."""
        top = self.add("Squeeze", ["top"])
        asked = self.add("Greater", [top, self.constant("none", np.array(0, dtype=np.int64))])
        outputs = ["labels", "log_probs", "blank_log_probs"]
        node = helper.make_node(
            "If",
            [asked],
            outputs,
            name="decode",
            then_branch=_with_scores(scores, self._blank),
            else_branch=_without_scores(scores),
        )
        self._graph.node.append(node)
        for name, kind in zip(outputs, (TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT), strict=True):
            dimensions = ["batch", None] if name == "blank_log_probs" else ["batch", None, None]
            self._graph.output.append(helper.make_tensor_value_info(name, kind, dimensions))


def _with_scores(scores: str, blank: int) -> onnx.GraphProto:
    """Natural-log probabilities of the ``top`` best labels and of the blank."""
    nodes = [
        helper.make_node("TopK", [scores, "top"], ["best", "t_labels"], axis=-1, largest=1, sorted=1),
        helper.make_node("ReduceLogSumExp", [scores, "last_axis"], ["total"], keepdims=1),
        helper.make_node("Sub", ["best", "total"], ["t_log_probs"]),
        helper.make_node("Gather", [scores, "blank_id"], ["blank_score"], axis=2),
        helper.make_node("Sub", ["blank_score", "total"], ["blank_3d"]),
        helper.make_node("Squeeze", ["blank_3d", "last_axis"], ["t_blank"]),
    ]
    constants = [_whole_numbers("last_axis", [-1]), _whole_numbers("blank_id", [blank])]
    return _branch("with_scores", nodes, constants, ["t_labels", "t_log_probs", "t_blank"])


def _without_scores(scores: str) -> onnx.GraphProto:
    """The label of the highest score (the first of equals).

    First the block that holds it, by the maximum of each block, then the place within the block: onnxruntime takes
    maxima with vector instructions, but not their places; together ten times as fast as one ``ArgMax``.
    """
    nodes = [
        helper.make_node("Reshape", [scores, "to_blocks"], ["blocks"]),
        helper.make_node("ReduceMax", ["blocks", "last"], ["maxima"], keepdims=0),
        helper.make_node("Shape", [scores], ["sizes"]),
        helper.make_node("Slice", ["sizes", "start", "second"], ["batch_and_width"]),
        helper.make_node("Concat", ["batch_and_width", "last"], ["by_position"], axis=0),
        helper.make_node("Reshape", ["maxima", "by_position"], ["maxima_of_position"]),
        helper.make_node("ArgMax", ["maxima_of_position"], ["block"], axis=-1, keepdims=1),
        # The block's row among those of all positions: position * blocks a position + block.
        helper.make_node("Shape", ["maxima_of_position"], ["counts"]),
        helper.make_node("Gather", ["counts", "axis_of_blocks"], ["count"]),
        helper.make_node("Size", ["block"], ["positions"]),
        helper.make_node("Mul", ["positions", "count"], ["rows_in_all"]),
        helper.make_node("Range", ["zero", "rows_in_all", "count"], ["first_rows"]),
        helper.make_node("Reshape", ["block", "last"], ["flat_block"]),
        helper.make_node("Add", ["first_rows", "flat_block"], ["rows"]),
        helper.make_node("Gather", ["blocks", "rows"], ["best_blocks"], axis=0),
        helper.make_node("ArgMax", ["best_blocks"], ["place"], axis=-1, keepdims=0),
        helper.make_node("Mul", ["flat_block", "block_size"], ["first_label"]),
        helper.make_node("Add", ["first_label", "place"], ["flat_labels"]),
        helper.make_node("Shape", ["block"], ["result_shape"]),
        helper.make_node("Reshape", ["flat_labels", "result_shape"], ["e_labels"]),
        helper.make_node("Concat", ["batch_and_width", "start"], ["empty_3d"], axis=0),
        helper.make_node("ConstantOfShape", ["empty_3d"], ["e_log_probs"]),
        helper.make_node("Slice", ["sizes", "start", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "start"], ["empty_2d"], axis=0),
        helper.make_node("ConstantOfShape", ["empty_2d"], ["e_blank"]),
    ]
    constants = [
        _whole_numbers("to_blocks", [-1, BLOCK]),
        _whole_numbers("last", [-1]),
        _whole_numbers("start", [0]),
        _whole_numbers("first", [1]),
        _whole_numbers("second", [2]),
        numpy_helper.from_array(np.array(0), "zero"),
        numpy_helper.from_array(np.array(2), "axis_of_blocks"),
        numpy_helper.from_array(np.array(BLOCK), "block_size"),
    ]
    return _branch("without_scores", nodes, constants, ["e_labels", "e_log_probs", "e_blank"])


def _branch(
    name: str, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], outputs: list[str]
) -> onnx.GraphProto:
    kinds = (TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)
    declared = [helper.make_tensor_value_info(o, kind, None) for o, kind in zip(outputs, kinds, strict=True)]
    return helper.make_graph(nodes, name, [], declared, constants)


def _whole_numbers(name: str, values: list[int]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().cpu().numpy()
    return array


def _replace_table(model: onnx.ModelProto, added: int) -> None:
    """Give the table of embeddings (the one that tokens gather from) a name of ours, and rows of zeros behind it."""
    (gather,) = [node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "tokens"]
    (old,) = [initializer for initializer in model.graph.initializer if initializer.name == gather.input[0]]
    table = np.pad(numpy_helper.to_array(old), ((0, added), (0, 0)))
    model.graph.initializer.remove(old)
    model.graph.initializer.append(numpy_helper.from_array(table, TABLE))
    for node in model.graph.node:
        node.input[:] = [TABLE if name == old.name else name for name in node.input]


def _quantise_table(graph: onnx.GraphProto, largest: int) -> None:
    """Rows of the table as int8 with a scale each; the tied projection multiplies by the same integers."""
    (table,) = [initializer for initializer in graph.initializer if initializer.name == TABLE]
    rows = numpy_helper.to_array(table)
    extremes = np.abs(rows).max(axis=1)
    scales = np.where(extremes > 0, extremes, 1) / largest
    quantised = np.clip(np.rint(rows / scales[:, None]), -largest, largest).astype(np.int8)
    graph.initializer.remove(table)
    graph.initializer.append(numpy_helper.from_array(quantised, TABLE))
    graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), "embedding_scales"))
    nodes = []
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] == TABLE:
            nodes += _gather_rows(node.output[0])
        elif node.op_type == "MatMul" and node.input[0] == HIDDEN and _is_transposed_table(graph, node.input[1]):
            nodes += _project(node.input[1], node.output[0])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _is_transposed_table(graph: onnx.GraphProto, name: str) -> bool:
    return any(node.op_type == "Transpose" and node.input[0] == TABLE and node.output[0] == name for node in graph.node)


def _gather_rows(output: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", [TABLE, "tokens"], ["int8_rows"], name="int8_rows"),
        helper.make_node("Gather", ["embedding_scales", "tokens"], ["row_scales"], name="row_scales"),
        helper.make_node("Cast", ["int8_rows"], ["whole_rows"], name="whole_rows", to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["behind"], name="behind", value=_whole_numbers("v", [-1])),
        helper.make_node("Unsqueeze", ["row_scales", "behind"], ["row_factors"], name="row_factors"),
        helper.make_node("Mul", ["whole_rows", "row_factors"], [output], name="scaled_rows"),
    ]


def _project(weight: str, output: str) -> list[onnx.NodeProto]:
    """The form that onnxruntime recognises and runs as one operation."""
    quantised = ["q_hidden", "q_scale", "q_zero"]
    return [
        helper.make_node("DynamicQuantizeLinear", [HIDDEN], quantised, name="q_hidden"),
        helper.make_node("MatMulInteger", ["q_hidden", weight, "q_zero"], ["whole_scores"], name="whole_scores"),
        helper.make_node("Cast", ["whole_scores"], ["cast_scores"], name="cast_scores", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["q_scale", "embedding_scales"], ["score_scales"], name="score_scales"),
        helper.make_node("Mul", ["cast_scores", "score_scales"], [output], name="scaled_scores"),
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantiser write warnings and debugging lines that are of no use to the user."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "root")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
