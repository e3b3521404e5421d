"""One side of sft.py: ``fairseq-train`` with this project's task, model, criterion and optimizer."""

import logging
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.sft_options import Options
from scripts.benchmarks.sft_turns import Turns

PLUGIN = Path(__file__).resolve().parents[2] / "nid_plugin"


@dataclass(frozen=True)
class OurSetting:
    """Tokens of a batch; an update takes as many batches as make up its tokens."""

    max_tokens: int

    @property
    def name(self) -> str:
        """As in the report."""
        return f"ours_{self.max_tokens}"


def command(folder: str, pairs: str, options: Options, setting: OurSetting, data: str) -> list[str]:
    """The words after ``fairseq-train``."""
    precision = ["--memory-efficient-bf16"] if options.dtype == "bfloat16" else []
    adapters = (
        ["--lora-rank", options.lora_rank, "--lora-alpha", options.lora_alpha] if options.tuning == "lora" else []
    )
    words = [
        data, "--user-dir", PLUGIN, "--task", "completion_sft", "--train-pairs", pairs,
        "--tokens-per-pair", options.max_length, "--arch", "hf_causal_lm", "--model", folder,
        "--tuning", options.tuning, *adapters, "--criterion", "completion_cross_entropy",
        "--optimizer", "fused_adamw", "--adam-betas", "(0.9, 0.999)", "--lr", options.lr, "--lr-scheduler", "fixed",
        "--clip-norm", 1.0, *precision, "--max-tokens", setting.max_tokens,
        "--update-freq", max(1, options.tokens // setting.max_tokens), "--cpu", "--num-workers", 0, "--seed", 1,
        "--max-update", 1_000_000, "--max-epoch", 1_000_000, "--no-save", "--disable-validation",
        "--no-progress-bar", "--log-interval", 1_000_000,
    ]  # fmt: skip
    return [str(word) for word in words]


def train(turns: Turns, folder: str, pairs: str, options: Options, setting: OurSetting) -> None:
    """Train until the turns are over; arguments as for the other side."""
    import nid_plugin

    nid_plugin.register()  # --user-dir does not, as the package is loaded already
    from fairseq.trainer import Trainer
    from fairseq_cli import train as program

    from nid_plugin.causal_lm.cpu_sizes import rounded_up  # loads torch, which a turn's process sets up first

    class CountingTrainer(Trainer):
        """fairseq's, with a turn's end after an update."""

        def train_step(self, samples: list[dict[str, Any]], *rest: Any, **more: Any) -> Any:
            log = super().train_step(samples, *rest, **more)
            turns.update(
                sum(sample["ntokens"] for sample in samples),
                sum(rounded_up(sample["net_input"]["src_tokens"].numel()) for sample in samples),
                float(log["loss"]) * math.log(2),
            )
            return log

    program.Trainer = CountingTrainer
    logging.getLogger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as data:
        sys.argv = ["fairseq-train", *command(folder, pairs, options, setting, data)]
        program.cli_main()
