"""A toy language pair that a tiny model learns in seconds, and a way to run commands on it.

Source words ``w0 … w29`` translate to ``W0 … W29``, one by one. What is dear to make (data-bin, a trained checkpoint)
is made once a test session, whatever the number of pytest-xdist workers.
"""

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = str(ROOT / "nat_plugin")
SCRIPTS = Path(sys.executable).parent
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


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def log(self) -> str:
        """Both streams (fairseq-train logs to standard output, warnings may go to either)."""
        return self.stdout + self.stderr

    def lines(self, kind: str) -> dict[int, str]:
        """What stands behind ``H-3<tab>`` and its like, by sentence number, in the order printed."""
        found = (line.split("\t", 1) for line in self.stdout.split("\n") if line.startswith(f"{kind}-"))
        return {int(name[len(kind) + 1 :]): rest for name, rest in found}

    def translations(self) -> dict[int, str]:
        """The text of the H- lines."""
        return {number: rest.split("\t", 1)[1] for number, rest in self.lines("H").items()}

    def error(self) -> str:
        """Standard error of a command that has to end in a plain message: no success, no traceback."""
        assert self.status not in (0, None), f"no error: {self.stdout[-2000:]}"
        assert self.status > 0, f"killed by signal {-self.status}: {self.log[-2000:]}"
        assert "Traceback" not in self.log, self.log[-4000:]
        return self.stderr


class Runner:
    """Runs commands of this environment; those of fairseq in warm forks (see ``warm_commands.py``)."""

    WARM = ("fairseq-train", "fairseq-generate", "fairseq-interactive", "fairseq-validate", "fairseq-preprocess")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._server: subprocess.Popen[str] | None = None

    def __call__(
        self,
        *command: str | Path,
        input: str | bytes = b"",
        expect: int | None = 0,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        fresh: bool = False,
    ) -> Finished:
        """Run ``command``; its exit status has to be ``expect`` unless that is None.

        ``fresh`` starts an interpreter of its own for fairseq's commands, too.
        """
        words = tuple(map(str, command))
        given = input.encode() if isinstance(input, str) else input
        warm = words[0] in self.WARM and not fresh
        status, stdout, stderr = (self._run_warm if warm else self._run)(words, given, cwd or self.folder, env or {})
        finished = Finished(words, status, stdout, stderr)
        if expect is not None:
            assert status == expect, f"exit status {status} of {' '.join(words)}\n{finished.log[-6000:]}"
        return finished

    def _run(self, words: Sequence[str], given: bytes, cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
        done = subprocess.run(
            words, input=given, cwd=cwd, env={**self.env, **env}, capture_output=True, timeout=150, check=False
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def _run_warm(self, words: Sequence[str], given: bytes, cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
        if self._server is None:
            with (self.folder / "server.log").open("w") as log:
                self._server = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("warm_commands.py"))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=self.env,
                )
        assert self._server.stdin is not None and self._server.stdout is not None
        streams = {name: self.folder / name for name in ("stdin", "stdout", "stderr")}
        for path in streams.values():
            path.write_bytes(given if path.name == "stdin" else b"")
        argv = [str(SCRIPTS / words[0]), *words[1:]]
        order = {"argv": argv, "cwd": str(cwd), "env": env, **{name: str(path) for name, path in streams.items()}}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return status, streams["stdout"].read_bytes().decode(), streams["stderr"].read_bytes().decode()

    def close(self) -> None:
        """End the warm process."""
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(timeout=20)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs commands; see :class:`Runner`."""
    runner = Runner(tmp_path_factory.mktemp("commands"))
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once(name, make)``: a folder that ``make(folder)`` fills, made by one worker and shared by all."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / f"shared-{name}"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                unfinished = shared / f"unfinished-{name}"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return get


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """pytest-xdist's name of this worker, ``master`` without it."""
    return getattr(request.config, "workerinput", {}).get("workerid", "master")


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


@pytest.fixture(scope="session")
def toy(run: Runner, once: Callable[..., Path]) -> Toy:
    """The toy corpus with empty lines in all splits, preprocessed and learned."""

    def make(folder: Path) -> None:
        corpus = new_corpus(folder)
        for seed, (split, count) in enumerate(LINES.items()):
            source = sentences(count, seed)
            target = [translate(line) for line in source]
            source[3] = target[3] = ""  # both sides empty
            target[7] = ""  # a source without translation
            if split == "train":
                source[11] = ""  # a translation without source: no alignment can carry it
            corpus.write(split, source, target)
        corpus.preprocess(run)
        done = run(
            "fairseq-train", "bin", *TASK, *SHAPE, "--dropout", "0", "--criterion", "ctc_nat_loss", *OPTIMIZER, *LOGS,
            "--max-tokens", "300", "--max-epoch", "14", "--save-dir", "run", "--no-last-checkpoints", "--eval-bleu",
            "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--keep-last-epochs", "2",
            cwd=folder, fresh=True,
        )  # fmt: skip
        (folder / "train.log").write_text(done.log)

    return Toy(once("toy", make))


@dataclass
class Training:
    """What ``fairseq-train`` sets up before its first update, in this process."""

    cfg: Any
    task: Any
    model: Any
    criterion: Any
    trainer: Any

    def epoch(self, number: int = 1, update_freq: int = 1) -> Iterator[list[Any]]:
        """The lists of batches that each update of an epoch gets."""
        from fairseq.data import iterators

        epoch_iterator = self.trainer.get_train_iterator(number)
        batches = epoch_iterator.next_epoch_itr(shuffle=False)
        return iter(iterators.GroupedIterator(batches, update_freq))


@pytest.fixture(scope="session")
def set_up_training() -> Callable[..., Training]:
    """``set_up_training(data_bin, *options)``: see :class:`Training`."""

    def set_up(data: Path, *words: str) -> Training:
        from fairseq import options, tasks, utils
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf
        from fairseq.trainer import Trainer

        import nat_plugin

        nat_plugin.register()
        parser = options.get_training_parser()
        command = [str(data), *TASK[2:], *SHAPE, *TRAIN, "--max-tokens", "300", "--num-workers", "0", *words]
        cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, command))
        utils.set_torch_seed(cfg.common.seed)
        task = tasks.setup_task(cfg.task)
        model = task.build_model(cfg.model)
        criterion = task.build_criterion(cfg.criterion)
        return Training(cfg, task, model, criterion, Trainer(cfg, task, model, criterion))

    return set_up


