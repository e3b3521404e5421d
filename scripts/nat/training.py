"""The command lines of the models: training, averaging, translating, for the one-pass model and its baseline."""

import re
from dataclasses import dataclass
from pathlib import Path

from plugin_common.stages import Command
from scripts.common import spread as spread_module
from scripts.common.spread import Spread, spread
from scripts.nat.recipes import Baseline, OnePass, Recipe

PLUGIN = Path(__file__).resolve().parents[2] / "nat_plugin"
MAX_LEN_A, MAX_LEN_B = 1.2, 10
LENGTH_LIMIT = ("--max-len-a", str(MAX_LEN_A), "--max-len-b", str(MAX_LEN_B))
"""A left-to-right hypothesis may have 1.2 · source + 10 tokens: a model that has learnt little would not stop."""
UNCUT = 2048
"""Tokens that a batch of validation or test sentences has room for at least: these are not cut to the training's limit,
and without gradients they need less memory."""
DISTILL_BATCH = 12_000  # source tokens
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

    def spread(self, tokens: int, longest: int) -> Spread:
        """How an update of ``tokens`` tokens is shared out, each batch with room for a pair of ``longest`` tokens.

        Where there are too many GPUs for that, some are left out: the update keeps its size. ``gpu_tokens`` is at least
        twice ``longest`` (see :func:`least_gpu_tokens`), or accumulation could leave a batch too little room.
        """
        return spread(tokens, longest=longest, at_once=self.gpu_tokens, gpus=self.gpus)

    def at_once(self, most: int) -> str:
        """Tokens of a batch without gradients: ``most``, or what a GPU takes at once."""
        return str(max(UNCUT, min(most, self.gpu_tokens)))


def longest_pair(recipe: Recipe, *, distilled: bool) -> int:
    """Tokens, ``</s>`` included, that the longer side of a training pair may have."""
    raw = recipe.most_pieces + 1
    return int(MAX_LEN_A * raw + MAX_LEN_B) + 1 if distilled else raw


def least_gpu_tokens(recipe: Recipe, *, distilled: bool) -> int:
    """With so many tokens on each GPU, updates of any size can be shared out (see :meth:`Machine.spread`)."""
    return 2 * longest_pair(recipe, distilled=distilled)


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
    settings: OnePass,
    languages: Languages,
    machine: Machine,
    *,
    longest: int,
    data: Path,
    pmlm: Path,
    save: Path,
    seed: int,
) -> Command:
    """``fairseq-train`` for the CTC model with embedding distillation from its own, frozen PMLM.

    Args:
        longest: see :func:`longest_pair`.
    """
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
    return Command(words, ("--num-workers", workers, *_where(machine, settings.tokens, longest)))


def train_baseline(
    settings: Baseline, languages: Languages, machine: Machine, *, longest: int, data: Path, save: Path, seed: int
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
    return Command(words, ("--num-workers", "0", *_where(machine, settings.tokens, longest)))


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


def _where(machine: Machine, tokens: int, longest: int) -> tuple[str, ...]:
    """Options by which an update sees ``tokens`` tokens on this machine."""
    spread = machine.spread(tokens, longest)
    return (
        "--log-format", "simple", "--log-interval", "100", *machine.device,
        *(("--distributed-world-size", str(spread.processes)) if machine.gpus else ()),
        "--max-tokens", str(spread.tokens), "--update-freq", str(spread.steps),
        "--max-tokens-valid", machine.at_once(machine.gpu_tokens),
    )  # fmt: skip


def left_out(machine: Machine, tokens: int, longest: int) -> str:
    """What is to be told of GPUs that a training cannot use, if there are any."""
    return spread_module.left_out(tokens, longest=longest, at_once=machine.gpu_tokens, gpus=machine.gpus)


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
    size = ("--batch-size", "1") if one else ("--max-tokens", machine.at_once(recipe.batch))
    rest = (
        "--path", str(model), "--gen-subset", "test", "--bpe", "pmlm", "--pmlm-tokenizer", str(pmlm),
        "--scoring", "sacrebleu", *machine.half,
    )  # fmt: skip
    how = ("--num-workers", "0", *machine.device, *size)
    return Command((*words, *rest), how, output=log, errors=log.with_suffix(".err"))


def distill(
    recipe: Recipe, languages: Languages, machine: Machine, *, data: Path, model: Path, output: Path
) -> tuple[Command, ...]:
    """``nat distill`` of each shard; they may run side by side.

    Batches decide nothing but how long a very long hypothesis may be: ``--max-len-a`` goes by a batch's longest source.
    """
    settings = recipe.baseline
    words = (
        "nat", "distill", str(data), "--path", str(model), *languages.options, "--output", str(output),
        "--user-dir", str(PLUGIN), "--beam", str(settings.beam), "--lenpen", f"{settings.lenpen:g}", *LENGTH_LIMIT,
        *machine.half,
    )  # fmt: skip
    how = (*machine.device, "--max-tokens", machine.at_once(DISTILL_BATCH))
    return tuple(
        Command((*words, "--shards", str(recipe.shards), "--shard", str(shard)), how) for shard in range(recipe.shards)
    )


def merge(languages: Languages, *, data: Path, output: Path) -> Command:
    """``nat distill --merge``: all shards in order."""
    return Command(("nat", "distill", str(data), *languages.options, "--output", str(output), "--merge"))
