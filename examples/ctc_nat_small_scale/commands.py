"""The command lines of the reproduction, one function for each."""

from dataclasses import dataclass
from pathlib import Path

from examples.ctc_nat_small_scale.grid import BASELINE, ROWS, Expected, Row
from examples.ctc_nat_small_scale.sizes import Size
from plugin_common.stages import Command
from scripts.nat.training import LENGTH_LIMIT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLUGIN = ROOT / "nat_plugin"
BEAM, CTC_BEAM, LM_WEIGHT, TOKEN_BONUS = 5, 10, 0.6, 4.0  # the last three: docs/user-guide/beam-search.md
BLANK_PENALTY = 1.0
NGRAMS = 4
EVALUATION_TOKENS = 8000
SHARDS = 4
PAIRS = {"de-en": "en-de", "en-de": "en-de", "ro-en": "en-ro", "en-ro": "en-ro"}


@dataclass(frozen=True)
class Setting:
    """What the user chose.

    Attributes:
        size: how large everything is.
        work: folder of the reproduction.
        gpu: train on it; otherwise on the CPU.
        precision: ``bf16`` or ``fp32``.
        workers: processes for text.
        source: of the corpora, instead of the size's.
        cache: where Debian's packages are kept.
        no_download: take the packages in it as they are.
    """

    size: Size
    work: Path
    gpu: bool
    precision: str
    workers: int
    source: str | None = None
    cache: Path = ROOT / "runs" / "debian-packages"
    no_download: bool = False

    @property
    def half(self) -> tuple[str, ...]:
        """The option for 16-bit floats, if any."""
        return () if self.precision == "fp32" else (f"--{self.precision}",)

    @property
    def device(self) -> tuple[str, ...]:
        """The option that keeps off GPUs, if any."""
        return () if self.gpu else ("--cpu",)


# ---- text ------------------------------------------------------------------------------------------------------------


def corpora(setting: Setting) -> Command:
    """The parallel text."""
    text = setting.size.text
    words = ["python", str(HERE / "corpora.py"), "--source", setting.source or text.source]
    words += ["--output", str(setting.work / "data/corpora"), "--held-out", str(text.held_out)]
    words += ["--train-pairs", str(text.train_pairs)] if text.train_pairs else []
    words += ["--most-words", str(text.most_words)] if text.most_words else []
    words += ["--packages", *text.packages] if text.packages else []
    return Command(tuple(words), _packages(setting))


def text(setting: Setting) -> Command:
    """The monolingual text: prose from Debian's manuals, and the training sides of the corpora."""
    folder, manuals = setting.work / "data", setting.size.text.manuals
    words = ["python", str(ROOT / "scripts/data/debian_text.py"), "--out", str(text_folder(setting)), "--overwrite"]
    words += ["--corpora", str(folder / "corpora/en-de"), str(folder / "corpora/en-ro")]
    if (setting.source or setting.size.text.source) == "sample":
        words += ["--corpora-only"]
    elif manuals is not None:
        words += ["--packages", *manuals]
    return Command(tuple(words), _packages(setting))


def text_folder(setting: Setting) -> Path:
    """Where the monolingual text is."""
    return setting.work / "text" / "lines"


def _packages(setting: Setting) -> tuple[str, ...]:
    return "--cache", str(setting.cache), *(("--no-download",) if setting.no_download else ())


def shape(setting: Setting) -> Command:
    """A joint vocabulary and a random model of XLM-R's kind."""
    data, shape = setting.work / "data", setting.size.shape
    texts = [str(data / "corpora" / pair / f"train.{side}") for pair in ("en-de", "en-ro") for side in pair.split("-")]
    words = (
        "nat", "prepare-pmlm", "--from-scratch", "--vocab-size", str(shape.vocabulary), "--layers", str(shape.layers),
        "--width", str(shape.width), "--heads", str(shape.heads), "--ffn", str(shape.ffn), "--corpus", *texts,
        "--output", str(data / "shape"),
    )  # fmt: skip
    return Command(words)


def tokenize(setting: Setting, pair: str) -> Command:
    """Text → pieces."""
    data = setting.work / "data"
    words = ("nat", "tokenize", "--pmlm", str(data / "shape"), *_languages(pair), *_prefixes(data / "corpora" / pair))
    return Command((*words, "--destdir", str(data / "pieces" / pair)), ("--workers", str(setting.workers)))


