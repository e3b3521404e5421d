"""Which quantisation of an exported model is fastest: time of a run, its error, and the file's size.

::

    python scripts/benchmarks/quantisation.py --json quantisation.json [--quick] [--model FOLDER/model.onnx]

``fp32`` is the float32 model; ``int8`` what ``nat export`` writes (weights int8, activations quantised when the model
runs); ``int8_fused_norm`` the same with onnxruntime's fused skip + layer normalisation, which we switch off;
``static`` has the activations' scales fixed beforehand, from random sentences (QDQ form); ``weights8`` and ``weights4``
keep activations and have the weights in blocks of 32 with 8 or 4 bits, computed in int8 where onnxruntime can.

Without ``--model`` the weights are random, in the shape of XLM-R base with 32,000 symbols. A run reads one sentence, or
32, of 50 positions and ``<s>``. Each variant runs in a process of its own, in turn; ratios are fp32's time ÷ its own.
``error`` is the largest difference from fp32 among the log-probabilities of fp32's best labels, in nats.
"""

import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from scripts.benchmarks.measure import machine, paired_ratio, row, run_in_turn, versions, write_report
from scripts.benchmarks.steps import Step, StepProcess, all_cores

POSITIONS = 51
FUSED = "int8_fused_norm"


def write_random_model(path: Path, layers: int) -> None:
    """An XLM-R base of so many layers with random weights."""
    import torch

    from nat_plugin.export.onnx_graph import write_onnx
    from nat_plugin.models.masked_lm import random_masked_lm, shape_config

    class Model:
        """What ``write_onnx`` reads."""

        blank = 0

    torch.manual_seed(0)
    model: Any = Model()
    model.masked_lm = random_masked_lm(
        shape_config("xlm-roberta", vocab_size=32_000, layers=layers, dim=768, ffn_dim=3072, heads=12, positions=512)
    )
    write_onnx(model, path)


def sentences(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random sentences as the model reads them, ``top`` 1."""
    tokens = np.random.default_rng(seed).integers(5, 1000, (count, POSITIONS))
    tokens[:, 0] = 0
    return {"tokens": tokens, "lengths": np.full(count, POSITIONS), "top": np.array([1])}


def write_int8(source: Path, target: Path) -> None:
    """What ``nat export`` writes."""
    from nat_plugin.export.onnx_graph import quantize

    quantize(source, target)


def write_static(source: Path, target: Path) -> None:
    """Fixed scales of the activations, found on eight random sentences."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Sentences(CalibrationDataReader):
        """Eight sentences, one by one."""

        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = (sentences(1, seed) for seed in range(1, 9))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    quantize_static(
        source,
        target,
        Sentences(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"MatMulConstBOnly": True},
    )


def write_weights(bits: int) -> Callable[[Path, Path], None]:
    """Weights alone, in blocks of 32."""

    def write(source: Path, target: Path) -> None:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantiser = MatMulNBitsQuantizer(
            onnx.load(str(source)), bits=bits, block_size=32, is_symmetric=True, accuracy_level=4
        )
        quantiser.process()
        quantiser.model.save_model_to_file(str(target))

    return write


WRITERS = {"int8": write_int8, "static": write_static, "weights8": write_weights(8), "weights4": write_weights(4)}


class Runs:
    """One model in onnxruntime."""

    def __init__(self, path: Path, threads: int, fused_norm: bool) -> None:
        import onnxruntime

        from nat_plugin.export import session

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        disabled = None if fused_norm else session.SLOWER_FUSIONS
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=[session.CPU], disabled_optimizers=disabled
        )
        self.step(1)

    def reset(self) -> None:
        """Nothing is left of a run."""

    def step(self, count: int, tell: bool = False) -> list[float]:
        """The log-probabilities of the best labels, if they are to be told."""
        found = self._session.run(["log_probs"], sentences(count))[0]
        values: list[float] = found.ravel().tolist() if tell else []
        return values


def parse_args() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="three layers, fewer repeats")
    parser.add_argument("--model", metavar="FILE", help="model.onnx of an export folder instead of random weights")
    parser.add_argument("--repeats", type=int, help="measured runs of each variant (default: 15; quick 3)")
    parser.add_argument("--threads", type=int, default=all_cores(), help="default: all cores, %(default)s")
    return parser.parse_args()


def main() -> None:
    """Write the models, measure, show."""
    args = parse_args()
    about_machine = machine()
    repeats = args.repeats or (3 if args.quick else 15)
    rows: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = {"fp32": Path(args.model or Path(folder) / "fp32.onnx")}
        if args.model is None:
            write_random_model(paths["fp32"], 3 if args.quick else 12)
        for name, write in WRITERS.items():
            paths[name] = Path(folder) / f"{name}.onnx"
            write(paths["fp32"], paths[name])
        paths[FUSED] = paths["int8"]
        processes = {
            name: stack.enter_context(StepProcess(Runs, path, args.threads, name == FUSED, threads=args.threads))
            for name, path in paths.items()
        }
        for count in (1, 32):
            runs: dict[str, list[Step]] = run_in_turn(
                {name: lambda process=process: process(count) for name, process in processes.items()},  # type: ignore[misc] # noqa: B023
                repeats if count == 1 else max(2, repeats // 3),
            )
            milliseconds = {name: [1000 * run.seconds for run in steps] for name, steps in runs.items()}
            values = {name: np.array(process(count, True).value) for name, process in processes.items()}
            for name in runs:
                rows[f"batch{count}/{name}/ms"] = row(milliseconds[name])
                ratios[f"batch{count}/{name}"] = paired_ratio(milliseconds["fp32"], milliseconds[name])
                error = float(np.abs(values[name] - values["fp32"]).max())
                rows[f"batch{count}/{name}/error"] = row([error])
        for name, path in paths.items():
            rows[f"{name}/mb"] = row([path.stat().st_size / 1e6])
    report = {
        "machine": about_machine,
        "versions": versions("onnx", "onnxruntime", "torch"),
        "settings": vars(args),
        "rows": rows,
        "ratios": ratios,
    }
    write_report(args.json, report)
    for name, figures in rows.items():
        print(f"{name:36} min {figures['min']:9.3f}  median {figures['median']:9.3f}  max {figures['max']:9.3f}")
    for name, ratio in ratios.items():
        print(f"{name:36} {ratio:.3f}")


if __name__ == "__main__":
    main()
