"""Pretrain an XLM-R-shaped masked LM on monolingual text, with transformers' own loss, masking and training loop.

``python pretrain.py --model SHAPE --text en.txt de.txt --output WORK/pmlm/model --log WORK/pmlm/loss.jsonl``

Beside the output folder stand ``.tokens/`` (the texts as token ids, made once) and ``checkpoints/``; a run that was
killed goes on at the last of these and ends with the same weights as one that was not.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from examples.ctc_nat_small_scale.pretrain_checkpoints import (
    claim_checkpoints,
    is_finished,
    last_checkpoint,
    mark_complete,
    run_settings,
)
from examples.ctc_nat_small_scale.pretrain_data import (
    Blocks,
    Language,
    MaskBySeed,
    draw_blocks,
    read_language,
    smoothed_shares,
    tell,
    validation_batches,
)
from plugin_common import compat
from plugin_common.atomic_file import atomic_output
from plugin_common.dictionary_file import read_dictionary
from plugin_common.errors import raise_all, show_user_errors_plainly
from plugin_common.hf_folder import (
    CONFIG_FILE,
    DICTIONARY_FILE,
    check_pmlm_folder,
    load_masked_lm,
    quiet_transformers,
    save_pmlm,
)
from plugin_common.progress import progress_bar

compat.hide_broken_torchaudio()  # before transformers is imported

from transformers import (  # noqa: E402
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class LossLog(TrainerCallback):
    """Writes the loss curve, validates, and shows how far the run is.

    A resumed run first drops what was written after its checkpoint.
    """

    def __init__(self, args: argparse.Namespace, languages: Sequence[Language], collate: MaskBySeed) -> None:
        self.args = args
        self.bar: Any = None
        size = args.tokens // args.block
        self.batches = {lang.name: validation_batches(lang, size, collate) for lang in languages}
        self.seconds_before, self.started = 0.0, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kept = [line for line in read_log(self.args.log) if line["update"] <= state.global_step]
        self.seconds_before = max((line["seconds"] for line in kept), default=0.0)
        with atomic_output(str(self.args.log)) as stream:
            stream.writelines((json.dumps(line) + "\n").encode() for line in kept)
        self.started = time.monotonic()
        self.bar = progress_bar(total=self.args.updates, unit=" updates", description="pretraining")
        self.bar.update(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "loss" in logs:
            seen = state.global_step * self.args.tokens
            self.write(state.global_step, loss=logs["loss"], lr=logs["learning_rate"], tokens=seen)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.bar.update(1)
        if state.global_step % self.args.validate_every == 0 or state.global_step == self.args.updates:
            result = validate(model, self.batches, self.args.bf16)
            self.write(state.global_step, **result)
            tell(f"update {state.global_step}: {json.dumps(result)}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.args.log)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()

    def write(self, update: int, **values: Any) -> None:
        seconds = self.seconds_before + time.monotonic() - self.started
        with self.args.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"update": update, **values, "seconds": round(seconds, 1)}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a loss log up to the first that is not complete, which a killed run may leave."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    read = []
    for line in lines:
        try:
            read.append(json.loads(line))
        except ValueError:
            break
    return read


@torch.no_grad()
def validate(model: Any, batches: dict[str, list[Any]], bf16: bool) -> dict[str, Any]:
    """Loss (nats a masked token) and accuracy (share of masked tokens that are guessed right) on fixed masks."""
    was_training, device = model.training, model.device
    model.eval()
    sums = {name: np.zeros(3) for name in batches}  # loss, right, masked tokens
    for name, language in batches.items():
        for batch in language:
            on_device = {key: value.to(device) for key, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = model(**on_device)
            masked = on_device["labels"] != -100
            right = (output.logits.argmax(-1) == on_device["labels"])[masked].sum().item()
            count = masked.sum().item()
            sums[name] += (output.loss.item() * count if count else 0.0, right, count)
    model.train(was_training)
    total = np.sum(list(sums.values()), axis=0)
    by_language = {name: {"loss": s[0] / s[2], "accuracy": s[1] / s[2]} for name, s in sums.items()}
    return {"valid_loss": total[0] / total[2], "valid_accuracy": total[1] / total[2], "by_language": by_language}


def training_arguments(args: argparse.Namespace, checkpoints: Path) -> TrainingArguments:
    """Adam with RoBERTa's constants; linear warm-up, then linear decay to 0."""
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=args.updates,
        per_device_train_batch_size=args.tokens // args.block,
        learning_rate=args.lr,
        warmup_steps=args.warmup,
        weight_decay=args.weight_decay,
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        optim="adamw_torch_fused",
        bf16=args.bf16,
        use_cpu=args.cpu or not torch.cuda.is_available(),
        seed=args.seed,
        logging_steps=args.log_every,
        save_steps=args.save_every,
        save_total_limit=2,
        train_sampling_strategy="sequential",
        dataloader_num_workers=args.workers,
        dataloader_pin_memory=torch.cuda.is_available() and not args.cpu,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