def preprocess(setting: Setting, pair: str) -> Command:
    """Pieces → fairseq's numbers; they serve both directions."""
    data = setting.work / "data"
    return _preprocess(setting, pair, _prefixes(data / "pieces" / pair), data / "bin" / pair)


def preprocess_distilled(setting: Setting, direction: str) -> Command:
    """The distilled training data beside the real validation set."""
    folder, pieces = setting.work / "at" / direction / "distilled", setting.work / "data/pieces" / PAIRS[direction]
    prefixes = ("--trainpref", str(folder / "train"), "--validpref", str(pieces / "valid"))
    return _preprocess(setting, direction, prefixes, folder / "bin")


def _preprocess(setting: Setting, pair: str, prefixes: tuple[str, ...], output: Path) -> Command:
    dictionary = str(setting.work / "data/shape/dict.txt")
    words = ("fairseq-preprocess", *_languages(pair), *prefixes, "--srcdict", dictionary, "--tgtdict", dictionary)
    return Command((*words, "--destdir", str(output)), ("--workers", str(setting.workers)))


def ngram_lm(setting: Setting, pieces: Path, language: str) -> Command:
    """An n-gram model of the target language."""
    data = setting.work / "data"
    words = ("nat", "ngram-lm", "--corpus", str(pieces), "--dict", str(data / "shape/dict.txt"))
    return Command(
        (*words, "--order", str(NGRAMS), "--prune", "0", "0", "1", "--output", str(data / "lm" / f"{language}.npz"))
    )


def _prefixes(folder: Path) -> tuple[str, ...]:
    return tuple(word for split in ("train", "valid", "test") for word in (f"--{split}pref", str(folder / split)))


def _languages(direction: str) -> tuple[str, ...]:
    source, target = direction.split("-")
    return "--source-lang", source, "--target-lang", target


# ---- models ----------------------------------------------------------------------------------------------------------


