"""A CTC loss step over a large vocabulary: this project's loss against log_softmax + F.ctc_loss.

A step takes the states before the vocabulary projection to the loss and back to the gradients of states, weight and
bias; all variants get the same numbers, every position is real, and their losses must agree::

    python scripts/benchmarks/ctc_loss.py --json ctc_loss.json [--quick] [--device cuda] [--dtype bf16]

``dense`` is the usual form: logits of all positions, ``log_softmax`` in float32, ``F.ctc_loss(zero_infinity=True)``.
``ours`` is ``nat_plugin.ctc.ctc_loss`` in blocks of the default size; further rows vary one thing each. Each runs in a
process of its own (see steps.py for what is measured), in turn. Ratios are ours ÷ dense.
"""

import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nat_plugin.ctc import ctc_loss
from plugin_common.cpu_matmul import linear_into, product, uses_onednn
from plugin_common.selected_log_probs import default_chunk_rows
from scripts.benchmarks.measure import machine, paired_ratio, row, run_in_turn, versions, write_report
from scripts.benchmarks.steps import Step, StepProcess, all_cores

OURS, DENSE = "ours", "dense"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}  # relative
BLANK = 0


@dataclass(frozen=True)
class Shape:
    """Vocabulary, sentences, positions of each, width, target tokens of each."""

    labels: int
    sentences: int
    positions: int = 128
    width: int = 768
    target: int = 48

    def scaled(self, share: float) -> "Shape":
        """With a share of the vocabulary."""
        return replace(self, labels=max(100, int(self.labels * share)))


# At 250k labels, the size of XLM-R's vocabulary, 2,048 positions: at 4,096 the dense form would need twice its 7.8 GB.
SHAPES = {"v32k": Shape(32_000, 32), "v250k": Shape(250_002, 16)}
REPEATS = {"full": {"v32k": 5, "v250k": 3}, "quick": {"v32k": 2, "v250k": 1}}


class Linear(torch.autograd.Function):
    """``F.linear`` through this project's choice of library for float32 products on a CPU; no part of the project."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Logits."""
        ctx.save_for_backward(hidden, weight)
        return linear_into(hidden.new_empty(hidden.size(0), weight.size(0)), hidden, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of states, weight and bias."""
        hidden, weight = ctx.saved_tensors
        return product(grad, weight), grad.t() @ hidden, grad.sum(dim=0)


def dense_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The usual form, summed over sentences."""
    sentences, positions = logits.shape[:2]
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    inputs, outputs = (torch.full((sentences,), n, device=logits.device) for n in (positions, targets.size(1)))
    return F.ctc_loss(log_probs, targets, inputs, outputs, blank=BLANK, reduction="sum", zero_infinity=True)


class LossSteps:
    """One variant's inputs and its step."""

    def __init__(self, shape: Shape, variant: str, dtype: str, device: str) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*size: int, scale: float) -> Tensor:
            values = torch.empty(*size).normal_(std=scale, generator=generator)
            return values.to(device, DTYPES[dtype]).requires_grad_()

        self.hidden = normal(shape.sentences, shape.positions, shape.width, scale=1.0)
        self.weight = normal(shape.labels, shape.width, scale=0.05)
        self.bias = normal(shape.labels, scale=0.1)
        self.targets = torch.randint(1, shape.labels, (shape.sentences, shape.target), generator=generator).to(device)
        self.variant, self.device = variant, device
        self.chunk_rows = chunk_rows(variant, shape.labels, device)
        self.dense_loss: Any = torch.compile(self._dense) if variant.endswith("_compiled") else self._dense

    def reset(self) -> None:
        """Drop the gradients."""
        self.hidden.grad = self.weight.grad = self.bias.grad = None

    def step(self) -> Tensor:
        """Loss and gradients."""
        if self.variant.endswith("_onednn_off"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="TF32")  # of a setting that is not touched
                with torch.backends.mkldnn.flags(enabled=False):
                    return self._step()
        return self._step()

    def _step(self) -> Tensor:
        loss = self.dense_loss() if self.variant.startswith(DENSE) else self._ours()
        loss.backward()
        return loss.detach()

    def _dense(self) -> Tensor:
        if self.variant.endswith("_onednn_on"):
            logits = Linear.apply(self.hidden.flatten(0, 1), self.weight, self.bias)
            return dense_loss(logits.view(*self.hidden.shape[:2], -1), self.targets)
        return dense_loss(F.linear(self.hidden, self.weight, self.bias), self.targets)

    def _ours(self) -> Tensor:
        sentences, positions = self.hidden.shape[:2]
        lengths = [torch.full((sentences,), n, device=self.device) for n in (positions, self.targets.size(1))]
        loss, _ = ctc_loss(
            self.hidden, self.weight, self.bias, self.targets, *lengths, blank=BLANK, chunk_rows=self.chunk_rows
        )
        return loss.sum()


