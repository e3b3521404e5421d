"""The six reproductions as data: what is trained on what, with which settings, and where each setting comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

PAPER = "arXiv 2306.06345 and its authors' public training settings"
HERE = "chosen here"
VASWANI = "Vaswani et al. 2017 (arXiv 1706.03762), Transformer base"
FAIRSEQ_IWSLT = "fairseq examples/translation, IWSLT'14 German to English"
MASK_PREDICT = "Ghazvininejad et al. 2019 (arXiv 1904.09324) and the training command they published"
WU = "Wu et al. 2016 (arXiv 1609.08144), as in Vaswani et al. 2017"


@dataclass(frozen=True)
class OnePass:
    """How the one-pass model is trained; the defaults are the paper's.

    Attributes:
        updates: optimizer steps.
        tokens: tokens of an update, over all GPUs and ``--update-freq`` together.
        lr: peak learning rate, reached after ``warmup`` updates, then falling with the inverse square root.
        distill_share: share of the updates after which embedding distillation starts.
        ratio: up-sampled positions for each source token.
        validations: how many times validation BLEU is taken; each may become one of the best checkpoints.
        best: how many of the best checkpoints are averaged.
        sources: where each setting comes from, by its name.
    """

    updates: int = 100_000
    tokens: int = 12_288
    lr: float = 2e-4
    warmup: int = 10_000
    weight_decay: float = 0.01
    dropout: float = 0.1
    ratio: float = 2.0
    distill_share: float = 0.75
    validations: int = 100
    best: int = 5
    sources: Mapping[str, str] = field(
        default_factory=lambda: {
            **dict.fromkeys(("updates", "tokens", "lr", "warmup", "weight_decay", "dropout", "best"), PAPER),
            "ratio": PAPER,
            "distill_share": f"{PAPER}: from update 75,000 of 100,000",
            "validations": HERE,
        }
    )

    @property
    def distill_start(self) -> int:
        """The update after which distillation starts."""
        return round(self.updates * self.distill_share)


@dataclass(frozen=True)
class Baseline:
    """How the autoregressive Transformer is trained: the baseline, and the teacher of the distilled data.

    Attributes:
        arch: fairseq's name of the shape.
        shape: options that change the shape.
        updates, tokens, lr, warmup: as in :class:`OnePass`.
        label_smoothing, dropout, weight_decay: as fairseq-train's options of these names.
        beam, lenpen: of the search.
        validations, best: as in :class:`OnePass`; the best by validation loss.
        sources: where each setting comes from, by its name.
    """

    arch: str
    updates: int
    tokens: int
    lr: float
    warmup: int
    dropout: float
    weight_decay: float
    lenpen: float
    sources: Mapping[str, str]
    label_smoothing: float = 0.1
    beam: int = 5
    validations: int = 100
    best: int = 5
    shape: tuple[str, ...] = ()


_WMT14_BASELINE = Baseline(
    arch="transformer", updates=100_000, tokens=25_000, lr=7e-4, warmup=4_000, dropout=0.1, weight_decay=0.0,
    lenpen=0.6,
    sources={
        **dict.fromkeys(("arch", "updates", "tokens", "warmup", "dropout", "weight_decay", "label_smoothing"), VASWANI),
        "lr": f"{VASWANI}: the peak of its schedule, (512 · 4,000)^-0.5",
        "lenpen": f"{WU}; there with beam 4",
        "beam": "beam 5, as in the literature on one-pass translation",
        "validations": HERE, "best": f"{HERE}: as for the one-pass model ({VASWANI}: the last 5)", "shape": HERE,
    },
)  # fmt: skip
_WMT16_BASELINE = Baseline(
    arch="transformer", updates=100_000, tokens=32_768, lr=5e-4, warmup=10_000, dropout=0.3, weight_decay=0.01,
    lenpen=1.0,
    sources={
        **dict.fromkeys(("lr", "warmup", "dropout", "weight_decay", "label_smoothing"), MASK_PREDICT),
        "arch": f"{MASK_PREDICT}: the shape of Transformer base",
        **dict.fromkeys(("updates", "tokens"), f"{HERE}: fewer than Mask-Predict, for one machine"),
        "beam": "beam 5, as in the literature on one-pass translation", "lenpen": "fairseq's default",
        "validations": HERE, "best": MASK_PREDICT, "shape": HERE,
    },
)  # fmt: skip
_IWSLT14_BASELINE = Baseline(
    arch="transformer_iwslt_de_en", updates=50_000, tokens=4_096, lr=5e-4, warmup=4_000, dropout=0.3, weight_decay=1e-4,
    lenpen=1.0,
    sources={
        **dict.fromkeys(("arch", "tokens", "lr", "warmup", "dropout", "weight_decay"), FAIRSEQ_IWSLT),
        "label_smoothing": FAIRSEQ_IWSLT, "beam": FAIRSEQ_IWSLT, "lenpen": "fairseq's default",
        **dict.fromkeys(("updates", "validations"), HERE), "best": f"{HERE}: as for the one-pass model", "shape": HERE,
    },
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One reproduction.

    Attributes:
        name: of the script.
        dataset: as ``nat download`` calls it.
        train_pairs: keep this many training pairs after cleaning (None: all).
        most_pieces: longest side of a training pair in pieces; XLM-R has positions for 511, and a target that is longer
            than the up-sampled source can be teaches nothing.
        shards: into how many parts the decoding of the training source is cut; as many GPUs can work at it.
        batch: tokens of a large batch when translating.
        repeats: how many times the speed with large batches is taken; the median counts.
        greedy: also time the baseline with beam 1.
    """

    name: str
    dataset: str
    source_lang: str
    target_lang: str
    baseline: Baseline
    one_pass: OnePass = OnePass()
    train_pairs: int | None = None
    most_pieces: int = 500
    shards: int = 8
    batch: int = 8192
    repeats: int = 3
    greedy: bool = True


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("wmt14_ende", "wmt14", "en", "de", _WMT14_BASELINE, OnePass(updates=300_000)),
        Recipe("wmt14_deen", "wmt14", "de", "en", _WMT14_BASELINE, OnePass(updates=300_000)),
        Recipe("wmt16_enro", "wmt16", "en", "ro", _WMT16_BASELINE),
        Recipe("wmt16_roen", "wmt16", "ro", "en", _WMT16_BASELINE),
        Recipe("iwslt14_deen", "iwslt14", "de", "en", _IWSLT14_BASELINE),
        Recipe("iwslt14_ende", "iwslt14", "en", "de", _IWSLT14_BASELINE),
    )
}

_TINY_SHAPE = (
    "--encoder-layers", "1", "--decoder-layers", "1", "--encoder-embed-dim", "32", "--decoder-embed-dim", "32",
    "--encoder-ffn-embed-dim", "64", "--decoder-ffn-embed-dim", "64", "--encoder-attention-heads", "2",
    "--decoder-attention-heads", "2",
)  # fmt: skip


def tiny(recipe: Recipe) -> Recipe:
    """The same commands on few pairs with few updates: for tests, and to see in minutes that everything works.

    One checkpoint counts as the best: so early in training BLEU is 0, and of equal results fairseq may keep only one.
    """
    few = {"updates": 8, "tokens": 2048, "warmup": 4, "validations": 4, "best": 1}
    return replace(
        recipe,
        baseline=replace(recipe.baseline, shape=_TINY_SHAPE, **few),  # type: ignore[arg-type]
        one_pass=replace(recipe.one_pass, **few),  # type: ignore[arg-type]
        train_pairs=5000,
        shards=1,
        batch=4096,
        repeats=1,
        greedy=False,
    )