def pretrain(setting: Setting) -> Command:
    """The masked LM, by transformers' Trainer."""
    data, folder, settings = setting.work / "data", setting.work / "pmlm", setting.size.pretraining
    texts = [str(text_folder(setting) / f"{language}.txt") for language in ("en", "de", "ro")]
    every = max(1, settings.updates // 10)
    words = (
        "python", str(HERE / "pretrain.py"), "--model", str(data / "shape"), "--text", *texts,
        "--output", str(folder / "model"), "--log", str(folder / "loss.jsonl"),
        "--updates", str(settings.updates), "--tokens", str(settings.tokens), "--block", str(settings.block),
        "--lr", f"{settings.lr:g}", "--warmup", str(settings.warmup), "--dropout", f"{settings.dropout:g}",
        "--mask", f"{settings.mask:g}",
        "--validate-every", str(every), "--save-every", str(every), *setting.half,
    )  # fmt: skip
    log_every = next(number for number in (50, 10, 5, 1) if every % number == 0)
    return Command(words, ("--log-every", str(log_every), *setting.device))


def model_folder(setting: Setting, row: str) -> Path:
    """The PMLM folder that a row starts from, with or without its weights."""
    pretrained = row != BASELINE and (ROWS[row].pretrained or ROWS[row].distillation)
    return setting.work / ("pmlm/model" if pretrained else "data/shape")


def binary(setting: Setting, direction: str, *, distilled: bool = False) -> Path:
    """fairseq's data folder."""
    return setting.work / (f"at/{direction}/distilled/bin" if distilled else f"data/bin/{PAIRS[direction]}")


def train(setting: Setting, training: Expected) -> Command:
    """``fairseq-train`` for a row or the baseline."""
    row, settings = ROWS.get(training.row), setting.size.training
    data = binary(setting, training.direction, distilled=row is not None and row.distilled_data)
    model = _baseline_model(setting) if row is None else _one_pass_model(setting, row)
    every = str(max(1, settings.updates // settings.validations))
    words = (
        "fairseq-train", str(data), "--user-dir", str(PLUGIN), *_languages(training.direction), *model,
        "--dropout", f"{settings.dropout:g}", "--attention-dropout", f"{settings.dropout:g}",
        "--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--weight-decay", f"{settings.weight_decay:g}",
        "--clip-norm", "1.0", "--lr", f"{settings.lr:g}", "--lr-scheduler", "inverse_sqrt",
        "--warmup-updates", str(settings.warmup), "--max-update", str(settings.updates),
        "--max-tokens", str(settings.tokens), "--required-batch-size-multiple", "1", "--seed", str(training.seed),
        "--update-epoch-batch-itr", "True",  # resuming is exact beyond the first epoch, too
        # Validated and saved by updates, not by epochs, which differ in length from corpus to corpus.
        "--validate-interval", "1000000", "--validate-interval-updates", every, "--save-interval-updates", every,
        "--keep-interval-updates", "1", "--keep-best-checkpoints", str(settings.best), "--no-epoch-checkpoints",
        "--save-dir", str(setting.work / training.folder / "checkpoints"), *setting.half,
    )  # fmt: skip
    log = ("--log-format", "simple", "--log-interval", "50", "--max-tokens-valid", str(EVALUATION_TOKENS))
    return Command(words, ("--num-workers", "0", *log, *setting.device))


def _one_pass_model(setting: Setting, row: Row) -> tuple[str, ...]:
    settings, folder = setting.size.training, str(model_folder(setting, row.name))
    words = [
        "--task", "ctc_nat", "--arch", "ctc_pmlm", "--pmlm", folder, "--upsampler", row.upsampler,
        "--upsample-ratio", f"{row.ratio:g}", "--blank-symbol", row.blank,
        # Real text holds a few pairs whose target no source of that length can carry; they are counted.
        "--impossible-targets", "keep", "--eval-bleu", "--pmlm-tokenizer", folder,
        "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric",
    ]  # fmt: skip
    words += [] if row.pretrained else ["--random-init"]
    words += ["--mask-placement", row.placement] if row.upsampler == "mask_insertion" else []
    if row.distillation:
        start = round(settings.updates * settings.distill_start)
        words += ["--criterion", "embedding_distillation", "--teacher", str(setting.work / "pmlm/model")]
        words += ["--distill-start-update", str(start)]
    else:
        words += ["--criterion", "ctc_nat_loss"]
    if row.glancing != (0, 0):
        words += ["--glancing-start", f"{row.glancing[0]:g}", "--glancing-end", f"{row.glancing[1]:g}"]
    return tuple(words)


def _baseline_model(setting: Setting) -> tuple[str, ...]:
    shape = setting.size.shape
    words = ["--task", "translation", "--arch", "transformer", "--share-all-embeddings"]
    for side in ("encoder", "decoder"):
        words += [f"--{side}-layers", str(shape.baseline_layers), f"--{side}-embed-dim", str(shape.width)]
        words += [f"--{side}-ffn-embed-dim", str(shape.ffn), f"--{side}-attention-heads", str(shape.heads)]
    words += ["--criterion", "label_smoothed_cross_entropy"]
    words += ["--label-smoothing", f"{setting.size.training.label_smoothing:g}"]
    return tuple(words)


def average(setting: Setting, checkpoints: Path, output: Path) -> Command:
    """``nat average`` of the best checkpoints by the training's own measure."""
    best = str(setting.size.training.best)
    words = ("nat", "average", str(checkpoints), "--best", best, "--output", str(output))
    return Command(words, ("--allow-fewer",))  # of equal validation results (BLEU 0 at first) fairseq keeps fewer


def translate(setting: Setting, training: Expected, evaluation: str) -> Command:
    """``fairseq-generate`` on the test set."""
    folder, target = setting.work / training.folder, training.direction.partition("-")[2]
    data, shape = binary(setting, training.direction), str(setting.work / "data/shape")
    paths = {"single": folder / "checkpoints/checkpoint_best.pt", "last": folder / "checkpoints/checkpoint_last.pt"}
    if training.row == BASELINE:
        own = ["--task", "translation", "--beam", evaluation.removeprefix("beam"), *LENGTH_LIMIT]
        own += ["--required-batch-size-multiple", "1"]
    else:
        own = ["--task", "ctc_nat"]
    if evaluation == "penalty":
        own += ["--ctc-blank-penalty", f"{BLANK_PENALTY:g}"]
    if evaluation == "beam":
        own += ["--ctc-beam", str(CTC_BEAM), "--lm", str(setting.work / "data/lm" / f"{target}.npz")]
        own += ["--lm-weight", f"{LM_WEIGHT:g}", "--ctc-token-bonus", f"{TOKEN_BONUS:g}"]
    words = (
        "fairseq-generate", str(data), "--user-dir", str(PLUGIN), *_languages(training.direction), *own,
        "--path", str(paths.get(evaluation, folder / "model.pt")), "--gen-subset", "test", "--bpe", "pmlm",
        "--pmlm-tokenizer", shape, "--scoring", "sacrebleu",
    )  # fmt: skip
    how = ("--num-workers", "0", "--max-tokens", str(EVALUATION_TOKENS), *setting.device)
    log = folder / evaluation / "generate.log"
    return Command(words, how, output=log, errors=log.with_suffix(".err"))


def distill(setting: Setting, direction: str) -> tuple[Command, ...]:
    """``nat distill`` of each shard."""
    folder = setting.work / "at" / direction
    model = folder / f"seed{setting.size.seeds[0]}" / "model.pt"
    words = (
        "nat", "distill", str(binary(setting, direction)), "--path", str(model), *_languages(direction),
        "--output", str(folder / "distilled"), "--user-dir", str(PLUGIN), "--beam", str(BEAM), *LENGTH_LIMIT,
        *setting.half,
    )  # fmt: skip
    how = (*setting.device, "--max-tokens", str(EVALUATION_TOKENS))
    return tuple(Command((*words, "--shards", str(SHARDS), "--shard", str(shard)), how) for shard in range(SHARDS))


def merge(setting: Setting, direction: str) -> Command:
    """All shards in order."""
    output = str(setting.work / "at" / direction / "distilled")
    data = str(binary(setting, direction))
    return Command(("nat", "distill", data, *_languages(direction), "--output", output, "--merge"))


# ---- what the models are good for ------------------------------------------------------------------------------------


def alignment_figure(setting: Setting, training: Expected) -> Path:
    """Where the figure goes."""
    return setting.work / "results/figures" / f"alignment-{training.row}.png"


def align_plot(setting: Setting, training: Expected, like: Expected) -> Command:
    """How the model lays out a sentence of the test set that the other one translates well."""
    words = ("python", str(HERE / "alignment.py"), "--work", str(setting.work), "--run", training.folder)
    return Command((*words, "--like", like.folder, "--output", str(alignment_figure(setting, training))))


def export(setting: Setting, training: Expected, about: Path) -> tuple[Command, Command]:
    """Tell what the model was trained on, then ``nat export`` with its own check on the test set."""
    pair, (source, target) = PAIRS[training.direction], training.direction.split("-")
    tell = ("python", str(HERE / "about.py"), "--work", str(setting.work), "--run", training.folder)
    test = setting.work / "data/corpora" / pair / "test"
    words = (
        "nat", "export", str(setting.work / training.folder / "model.pt"),
        "--data", str(binary(setting, training.direction)), "--pmlm-tokenizer", str(setting.work / "data/shape"),
        *_languages(training.direction), "--user-dir", str(PLUGIN), "--precision", "int8", "--about", str(about),
        "--test-source", f"{test}.{source}", "--test-reference", f"{test}.{target}",
        "--output", str(about.parent / training.direction),
    )  # fmt: skip
    return Command((*tell, "--output", str(about))), Command(words)


def speed(setting: Setting, ours: Expected, theirs: Expected) -> tuple[Command, Command]:
    """Name the models, then the decoding benchmark."""
    results = setting.work / "results"
    names = ("--ours", ours.folder, "--theirs", theirs.folder)
    tell = ("python", str(HERE / "speed_spec.py"), "--work", str(setting.work), *names)
    models, report = str(results / "models.json"), str(results / "speed.json")
    words = (
        "python", str(ROOT / "scripts/benchmarks/decoding.py"), "--quick", "--sizes", "try", "--batches", "1",
        "--repeats", "2", "--device", "cuda" if setting.gpu else "cpu", "--trained", models, "--json", report,
    )  # fmt: skip
    return Command((*tell, "--output", models)), Command(words)
