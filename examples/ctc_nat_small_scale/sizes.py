"""How large a reproduction is: one setting that decides text, models and training."""

from dataclasses import dataclass

DIRECTIONS = ("de-en", "en-de", "ro-en", "en-ro")


@dataclass(frozen=True)
class Text:
    """What is read.

    Attributes:
        source: ``debian`` (the mirror) or ``sample`` (the small corpus in the repository).
        packages: of Debian, with catalogues; none: the whole list of ``debian_l10n.py``.
        manuals: of Debian, with monolingual prose; None: the whole list of ``debian_text.py``.
        train_pairs: most pairs of a language pair to train on, or None.
        held_out: pairs of validation, and of test.
        most_words: pairs with a longer side are left out of all three splits, or None.
    """

    source: str
    packages: tuple[str, ...] = ()
    manuals: tuple[str, ...] | None = None
    train_pairs: int | None = None
    held_out: int = 2000
    most_words: int | None = None


@dataclass(frozen=True)
class Shape:
    """Of the masked LM, which is the one-pass model too; the baseline has the same width and heads."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    ffn: int
    baseline_layers: int  # of its encoder, and of its decoder


@dataclass(frozen=True)
class Pretraining:
    """Masked LM: an update sees ``tokens`` tokens in blocks of ``block``."""

    updates: int
    tokens: int
    block: int
    lr: float
    warmup: int
    dropout: float
    mask: float = 0.15  # share of the tokens to be predicted


@dataclass(frozen=True)
class Training:
    """Of translation, the same for the one-pass model and its baseline: ``tokens`` of the longer side an update."""

    updates: int
    tokens: int
    lr: float
    warmup: int
    dropout: float
    validations: int
    distill_start: float  # share of the updates without distillation
    weight_decay: float = 0.01
    label_smoothing: float = 0.1  # of the baseline
    best: int = 5  # checkpoints averaged


@dataclass(frozen=True)
class Size:
    """All of it.

    Attributes:
        seeds: of the rows that carry a main claim in the directions of ``every_row``; elsewhere the first one only.
        every_row: directions in which all rows are trained; in the others those that carry the main claims.
    """

    name: str
    purpose: str
    text: Text
    shape: Shape
    pretraining: Pretraining
    training: Training
    seeds: tuple[int, ...]
    every_row: tuple[str, ...] = ("de-en",)


TINY_PACKAGES = ("gettext", "bash", "nano", "wget", "tar", "dpkg", "apt", "grep", "sed", "findutils", "nautilus-data")

SIZES = {
    size.name: size
    for size in (
        Size(
            "tiny",
            "all stages and rows in minutes on a CPU; the scores mean nothing",
            Text("sample", TINY_PACKAGES, ("debian-faq",), train_pairs=4000, held_out=200, most_words=16),
            Shape(2000, 2, 64, 2, 256, baseline_layers=1),
            Pretraining(100, 1024, 64, 2e-3, 30, 0.1),
            Training(100, 1000, 3e-3, 40, 0.1, validations=5, distill_start=0.75),
            seeds=(1,),
        ),
        Size(
            "cpu",
            "a few hours on two cores",
            Text("debian", most_words=16),
            Shape(6000, 4, 256, 4, 1024, baseline_layers=3),
            Pretraining(4000, 2048, 64, 2e-3, 200, 0.0, mask=0.3),
            Training(800, 2800, 1e-3, 300, 0.1, validations=8, distill_start=0.75),
            seeds=(1, 2),
        ),
        Size(
            "small",
            "half an hour on a GPU, or a night on a CPU",
            Text("debian", most_words=32),
            Shape(8000, 4, 256, 4, 1024, baseline_layers=3),
            Pretraining(6000, 8192, 128, 2e-3, 500, 0.1, mask=0.3),
            Training(1500, 4096, 1e-3, 400, 0.1, validations=15, distill_start=0.75),
            seeds=(1, 2, 3),
        ),
        Size(
            "full",
            "hours on a GPU",
            Text("debian"),
            Shape(16000, 6, 512, 8, 2048, baseline_layers=6),
            Pretraining(40_000, 32_768, 256, 1e-3, 4000, 0.1, mask=0.3),
            Training(30_000, 12_288, 5e-4, 4000, 0.2, validations=60, distill_start=0.75),
            seeds=(1, 2, 3),
            every_row=DIRECTIONS,
        ),
    )
}
