"""A toy causal LM and pairs, and the command lines that fine-tune it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from plugin_common.checkpoint_files import check_and_load
from tests.commands import ROOT, Finished, Runner
from tests.toy_causal_lm import make_causal_lm, write_toy_pairs

PLUGIN = str(ROOT / "nid_plugin")
TASK = ("--user-dir", PLUGIN, "--task", "completion_sft", "--cpu")
TRAIN = (
    "--arch", "hf_causal_lm", "--criterion", "completion_cross_entropy", "--optimizer", "adam", "--lr", "1e-2",
    "--lr-scheduler", "fixed", "--log-format", "json", "--log-interval", "1", "--max-tokens", "256",
)  # fmt: skip
PAIRS = {"train": 61, "valid": 13, "test": 7}


@dataclass(frozen=True)
class Sft:
    """What most tests start from.

    Attributes:
        base: folder of the model.
        data: folder with train.jsonl, valid.jsonl, test.jsonl.
        lora: folder of a short LoRA training, ``lora_log`` what it printed.
        full: folder of a short full training.
    """

    base: Path
    data: Path
    lora: Path
    full: Path

    def train(self, run: Runner, folder: Path, *words: str, **options: object) -> Finished:
        """``fairseq-train`` into ``folder``."""
        return run(
            "fairseq-train", self.data, *TASK, *TRAIN, "--model", self.base, "--save-dir", folder,
            "--no-epoch-checkpoints", *words, **options,  # type: ignore[arg-type]
        )  # fmt: skip


def make_sft(run: Runner, once: Callable[[str, Callable[[Path], object]], Path]) -> Sft:
    """Model and pairs, made once; then the trainings, whose checkpoints name the model's folder."""

    def inputs(folder: Path) -> None:
        make_causal_lm(folder / "base")
        (folder / "data").mkdir()
        for seed, (split, count) in enumerate(PAIRS.items()):
            write_toy_pairs(folder / "data" / f"{split}.jsonl", count, seed)

    def trainings(folder: Path) -> None:
        made = Sft(given / "base", given / "data", folder / "lora", folder / "full")
        made.train(run, made.lora, "--max-epoch", "3")
        made.train(run, made.full, "--max-epoch", "3", "--tuning", "full")

    given = once("sft-inputs", inputs)
    trained = once("sft-trainings", trainings)
    return Sft(given / "base", given / "data", trained / "lora", trained / "full")


def weights(folder: Path, name: str = "checkpoint_last.pt") -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint."""
    return check_and_load(folder / name)["model"]


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def figures(log: str, name: str) -> list[dict[str, float]]:
    """What the JSON lines that begin with ``name`` say (``train``, ``valid``, ``train_inner``, a split)."""
    found = re.findall(rf"\| {name} \| (\{{.*\}})", log)
    return [{key: float(value) for key, value in json.loads(line).items() if key != "log_format"} for line in found]
