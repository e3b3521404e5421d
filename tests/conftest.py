"""What is dear to make (data-bin, trained checkpoints) is made once a test session, whatever the number of workers."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.commands import Runner
from tests.toy import (
    LINES,
    LOGS,
    OPTIMIZER,
    POSITIONS,
    SHAPE,
    TASK,
    TRAIN,
    Corpus,
    Pieces,
    Toy,
    new_corpus,
    sentences,
    texts,
    toy_dictionary,
    translate,
)

settings.register_profile("shared machine", deadline=None)  # how long an example takes says nothing there
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """pytest resets the filters by which the plugin silences notices of libraries."""
    for module in (r"hydra\..*", r"fairseq\..*", r"_pytest\..*", r"pluggy\..*"):
        config.addinivalue_line("filterwarnings", f"ignore::UserWarning:{module}")
    config.addinivalue_line("filterwarnings", "ignore:'pin_memory' argument:UserWarning")


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
