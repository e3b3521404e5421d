"""The command lines of the models: training, averaging, translating, for the one-pass model and its baseline."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from plugin_common.stages import Command
from scripts.nat.recipes import Baseline, OnePass, Recipe

PLUGIN = Path(__file__).resolve().parents[2] / "nat_plugin"
LENGTH_LIMIT = ("--max-len-a", "1.2", "--max-len-b", "10")
"""A left-to-right hypothesis may have 1.2 · source + 10 tokens: a model that has learnt little would not stop."""
_VALIDATED = re.compile(r"valid on 'valid' subset.*?\| loss (\S+)(?:.*?\| bleu (\S+))?.*?\| num_updates (\d+)")


@dataclass(frozen=True)
class Machine:
    """What commands run on.

    Attributes:
        gpus: how many GPUs; 0 is the CPU.
        gpu_tokens: most tokens that a GPU (or the CPU) takes at once; larger batches are accumulated.
        workers: processes for text.
        precision: ``fp16``, ``bf16`` or ``fp32``.
    """

    gpus: int
    gpu_tokens: int
    workers: int
    precision: str

    @property
    def half(self) -> tuple[str, ...]:
        """The option for 16-bit floats, if any."""
        return () if self.precision == "fp32" else (f"--{self.precision}",)

    @property
    def device(self) -> tuple[str, ...]:
        """The option that keeps off GPUs, if any."""
        return () if self.gpus else ("--cpu",)

    def batches(self, tokens: int) -> tuple[str, ...]:
        """Options by which an update sees ``tokens`` tokens on these GPUs."""
        processes = max(1, self.gpus)
        steps = math.ceil(tokens / (processes * self.gpu_tokens))
        return "--max-tokens", str(round(tokens / (processes * steps))), "--update-freq", str(steps)


@dataclass(frozen=True)
class Languages:
    """A direction."""

    source: str
    target: str

    @property
    def options(self) -> tuple[str, ...]:
        """For ``nat`` and fairseq alike."""
        return "--source-lang", self.source, "--target-lang", self.target


def train_one_pass(
    settings: OnePass, languages: Languages, machine: Machine, *, data: Path, pmlm: Path, save: Path, seed: int
) -> Command:
    """``fairseq-train`` for the CTC model with embedding distillation from its own, frozen PMLM."""
    words = (
        "fairseq-train", str(data), "--user-dir", str(PLUGIN), "--task", "ctc_nat", *languages.options,
        "--arch", "ctc_pmlm", "--pmlm", str(pmlm), "--upsampler", "mask_insertion", "--mask-placement", "uniform",
        "--upsample-ratio", f"{settings.ratio:g}", "--random-positions",
        "--dropout", f"{settings.dropout:g}", "--attention-dropout", f"{settings.dropout:g}",
        "--criterion", "embedding_distillation", "--teacher", str(pmlm), "--distill-alignment", "argmax",
        "--distill-distance", "cosine", "--distill-start-update", str(settings.distill_start),
        # Real corpora hold a few pairs whose target no source of that length can carry; they are counted.
        "--impossible-targets", "keep",
        *_schedule(settings, seed, save),
        "--eval-bleu", "--pmlm-tokenizer", str(pmlm), "--best-checkpoint-metric", "bleu",
        "--maximize-best-checkpoint-metric",
        *machine.half,
    )  # fmt: skip
    workers = "4" if machine.gpus else "0"
    return Command(words, ("--num-workers", workers, *_where(machine), *machine.batches(settings.tokens)))


def train_baseline(
    settings: Baseline, languages: Languages, machine: Machine, *, data: Path, save: Path, seed: int
) -> Command:
    """``fairseq-train`` for the autoregressive Transformer, on the same pieces.

    With more workers or fairseq's default batch multiple, fairseq's own task would lose sentences.
    """
    words = (
        "fairseq-train", str(data), "--user-dir", str(PLUGIN), "--task", "translation", *languages.options,
        "--arch", settings.arch, *settings.shape, "--share-all-embeddings", "--dropout", f"{settings.dropout:g}",
        "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", f"{settings.label_smoothing:g}",
        *_schedule(settings, seed, save), "--warmup-init-lr", "1e-07", "--required-batch-size-multiple", "1",
        *machine.half,
    )  # fmt: skip
    return Command(words, ("--num-workers", "0", *_where(machine), *machine.batches(settings.tokens)))


def _schedule(settings: OnePass | Baseline, seed: int, save: Path) -> tuple[str, ...]:
    every = str(max(1, settings.updates // settings.validations))
    return (
        "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--weight-decay", f"{settings.weight_decay:g}",
        "--lr", f"{settings.lr:g}", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", str(settings.warmup),
        "--max-update", str(settings.updates), "--seed", str(seed),
        # Validated and saved by updates, not by epochs, which differ in length from corpus to corpus.
        "--validate-interval", "1000000", "--validate-interval-updates", every, "--save-interval-updates", every,
        "--keep-interval-updates", "1", "--keep-best-checkpoints", str(settings.best), "--no-epoch-checkpoints",
        "--save-dir", str(save),
    )  # fmt: skip


def _where(machine: Machine) -> tuple[str, ...]:
    logs = ("--log-format", "simple", "--log-interval", "100")
    return *logs, *machine.device, *(("--distributed-world-size", str(machine.gpus)) if machine.gpus else ())


def validation_line(line: str) -> str | None:
    """What is shown of a training log: its validations."""
    found = _VALIDATED.search(line)
    if found is None:
        return None
    bleu = f", BLEU {found[2]}" if found[2] else ""
    return f"update {int(found[3]):,}: validation loss {found[1]}{bleu}"


def average(checkpoints: Path, best: int, model: Path) -> Command:
    """``nat average`` of the best checkpoints by the training's own measure."""
    return Command(("nat", "average", str(checkpoints), "--best", str(best), "--output", str(model)))


