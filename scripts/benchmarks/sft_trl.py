"""One side of sft.py: TRL's SFTTrainer, whose losses are on the completion alone."""

import logging
import tempfile
from dataclasses import dataclass
from typing import Any

from nid_plugin.pairs import read_pairs
from plugin_common import compat
from scripts.benchmarks.sft_options import Options
from scripts.benchmarks.sft_turns import Turns


@dataclass(frozen=True)
class TrlSetting:
    """How it batches.

    Attributes:
        rows: of a batch.
        batches: of an update.
        packing: how a row is filled: one of TRL's packing strategies, or ``padded``: a pair a row, rows of like length
            together.
    """

    rows: int
    batches: int
    packing: str = "bfd"

    @property
    def name(self) -> str:
        """As in the report."""
        return f"{self.packing}_{self.rows}x{self.batches}"


def _filling(packing: str) -> dict[str, Any]:
    """TRL's options."""
    if packing == "padded":
        return {"packing": False, "train_sampling_strategy": "group_by_length"}
    return {"packing": True, "packing_strategy": packing}


def _model(folder: str, options: Options) -> Any:
    """The model, with adapters if asked for, in the options' precision."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, options.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    if options.tuning != "lora":
        return model
    config = LoraConfig(
        r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)  # adapters in the model's precision


def _training_arguments(scratch: str, options: Options, setting: TrlSetting) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=scratch,
        per_device_train_batch_size=setting.rows,
        gradient_accumulation_steps=setting.batches,
        max_length=options.max_length,
        completion_only_loss=True,
        gradient_checkpointing=False,
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        max_steps=1_000_000,
        logging_steps=1_000_000,
        save_strategy="no",
        report_to=[],
        bf16=False,  # no autocast: the weights have their precision
        use_cpu=True,
        seed=1,
        disable_tqdm=True,
        **_filling(setting.packing),
    )


def train(turns: Turns, folder: str, pairs: str, options: Options, setting: TrlSetting) -> None:
    """Train until the turns are over.

    Args:
        turns: called after each update.
        folder: of the model.
        pairs: a file of pairs.
        options: see :class:`scripts.benchmarks.sft_options.Options`.
        setting: see there.
    """
    compat.hide_broken_torchaudio()
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTTrainer

    disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)  # else it tells of each pair whose halves join inside a token
    read = {"tokens": 0, "places": 0, "losses": 0.0}

    class CountingTrainer(SFTTrainer):
        """Notes the real tokens of each batch."""

        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
            mask, places = inputs.get("attention_mask"), inputs["input_ids"].numel()
            read["tokens"] += int(places if mask is None else mask.sum())
            read["places"] += places
            loss = super().training_step(model, inputs, *rest, **more)
            read["losses"] += float(loss)  # of an update's labels, this batch's share
            return loss

    class AfterUpdate(TrainerCallback):
        """Takes turns."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            noted = dict(read)
            read.update(tokens=0, places=0, losses=0.0)
            turns.update(int(noted["tokens"]), int(noted["places"]), noted["losses"])

    examples = [{"prompt": pair.prompt, "completion": pair.completion} for pair in read_pairs(pairs)]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = CountingTrainer(
            model=_model(folder, options),
            args=_training_arguments(scratch, options, setting),
            train_dataset=Dataset.from_list(examples),
            processing_class=AutoTokenizer.from_pretrained(folder),
            callbacks=[AfterUpdate()],
        )
        trainer.train()
