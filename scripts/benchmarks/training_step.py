"""A whole training step (forward, loss, backward, optimizer): tokens a second and peak memory.

``ours`` is this project's ``ctc_pmlm`` with ``ctc_nat_loss`` in blocks of the default size, ``ours_keep_logits`` keeps
the logits, ``dense`` the same model under ``log_softmax`` + ``F.ctc_loss``; ``fairseq_nat`` is fairseq's own
``nonautoregressive_transformer`` with ``nat_loss`` (label smoothing 0.1), for which the targets are masked whole as in
its training. All read the same sentences with the same Adam::

    python scripts/benchmarks/training_step.py --json training_step.json [--quick] [--size base] [--device cuda]

Tokens are the source's and the target's, ``</s>`` included and padding not, of the batch that one step reads. Each
variant runs in a process of its own (see steps.py for what is measured: peak memory is over parameters and optimizer
state), in turn. Ratios are ours ÷ the other one; for tokens_per_s more is better.

What the peer shares: width, feed-forward width, heads, vocabulary, one table of embeddings for input and output, no
dropout, and layers in all: half of its layers are the encoder's, half the decoder's. What differs: its decoder layers
attend to the source too, it predicts the length, and its positions are the target's, while ours are the source's twice.
bf16 is the whole model with its Adam in bf16 (on every side), as ``--memory-efficient-bf16``.
"""

import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.benchmarks.measure import machine, paired_ratio, row, run_in_turn, versions, write_report
from scripts.benchmarks.steps import Step, StepProcess, all_cores

OURS, KEEP, DENSE, PEER = "ours", "ours_keep_logits", "dense", "fairseq_nat"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Size:
    """Shape of the model and of a batch."""

    layers: int
    width: int
    heads: int
    labels: int
    sentences: int
    shortest: int = 16  # tokens of a source, </s> included
    longest: int = 32


SIZES = {
    "small": Size(layers=6, width=512, heads=8, labels=32_000, sentences=32),
    "base": Size(layers=12, width=768, heads=12, labels=250_002, sentences=32),  # XLM-R base
    "try": Size(layers=2, width=32, heads=2, labels=600, sentences=4),
}
REPEATS = {"full": 5, "quick": 1}


def dictionary(labels: int) -> Any:
    """A fairseq dictionary of ``labels`` symbols, ``<mask>`` the last one."""
    from fairseq.data import Dictionary

    made = Dictionary()
    for number in range(labels - len(made) - 1):
        made.add_symbol(f"w{number}")
    made.add_symbol("<mask>")
    return made