def translate_one_pass(
    recipe: Recipe,
    languages: Languages,
    machine: Machine,
    *,
    data: Path,
    pmlm: Path,
    model: Path,
    log: Path,
    one: bool = False,
) -> Command:
    """``fairseq-generate`` on the test set, in large batches or ``one`` sentence at a time."""
    words = ("fairseq-generate", str(data), "--user-dir", str(PLUGIN), "--task", "ctc_nat", *languages.options)
    return _translate(words, recipe, machine, pmlm=pmlm, model=model, log=log, one=one)


def translate_baseline(
    recipe: Recipe,
    languages: Languages,
    machine: Machine,
    *,
    data: Path,
    pmlm: Path,
    model: Path,
    log: Path,
    one: bool = False,
    beam: int | None = None,
) -> Command:
    """As :func:`translate_one_pass`, with beam search (``beam``: another size than the recipe's)."""
    settings = recipe.baseline
    words = (
        "fairseq-generate", str(data), "--user-dir", str(PLUGIN), "--task", "translation", *languages.options,
        "--beam", str(beam or settings.beam), "--lenpen", f"{settings.lenpen:g}", *LENGTH_LIMIT,
        "--required-batch-size-multiple", "1",
    )  # fmt: skip
    return _translate(words, recipe, machine, pmlm=pmlm, model=model, log=log, one=one)


def _translate(
    words: tuple[str, ...], recipe: Recipe, machine: Machine, *, pmlm: Path, model: Path, log: Path, one: bool
) -> Command:
    size = ("--batch-size", "1") if one else ("--max-tokens", str(recipe.batch))
    rest = (
        "--path", str(model), "--gen-subset", "test", *size, "--bpe", "pmlm", "--pmlm-tokenizer", str(pmlm),
        "--scoring", "sacrebleu", *machine.half,
    )  # fmt: skip
    return Command((*words, *rest), ("--num-workers", "0", *machine.device), output=log, errors=log.with_suffix(".err"))


def distill(
    recipe: Recipe, languages: Languages, machine: Machine, *, data: Path, model: Path, output: Path
) -> tuple[Command, ...]:
    """``nat distill`` of each shard; they may run side by side."""
    settings = recipe.baseline
    words = (
        "nat", "distill", str(data), "--path", str(model), *languages.options, "--output", str(output),
        "--user-dir", str(PLUGIN), "--beam", str(settings.beam), "--lenpen", f"{settings.lenpen:g}", *LENGTH_LIMIT,
        *machine.half,
    )  # fmt: skip
    return tuple(
        Command((*words, "--shards", str(recipe.shards), "--shard", str(shard)), machine.device)
        for shard in range(recipe.shards)
    )


def merge(languages: Languages, *, data: Path, output: Path, mix: bool) -> Command:
    """``nat distill --merge``: all shards in order, after the raw pairs if ``mix``."""
    words = ("nat", "distill", str(data), *languages.options, "--output", str(output), "--merge")
    return Command((*words, "--mix") if mix else words)
