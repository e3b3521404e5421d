"""The command line of fine-tuning, and what it runs on."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from plugin_common.stages import Command
from scripts.common.spread import Spread, spread
from scripts.nid.recipes import DOCUMENT_TOKENS, Recipe

PLUGIN = Path(__file__).resolve().parents[2] / "nid_plugin"
LAUNCHERS = ("fairseq", "torchrun", "slurm")
PORT = "29500"
_VALIDATED = re.compile(r"valid on 'valid' subset.*?\| loss (\S+)(?:.*?\| ppl (\S+))?.*?\| num_updates (\d+)")


@dataclass(frozen=True)
class Machine:
    """What commands run on.

    Attributes:
        gpus: how many GPUs a machine has; 0 is the CPU.
        nodes: machines.
        launcher: what starts a process for each GPU: ``fairseq`` itself, ``torchrun`` or ``slurm`` (srun).
        gpu_tokens: most tokens that a GPU (or the CPU) takes at once; larger batches are accumulated.
        precision: ``bf16`` or ``fp32``.
        holding: how the base's weights are held, see ``memory.HOLDINGS``.
    """

    gpus: int
    nodes: int
    launcher: str
    gpu_tokens: int
    precision: str
    holding: str

    @property
    def processes(self) -> int:
        """GPUs of all machines."""
        return self.gpus * self.nodes

    def spread(self, recipe: Recipe) -> Spread:
        """How an update is shared out."""
        tuning = recipe.tuning
        return spread(tuning.tokens, longest=tuning.longest, at_once=self.gpu_tokens, gpus=self.processes)

    def launch(self, processes: int) -> tuple[str, ...]:
        """Words in front of a training on so many GPUs."""
        if not self.gpus or self.launcher == "fairseq":
            return ()
        if self.launcher == "torchrun":
            return ("torchrun", "--standalone", "--nproc-per-node", str(processes), "--no-python")
        each = str(self.gpus)
        return ("srun", "--nodes", str(self.nodes), "--ntasks-per-node", each, "--gpus-per-node", each)

    def where(self, processes: int) -> tuple[str, ...]:
        """fairseq's options about processes."""
        if not self.gpus:
            return ("--cpu",)
        if self.launcher == "torchrun":
            return ()
        world = ("--distributed-world-size", str(processes))
        return world if self.launcher == "fairseq" else (*world, "--distributed-port", PORT)


def updates(recipe: Recipe, documents: int) -> int:
    """Updates in which so many documents of average length are seen ``epochs`` times."""
    tuning = recipe.tuning
    return max(1, math.ceil(tuning.epochs * documents * DOCUMENT_TOKENS / tuning.tokens))


def fine_tune(
    recipe: Recipe, machine: Machine, *, base: str, data: Path, train: Path, save: Path, documents: int, seed: int
) -> Command:
    """``fairseq-train`` with LoRA on the completions.

    Args:
        recipe: see there.
        machine: see there.
        base: folder of the base model, or its name on the hub.
        data: folder with valid.jsonl; keeps tokenised pairs.
        train: pairs to train on.
        save: folder of the checkpoints.
        documents: how many pairs there are, about; decides the number of updates.
        seed: of the adapters' start and the order of the pairs.
    """
    tuning, count = recipe.tuning, updates(recipe, documents)
    every = str(max(1, count // tuning.validations))
    shared = machine.spread(recipe)
    words = (
        "fairseq-train", str(data), "--user-dir", str(PLUGIN), "--task", "completion_sft",
        "--train-pairs", str(train), "--pair-format", recipe.pair_format, "--tokens-per-pair", str(tuning.longest),
        "--arch", "hf_causal_lm", "--model", base, *_adapters(recipe), *_holding(machine.holding),
        "--criterion", "completion_cross_entropy",
        "--optimizer", "fused_adamw", "--adam-betas", "(0.9, 0.95)", "--weight-decay", f"{tuning.weight_decay:g}",
        "--clip-norm", f"{tuning.clip:g}", "--lr", f"{tuning.lr:g}", "--lr-scheduler", "cosine",
        "--warmup-updates", str(min(count - 1, math.ceil(tuning.warmup * count))), "--max-update", str(count),
        "--seed", str(seed),
        # Validated and saved by updates, not by epochs, which differ in length from one set of pairs to the next.
        "--validate-interval", "1000000", "--validate-interval-updates", every, "--save-interval-updates", every,
        "--keep-interval-updates", "1", "--no-epoch-checkpoints", "--update-epoch-batch-itr", "True",
        "--save-dir", str(save),
        *(() if machine.precision == "fp32" else (f"--{machine.precision}",)),
    )  # fmt: skip
    how = (
        "--log-format", "simple", "--log-interval", "10", "--num-workers", "2" if machine.gpus else "0",
        *machine.where(shared.processes), "--max-tokens", str(shared.tokens), "--update-freq", str(shared.steps),
        *(("--gradient-checkpointing",) if machine.gpus else ()),
    )  # fmt: skip
    return Command(words, how, launcher=machine.launch(shared.processes))


def _adapters(recipe: Recipe) -> tuple[str, ...]:
    tuning = recipe.tuning
    return (
        "--tuning", "lora", "--lora-rank", str(tuning.rank), "--lora-alpha", f"{tuning.alpha:g}",
        "--lora-targets", "all-linear",
    )  # fmt: skip


def _holding(holding: str) -> tuple[str, ...]:
    return {"bf16": (), "4bit": ("--quantize", "4bit"), "sharded": ("--shard-model",)}[holding]


def validation_line(line: str) -> str | None:
    """What is shown of a training log: its validations."""
    found = _VALIDATED.search(line)
    if found is None:
        return None
    perplexity = f", perplexity {found[2]}" if found[2] else ""
    return f"update {int(found[3]):,}: held-out loss {found[1]} bits a token{perplexity}"