def padded(rows: list[Tensor], pad: int) -> Tensor:
    """``[B, longest]``, right-padded."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)


def make_batch(size: Size, words: Any, *, with_bos: bool) -> dict[str, Any]:
    """Random sentences; a target is as long as its source or up to a fifth shorter. fairseq's NAT wants ``<s>`` too."""
    generator = torch.Generator().manual_seed(0)

    def sentence(length: int) -> Tensor:
        tokens = torch.randint(words.nspecial, len(words) - 1, (length - 1,), generator=generator).tolist()
        return torch.tensor([*([words.bos()] if with_bos else []), *tokens, words.eos()])

    lengths = torch.linspace(size.shortest, size.longest, size.sentences).long().tolist()
    pairs = [(sentence(n), sentence(n - n * (k % 5) // 20)) for k, n in enumerate(lengths)]
    sources, targets = (padded(list(side), words.pad()) for side in zip(*pairs, strict=True))
    source_lengths = sources.ne(words.pad()).sum(dim=1)
    return {
        "nsentences": size.sentences,
        "ntokens": int(targets.ne(words.pad()).sum()),
        "net_input": {"src_tokens": sources, "src_lengths": source_lengths, "prev_output_tokens": targets},
        "target": targets,
    }


def count_tokens(size: Size) -> int:
    """Source and target tokens of the batch, ``</s>`` included."""
    words = dictionary(100)
    batch = make_batch(size, words, with_bos=False)
    return int(sum(side.ne(words.pad()).sum() for side in (batch["net_input"]["src_tokens"], batch["target"])))


class DenseCtc(torch.nn.Module):
    """The usual CTC over the model's whole log-softmax, instead of this project's criterion."""

    def __init__(self, pad: int, eos: int) -> None:
        super().__init__()
        self.pad, self.eos = pad, eos

    def forward(self, model: Any, sample: dict[str, Any]) -> tuple[Tensor, int, dict[str, Any]]:
        """``(loss [], target tokens without </s>, {})``."""
        output = model(**sample["net_input"])
        log_probs = model.get_normalized_probs(output, log_probs=True)
        targets = sample["target"]
        lengths = targets.ne(self.pad).sum(dim=1) - 1
        loss = F.ctc_loss(
            log_probs.transpose(0, 1),
            targets,
            output.lengths,
            lengths,
            blank=model.blank,
            reduction="sum",
            zero_infinity=True,
        )
        return loss, int(lengths.sum()), {}


def build_ours(size: Size, words: Any, variant: str, device: str) -> tuple[Any, Any]:
    """``(model, criterion)`` of this project."""
    import nat_plugin

    nat_plugin.register()
    from omegaconf import OmegaConf

    from nat_plugin.criterions.ctc_nat_loss import CtcNatLoss
    from nat_plugin.models.ctc_pmlm import CtcPmlmConfig
    from nat_plugin.tasks.ctc_nat import CtcNatConfig, CtcNatTask
    from plugin_common.selected_log_probs import default_chunk_rows

    cfg = OmegaConf.structured(
        CtcPmlmConfig(
            random_init=True,
            encoder_layers=size.layers,
            encoder_embed_dim=size.width,
            encoder_ffn_embed_dim=4 * size.width,
            encoder_attention_heads=size.heads,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    OmegaConf.update(cfg, "_name", "ctc_pmlm", force_add=True)
    task = CtcNatTask(CtcNatConfig(), words, words)
    model = task.build_model(cfg)
    if variant == DENSE:
        return model, DenseCtc(words.pad(), words.eos())
    rows = 0 if variant == KEEP else default_chunk_rows(size.labels, torch.device(device))
    return model, CtcNatLoss(task, sentence_avg=False, ctc_chunk_rows=rows)


def build_peer(size: Size, words: Any) -> tuple[Any, Any]:
    """``(model, criterion)`` of fairseq's non-autoregressive Transformer."""
    from plugin_common import compat

    compat.apply()
    from fairseq.criterions.nat_loss import LabelSmoothedDualImitationCriterion
    from fairseq.models.nat.nonautoregressive_transformer import NATransformerModel, base_architecture
    from fairseq.tasks.translation_lev import TranslationLevenshteinConfig, TranslationLevenshteinTask

    args = Namespace(
        encoder_layers=size.layers // 2,
        decoder_layers=size.layers // 2,
        encoder_embed_dim=size.width,
        encoder_ffn_embed_dim=4 * size.width,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        activation_fn="gelu",
        share_all_embeddings=True,
        dropout=0.0,
        label_smoothing=0.1,
        max_source_positions=512,
        max_target_positions=512,
    )
    base_architecture(args)
    task = TranslationLevenshteinTask(TranslationLevenshteinConfig(noise="full_mask"), words, words)
    return NATransformerModel.build_model(args, task), LabelSmoothedDualImitationCriterion(task, label_smoothing=0.1)


def to_device(value: Any, device: str) -> Any:
    """Every tensor of a nested batch on the device."""
    if isinstance(value, dict):
        return {name: to_device(entry, device) for name, entry in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


class TrainingSteps:
    """One variant: model, criterion, optimizer and its batch."""

    def __init__(self, size: Size, variant: str, dtype: str, device: str) -> None:
        torch.manual_seed(0)
        words = dictionary(size.labels)
        peer = variant == PEER
        model, criterion = build_peer(size, words) if peer else build_ours(size, words, variant, device)
        self.model = model.to(device, DTYPES[dtype]).train()
        self.criterion = criterion.to(device)
        batch = make_batch(size, words, with_bos=peer)
        if peer:
            targets = batch["target"]
            special = targets.eq(words.bos()) | targets.eq(words.eos()) | targets.eq(words.pad())
            batch["prev_target"] = targets.masked_fill(~special, words.unk())  # the task's noise "full_mask"
        self.batch = to_device(batch, device)
        # As fairseq: a small step, so that the losses of the first steps are comparable.
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5, fused=device == "cuda")
        self.step()  # makes the optimizer's state, and loads the libraries

    def reset(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> Tensor:
        """One update; the loss per target token."""
        loss, sample_size, _ = self.criterion(self.model, dict(self.batch))
        loss = loss / sample_size
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def measure(size: Size, dtype: str, repeats: int, *, device: str, threads: int, tf32: bool) -> dict[str, list[Step]]:
    """All variants in turn; each has made one step before."""
    with ExitStack() as stack:
        steps = {
            name: stack.enter_context(
                StepProcess(TrainingSteps, size, name, dtype, device, device=device, threads=threads, tf32=tf32)
            )
            for name in (OURS, KEEP, DENSE, PEER)
        }
        results: dict[str, list[Step]] = run_in_turn(steps, repeats)
    expected = results[DENSE][0].value
    for name in (OURS, KEEP):
        if not abs(results[name][0].value - expected) <= 0.02 * abs(expected):
            raise RuntimeError(f"{name} has loss {results[name][0].value}, {DENSE} {expected}")
    return results


def parse_args() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sentences, fp32 alone")
    parser.add_argument(
        "--size",
        choices=list(SIZES),
        default="small",
        help="small: 6 layers of 512, 32k symbols; base: as XLM-R base; try: seconds (default: %(default)s)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), help="default: both; with --quick fp32")
    parser.add_argument("--tf32", action="store_true", help="let float32 products on CUDA use TensorFloat-32")
    parser.add_argument("--sentences", type=int, help="sentences of the batch (default: the size's, 32; quick 16)")
    parser.add_argument("--threads", type=int, default=all_cores(), help="on the CPU (default: all cores, %(default)s)")
    parser.add_argument("--repeats", type=int, help="measured steps of each variant (default: 5; quick 1)")
    return parser.parse_args()


def main() -> None:
    """Measure, show and write."""
    args = parse_args()
    about_machine = machine()
    whole = SIZES[args.size]
    size = Size(**vars(whole) | {"sentences": args.sentences or whole.sentences // (2 if args.quick else 1)})
    tokens = count_tokens(size)
    rows: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    for dtype in args.dtypes or (["fp32"] if args.quick else list(DTYPES)):
        repeats = args.repeats or REPEATS["quick" if args.quick else "full"]
        results = measure(size, dtype, repeats, device=args.device, threads=args.threads, tf32=args.tf32)
        speed = {name: [tokens / run.seconds for run in runs] for name, runs in results.items()}
        memory = {name: [run.peak_mib for run in runs] for name, runs in results.items()}
        for name in results:
            rows[f"{dtype}/{name}/tokens_per_s"] = row(speed[name])
            rows[f"{dtype}/{name}/peak_mib"] = row(memory[name])
        for name in (KEEP, DENSE, PEER):
            ratios[f"{dtype}/tokens_per_s/{name}"] = paired_ratio(speed[OURS], speed[name])
            ratios[f"{dtype}/memory/{name}"] = paired_ratio(memory[OURS], memory[name])
    gpu = {"gpu": torch.cuda.get_device_name()} if args.device == "cuda" else {}
    report = {
        "machine": about_machine | gpu,
        "versions": versions("torch", "ve-fairseq", "transformers"),
        "settings": vars(args) | {"shape": vars(size), "tokens": tokens},
        "rows": rows,
        "ratios": ratios,
    }
    write_report(args.json, report)
    for name, figures in rows.items():
        print(f"{name:40} min {figures['min']:10.1f}  median {figures['median']:10.1f}  max {figures['max']:10.1f}")
    for name, ratio in ratios.items():
        print(f"{name:40} {ratio:.3f}")


if __name__ == "__main__":
    main()
