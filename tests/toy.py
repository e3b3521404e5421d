"""A toy language pair that a tiny model learns in seconds: source words ``w0 … w29``, target words ``W0 … W29``."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands import PLUGIN, Runner

WORDS = 30
POSITIONS = 48
"""Longest input of the toy models, ``<s>`` included: 47 up-sampled positions."""

LINES = {"train": 603, "valid": 53, "test": 29}
"""Lines of each split; none a multiple of 8."""

TASK = ("--user-dir", PLUGIN, "--task", "ctc_nat", "--cpu")
SHAPE = (
    "--arch", "ctc_pmlm_tiny", "--encoder-layers", "1", "--encoder-embed-dim", "64", "--encoder-ffn-embed-dim", "128",
    "--encoder-attention-heads", "2", "--encoder-positions", str(POSITIONS),
)  # fmt: skip
OPTIMIZER = ("--optimizer", "adam", "--lr", "2e-3", "--lr-scheduler", "fixed")
LOGS = ("--log-format", "simple", "--log-interval", "1000")
TRAIN = ("--criterion", "ctc_nat_loss", *OPTIMIZER, *LOGS, "--disable-validation")


def translate(line: str) -> str:
    """The right translation of a toy sentence."""
    return line.replace("w", "W")


def sentences(count: int, seed: int) -> list[str]:
    """Toy source sentences of 1 to 8 words; no neighbours are equal, so that ratio 1 suffices."""
    generator = random.Random(seed)
    made = []
    for _ in range(count):
        words = [generator.randrange(WORDS)]
        for _ in range(generator.randrange(8)):
            words.append((words[-1] + generator.randrange(1, WORDS)) % WORDS)
        made.append(" ".join(f"w{word}" for word in words))
    return made


LEXICON = {
    "house": "Haus", "file": "Datei", "window": "Fenster", "open": "öffnen", "close": "schließen", "green": "grün",
    "red": "rot", "the": "die", "and": "und", "not": "nicht", "delete": "löschen", "user": "Benutzer", "new": "neu",
    "password": "Passwort", "forgotten": "vergessen", "today": "heute",
}  # fmt: skip


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of plain text with punctuation, translated word by word."""
    generator = random.Random(seed)
    made = []
    for _ in range(count):
        words = generator.sample(sorted(LEXICON), generator.randint(1, 4))
        end = generator.choice([".", "!", ""])
        made.append((" ".join(words) + end, " ".join(LEXICON[word] for word in words) + end))
    return made


@dataclass(frozen=True)
class Corpus:
    """Files ``train.en``, ``train.de``, … and ``dict.txt`` in a folder."""

    folder: Path

    def write(self, split: str, source: Sequence[str], target: Sequence[str]) -> None:
        """Write both sides of a split."""
        for language, lines in (("en", source), ("de", target)):
            (self.folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def preprocess(self, run: Runner, splits: Sequence[str] = ("train", "valid", "test"), name: str = "bin") -> Path:
        """Run fairseq-preprocess; the data-bin folder."""
        options = [word for split in splits for word in (f"--{split}pref", split)]
        run(
            "fairseq-preprocess", "--source-lang", "en", "--target-lang", "de", "--srcdict", "dict.txt",
            "--tgtdict", "dict.txt", *options, "--destdir", name, cwd=self.folder,
        )  # fmt: skip
        return self.folder / name


def new_corpus(folder: Path) -> Corpus:
    """An empty corpus: the dictionary alone."""
    folder.mkdir(exist_ok=True)
    words = [f"{letter}{i}" for i in range(WORDS) for letter in "wW"]
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in [*words, "<mask>"]))
    return Corpus(folder)


def toy_dictionary() -> Any:
    """The toy's fairseq dictionary: ``<s> <pad> </s> <unk> w0 W0 w1 W1 … <mask>``."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for i in range(WORDS):
        dictionary.add_symbol(f"w{i}")
        dictionary.add_symbol(f"W{i}")
    dictionary.add_symbol("<mask>")
    return dictionary


@dataclass(frozen=True)
class Toy:
    """The toy corpus, its data-bin, and a training on it: 14 epochs, every epoch's checkpoint, and its log."""

    folder: Path

    @property
    def bin(self) -> Path:
        """The data-bin."""
        return self.folder / "bin"

    @property
    def best(self) -> Path:
        """The best checkpoint: translates without an error."""
        return self.folder / "run" / "checkpoint_best.pt"

    @property
    def log(self) -> str:
        """What the training printed."""
        return (self.folder / "train.log").read_text()

    def read(self, name: str) -> list[str]:
        """The lines of a corpus file such as ``test.en``."""
        return (self.folder / name).read_text().split("\n")[:-1]


@dataclass(frozen=True)
class Pieces:
    """The whole way with a PMLM folder: made from scratch, text tokenised with it, a model trained from it."""

    folder: Path

    @property
    def pmlm(self) -> Path:
        """A copy of the PMLM folder; the one that training read is deleted."""
        return self.folder / "pmlm"

    @property
    def bin(self) -> Path:
        """The data-bin."""
        return self.folder / "bin"

    @property
    def checkpoint(self) -> Path:
        """The trained model."""
        return self.folder / "run" / "checkpoint_best.pt"

    @property
    def test(self) -> list[tuple[str, str]]:
        """The test set as plain text."""
        return texts(20, 3)