@pytest.fixture(scope="session")
def load_models() -> Callable[..., tuple[list[Any], Any]]:
    """``load_models(data_bin, path, …, options=()) -> (models, task)``, as fairseq-generate loads them."""

    def load(data: Path, *paths: Path, options: Sequence[str] = ()) -> tuple[list[Any], Any]:
        from fairseq import checkpoint_utils, tasks
        from fairseq import options as fairseq_options
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        import nat_plugin

        nat_plugin.register()
        words = [str(data), *TASK[2:], "--path", ":".join(map(str, paths)), *options]
        args = fairseq_options.parse_args_and_arch(fairseq_options.get_generation_parser(), words)
        task = tasks.setup_task(convert_namespace_to_omegaconf(args).task)
        models, _ = checkpoint_utils.load_model_ensemble([str(path) for path in paths], task=task)
        return [model.eval() for model in models], task

    return load


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


@pytest.fixture(scope="session")
def pieces(run: Runner, once: Callable[..., Path]) -> Pieces:
    """Plain text of two languages and what is made of it, see :class:`Pieces`."""

    def make(folder: Path) -> None:
        from nat_plugin.cli import main

        raw = Corpus(folder / "raw")
        raw.folder.mkdir()
        for split, count, seed in (("train", 400, 1), ("valid", 30, 2), ("test", 20, 3)):
            raw.write(split, *zip(*texts(count, seed), strict=True))
        pmlm, tokens = folder / "pmlm", folder / "tokens"
        corpus = [str(raw.folder / f"train.{language}") for language in ("en", "de")]
        shape = ["--layers", "1", "--width", "64", "--heads", "2", "--ffn", "128", "--max-positions", "64"]
        assert main(["prepare-pmlm", "--from-scratch", "--vocab-size", "120", "--corpus", *corpus, *shape,
                     "--output", str(pmlm)]) == 0  # fmt: skip
        splits = [word for split in ("train", "valid", "test") for word in (f"--{split}pref", str(raw.folder / split))]
        assert main(["tokenize", "--pmlm", str(pmlm), "--source-lang", "en", "--target-lang", "de", *splits,
                     "--destdir", str(tokens), "--workers", "1"]) == 0  # fmt: skip
        shutil.copy(pmlm / "dict.txt", tokens)
        Corpus(tokens).preprocess(run).rename(folder / "bin")
        shutil.copytree(pmlm, folder / "only for training")
        done = run(
            "fairseq-train", "bin", *TASK, "--arch", "ctc_pmlm", "--pmlm", "only for training", "--dropout", "0",
            "--attention-dropout", "0", "--criterion", "ctc_nat_loss", *OPTIMIZER, *LOGS, "--max-tokens", "400",
            "--max-epoch", "16", "--save-dir", "run", "--eval-bleu", "--pmlm-tokenizer", "pmlm",
            "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric", "--no-epoch-checkpoints",
            cwd=folder,
        )  # fmt: skip
        (folder / "train.log").write_text(done.log)
        shutil.rmtree(folder / "only for training")

    return Pieces(once("pieces", make))


def toy_dictionary() -> Any:
    """The toy's fairseq dictionary: ``<s> <pad> </s> <unk> w0 W0 w1 W1 … <mask>``."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for i in range(WORDS):
        dictionary.add_symbol(f"w{i}")
        dictionary.add_symbol(f"W{i}")
    dictionary.add_symbol("<mask>")
    return dictionary


@pytest.fixture(scope="session")
def new_model() -> Callable[..., tuple[Any, Any]]:
    """``new_model(**options) -> (model, task)``: an untrained toy model, in evaluation mode; options as on the line."""

    def make(*, seed: int = 0, task_options: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
        import torch
        from omegaconf import OmegaConf

        import nat_plugin

        nat_plugin.register()
        from nat_plugin.models.ctc_pmlm import CtcPmlmConfig
        from nat_plugin.tasks.ctc_nat import CtcNatConfig, CtcNatTask

        shape = {
            "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 2,
            "encoder_positions": POSITIONS, "random_init": True,
        }  # fmt: skip
        cfg = OmegaConf.structured(CtcPmlmConfig(**{**shape, **options}))
        OmegaConf.update(cfg, "_name", options.get("_name", "ctc_pmlm"), force_add=True)
        dictionary = toy_dictionary()
        task = CtcNatTask(CtcNatConfig(**(task_options or {})), dictionary, dictionary)
        torch.manual_seed(seed)
        return task.build_model(cfg).eval(), task

    return make