def train(args: argparse.Namespace) -> None:
    """Pretrain, or go on where a killed run stopped, and write the PMLM folder.

    Raises:
        UserError: bad options, folder or texts; or checkpoints of another run stand beside the output.
    """
    check_options(args)
    settings = run_settings(args)
    if is_finished(args.output, settings):
        tell(f"{args.output}: finished already")
        return
    home = args.output.parent
    checkpoints = home / "checkpoints"
    claim_checkpoints(checkpoints, settings)
    how = {"block": args.block, "valid_lines": args.valid_lines, "seed": args.seed}
    languages = [read_language(text, args.model, home / ".tokens", **how) for text in args.text]
    sizes = [len(language.train) for language in languages]
    shares = smoothed_shares(sizes, args.temperature)
    total = args.updates * (args.tokens // args.block)
    order = draw_blocks(sizes, shares, total, np.random.default_rng([args.seed, 1]))
    passes = {
        lang.name: round(share * total / len(lang.train), 2) for lang, share in zip(languages, shares, strict=True)
    }
    tell(f"passes over each language: {json.dumps(passes)}")
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(args.model))
        model = load_masked_lm(args.model)
        # Dropout in the attention takes torch's fused attention off its fast path on a CPU; the plain one is faster.
        if args.cpu or not torch.cuda.is_available():
            model.set_attn_implementation("eager")
        set_dropout(model, args.dropout)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=args.mask)
        trainer = Trainer(
            model=model,
            args=training_arguments(args, checkpoints),
            train_dataset=Blocks([language.train for language in languages], order),
            data_collator=MaskBySeed(collator, args.seed),
            callbacks=[LossLog(args, languages, MaskBySeed(collator, args.seed + 1))],
        )
        trainer.remove_callback(PrinterCallback)
        start = last_checkpoint(checkpoints)
        if start is not None:
            tell(f"going on at {start}")
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    model.to("cpu")
    provenance = {**settings, "texts": {lang.name: lang.report for lang in languages}, "passes": passes}
    save_pmlm(model, tokenizer, read_dictionary(args.model / DICTIONARY_FILE), args.output, provenance=provenance)
    tell(f"{args.output}: written")


def set_dropout(model: Any, probability: float) -> None:
    """Set the probability of every dropout in the model and in its configuration."""
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = probability
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability


def check_options(args: argparse.Namespace) -> None:
    """Refuse bad options.

    Raises:
        UserError: lists all problems.
    """
    check_pmlm_folder(args.model)
    positions = json.loads((args.model / CONFIG_FILE).read_text(encoding="utf-8"))["max_position_embeddings"] - 2
    names = [path.stem for path in args.text]
    problems = [f"--text {path}: no such file" for path in args.text if not path.is_file()]
    if len(set(names)) < len(names):
        problems.append(f"--text: names {', '.join(names)}: each text needs a name of its own, its language")
    if not 3 <= args.block <= positions:
        problems.append(f"--block {args.block}: expected 3 to {positions}, the positions of {args.model}")
    if args.tokens < args.block:
        problems.append(f"--tokens {args.tokens}: smaller than --block {args.block}")
    if args.log_every >= 1 and args.save_every % args.log_every:
        problems.append(f"--save-every {args.save_every}: expected a multiple of --log-every {args.log_every}")
    counts = dict.fromkeys(("updates", "save_every", "validate_every", "log_every", "valid_lines"), 1)
    for name, least in {**counts, **dict.fromkeys(("lr", "warmup", "weight_decay", "seed", "workers"), 0)}.items():
        if not getattr(args, name) >= least:  # nor NaN
            problems.append(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {least}")
    for name, low, high in (("mask", 0.01, 1), ("dropout", 0, 0.99), ("temperature", 0, 1)):
        if not low <= getattr(args, name) <= high:
            problems.append(f"--{name} {getattr(args, name)}: expected {low} to {high}")
    raise_all(problems)


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Pretrain a masked LM of the shape of a PMLM folder on texts.")
    add = parser.add_argument
    add("--model", type=Path, required=True, help="PMLM folder (nat prepare-pmlm --from-scratch) to start from")
    add("--text", type=Path, nargs="+", required=True, help="a text a language, named after it: de.txt; UTF-8")
    add("--output", type=Path, required=True, help="PMLM folder to write; .tokens/ and checkpoints/ stand beside it")
    add("--log", type=Path, required=True, help="loss curve to write, one JSON object a line")
    add("--updates", type=int, required=True, help="optimizer steps")
    add("--tokens", type=int, default=2048, help="tokens an update, rounded down to whole blocks (default 2048)")
    add("--block", type=int, default=128, help="tokens a block, <s> included (default 128)")
    add("--lr", type=float, default=1e-3, help="highest learning rate (default 1e-3)")
    add("--warmup", type=int, default=500, help="updates of linear warm-up (default 500)")
    add("--weight-decay", type=float, default=0.01, help="default 0.01")
    add("--dropout", type=float, default=0.1, help="everywhere in the model (default 0.1)")
    add("--mask", type=float, default=0.15, help="share of tokens to predict (default 0.15)")
    add("--seed", type=int, default=1, help="of the held-out lines, order, masks and dropout (default 1)")
    add(
        "--temperature", type=float, default=0.3, help="exponent on the languages' shares, 1: as they are (default 0.3)"
    )
    add("--validate-every", type=int, default=1000, help="updates (default 1000); also after the last one")
    add("--valid-lines", type=int, default=500, help="lines held out of each text (default 500)")
    add("--save-every", type=int, default=500, help="updates between checkpoints (default 500)")
    add("--log-every", type=int, default=50, help="updates a line of the log averages over (default 50)")
    add("--bf16", action="store_true", help="bfloat16 autocast; weights stay float32")
    add("--cpu", action="store_true", help="do not use a GPU")
    add("--workers", type=int, default=0, help="processes that prepare batches (default 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the options and pretrain."""
    show_user_errors_plainly()
    args = make_parser().parse_args(argv)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