def chunk_rows(variant: str, labels: int, device: str) -> int | None:
    """The rows of a block in one of our variants: what its name says, or the default; None keeps the logits."""
    if variant.endswith("_keep_logits"):
        return None
    last = variant.rsplit("_", 1)[-1]
    return int(last) if last.isdigit() else default_chunk_rows(labels, torch.device(device))


def variants(quick: bool, dtype: str, device: str) -> list[str]:
    """The names of the rows."""
    names = [DENSE, OURS]
    if quick:
        return names
    names += [f"{OURS}_keep_logits", *(f"{OURS}_rows_{n}" for n in (64, 512, 2048))]
    names.append(f"{DENSE}_compiled")
    if device == "cpu" and dtype == "fp32" and uses_onednn():
        names += [f"{DENSE}_onednn_on", f"{OURS}_onednn_off"]
    return names


def measure(
    args: argparse.Namespace, shape: Shape, names: list[str], repeats: int, left_out: dict[str, str]
) -> dict[str, list[Step]]:
    """All variants in turn; their first steps are thrown away, or are those of a small shape where time is short.

    A further row that fails (no compiler, not enough memory) goes into ``left_out`` with its error.
    """
    options = {"device": args.device, "threads": args.threads, "tf32": args.tf32}
    with ExitStack() as stack:
        steps = {}
        for name in names:
            try:
                process = StepProcess(make_steps, shape, name, args.dtype, args.device, args.quick, **options)
                steps[name] = stack.enter_context(process)
                if not args.quick:
                    print(f"first step, not counted: {name}: {process()}", file=sys.stderr)
            except RuntimeError as error:
                if name in (OURS, DENSE):
                    raise
                print(f"left out: {name}: {error}", file=sys.stderr)
                left_out[name] = str(error)[:500]
                steps.pop(name, None)
        results: dict[str, list[Step]] = run_in_turn(steps, repeats)
    expected = results[DENSE][0].value
    for name, runs in results.items():
        for run in runs:
            if not abs(run.value - expected) <= LOSS_TOLERANCE[args.dtype] * abs(expected):
                raise RuntimeError(f"{name} has loss {run.value}, {DENSE} {expected}")
    return results


def make_steps(shape: Shape, variant: str, dtype: str, device: str, small_first: bool) -> LossSteps:
    """A variant's steps; with ``small_first`` after one step of a small shape, which loads the libraries."""
    if small_first:
        LossSteps(Shape(2_000, 4), variant, dtype, device).step()
    return LossSteps(shape, variant, dtype, device)


def parse_args() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="the two main rows, fewer repeats: under a minute")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32", help="of inputs; default: %(default)s")
    parser.add_argument("--tf32", action="store_true", help="let float32 products on CUDA use TensorFloat-32")
    parser.add_argument("--threads", type=int, default=all_cores(), help="on the CPU (default: all cores, %(default)s)")
    parser.add_argument("--repeats", type=int, help="measured steps of each variant (default: 5 and 3; quick 2 and 1)")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="default: both")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the vocabulary, to try the script out")
    return parser.parse_args()


def main() -> None:
    """Measure, show and write."""
    args = parse_args()
    about_machine = machine()
    rows: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    left_out: dict[str, dict[str, str]] = {}
    shapes = {name: SHAPES[name].scaled(args.scale) for name in args.shapes}
    for name, shape in shapes.items():
        repeats = args.repeats or REPEATS["quick" if args.quick else "full"][name]
        names = variants(args.quick, args.dtype, args.device)
        results = measure(args, shape, names, repeats, left_out.setdefault(name, {}))
        for figure, field in (("time", "seconds"), ("memory", "peak_mib")):
            figures = {variant: [getattr(run, field) for run in runs] for variant, runs in results.items()}
            rows |= {f"{name}/{variant}/{field}": row(values) for variant, values in figures.items()}
            for variant in figures.keys() - {DENSE}:
                suffix = "" if variant == OURS else f"/{variant}"
                ratios[f"{name}/{figure}{suffix}"] = paired_ratio(figures[variant], figures[DENSE])
    report = {
        "machine": about_machine | gpu(args.device),
        "versions": versions("torch"),
        "settings": vars(args) | described(shapes, args.device) | {"left_out": left_out},
        "rows": dict(sorted(rows.items())),
        "ratios": dict(sorted(ratios.items())),
    }
    write_report(args.json, report)
    for name, figures in report["rows"].items():
        print(f"{name:44} min {figures['min']:9.3f}  median {figures['median']:9.3f}  max {figures['max']:9.3f}")
    for name, ratio in report["ratios"].items():
        print(f"{name:44} {ratio:.3f}")


def described(shapes: dict[str, Shape], device: str) -> dict[str, Any]:
    """What the report says of the shapes and of our way through them."""
    return {
        "shapes": {name: vars(shape) for name, shape in shapes.items()},
        "default_chunk_rows": {name: chunk_rows(OURS, shape.labels, device) for name, shape in shapes.items()},
        "onednn": device == "cpu" and uses_onednn(),
    }


def gpu(device: str) -> dict[str, str]:
    """The GPU's name, if that is where it ran."""
    return {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}


if __name__ == "__main__":
    main()
