"""The five reproductions' plans: every command line, as the programs' own parsers understand it; options; the guide."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.cli import NID
from plugin_common.stages import Command
from scripts.nid import split_pairs
from scripts.nid.choices import Choices, Control
from scripts.nid.options import request
from scripts.nid.pipeline import HOW, stages, training_data, workspace
from scripts.nid.recipes import RECIPES, Data, Tuning
from scripts.nid.training import validation_line
from tests.scripts.nid_laboratory import BASELINE, make_arena_hard, make_fastchat
from tests.test_documented_commands import PARSERS

ROOT = Path(__file__).resolve().parents[2]
CONTROLS = ("none", "second-half", "filtered", "subset-1000")


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name small clones of the benchmarks."""
    folder = tmp_path_factory.mktemp("clones")
    fastchat, arena = make_fastchat(folder / "fastchat"), make_arena_hard(folder / "arena")
    return ["--mt-bench", str(fastchat), "--arena-hard", str(arena)]


def choices(name: str, *options: str) -> Choices:
    given = ["--gpus", "8", "--dry-run", "--work", str(ROOT / "runs" / "test-nid")]
    return request([name, *given, *options]).choices


def parsed(command: Command, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the program's own parser makes of the command."""
    import nid_plugin

    words = [*command.words, *command.how]
    if words[0] == "nid":
        return NID.make_parser(words[1]).parse_args(words[1:])
    if words[0] in PARSERS:
        nid_plugin.register()
        monkeypatch.setattr(sys, "argv", words)
        result = PARSERS[words[0]]()
        assert isinstance(result, argparse.Namespace)
        return result
    if words[0] == "cat":
        return argparse.Namespace(files=words[1:])
    assert Path(words[1]) == Path(split_pairs.__file__)
    return split_pairs.make_parser().parse_args(words[2:])


PLANS = [
    *((name, ()) for name in RECIPES),
    *(("mistral_7b", ("--control", control)) for control in CONTROLS),
    ("llama3_70b", ("--weights", "sharded", "--launch", "slurm", "--nodes", "4")),
    ("llama3_8b", ("--launch", "torchrun", "--merged", "--batch", "--max-cost", "2000")),
    ("llama3_70b_instruct", ("--answers-url", "http://localhost:8000/v1", "--judge", "toy")),
    ("llama2_7b", ("--gpus", "0", "--scale", "tiny")),
]


@pytest.mark.parametrize(("name", "options"), PLANS, ids=[" ".join((n, *o)) for n, o in PLANS])
def test_every_command_parses(
    name: str, options: tuple[str, ...], clones: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choices(name, *clones, *options)
    seen: dict[str, argparse.Namespace] = {}
    for stage in stages(chosen):
        for command in stage.commands:
            try:
                seen[stage.name] = parsed(command, monkeypatch)
            except SystemExit:
                pytest.fail(f"{stage.name}: {command.line()}")
    recipe, train = chosen.recipe, seen["train"]
    tuning, data = recipe.tuning, recipe.data
    assert (train.task, train.arch, train.criterion) == ("completion_sft", "hf_causal_lm", "completion_cross_entropy")
    assert (train.tuning, train.lora_rank, train.lora_targets, train.bf16) == ("lora", 8, "all-linear", True)
    assert train.pair_format == recipe.pair_format == ("chat" if "instruct" in name else "plain")
    assert train.model == chosen.base
    processes = chosen.machine.spread(recipe).processes
    tokens = train.max_tokens * train.update_freq[0] * processes
    assert abs(tokens - tuning.tokens) <= processes * train.update_freq[0]
    assert tuning.longest <= train.max_tokens <= chosen.machine.gpu_tokens
    assert train.warmup_updates < train.max_update
    assert (seen["documents"].sample, seen["complete"].max_tokens) == (data.documents, data.max_tokens)
    assert (seen["split"].valid, seen["split"].like) == (data.held_out, chosen.pairs)
    assert seen["judge-arena-hard"].baseline == BASELINE
    assert seen["judge-mt-bench"].models == [seen["answer-mt-bench"].model_id] == [chosen.model_id]
    assert seen["answer-mt-bench-base"].model_id == recipe.base_id
    assert len(seen) == len(stages(chosen))


def test_the_data_has_the_papers_size_and_the_adapters_its_rank() -> None:
    for recipe in RECIPES.values():
        assert recipe.data.documents == 80_000
        assert recipe.tuning.rank == 8
    assert {name for name, recipe in RECIPES.items() if recipe.holding == "4bit"} == {
        "llama3_70b", "llama3_70b_instruct",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [Tuning, Data])
def test_each_setting_has_its_source(kind: type) -> None:
    for recipe in RECIPES.values():
        settings: Any = recipe.tuning if kind is Tuning else recipe.data
        assert settings.sources.keys() == {field.name for field in dataclasses.fields(kind)} - {"sources"}
        assert all(settings.sources.values())


def test_a_script_for_each_recipe() -> None:
    scripts = {path.stem: path for path in (ROOT / "scripts" / "nid").glob("*.sh")}
    assert scripts.keys() == RECIPES.keys()
    for name, path in scripts.items():
        assert os.access(path, os.X_OK)
        assert f'reproduce.py" {name} "$@"' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("control", CONTROLS)
def test_inputs_come_from_earlier_stages(control: str, clones: list[str]) -> None:
    chosen = choices("llama3_8b", "--control", control, *clones)
    made: set[Path] = set()
    for stage in stages(chosen):
        for path in stage.inputs:
            there = any(path.is_relative_to(out) or out.is_relative_to(path) for out in made)
            assert there or path.is_file(), (stage.name, path)
        for path in stage.outputs:
            assert not any(path.is_relative_to(out) or out.is_relative_to(path) for out in made), (stage.name, path)
        made |= set(stage.outputs)
    folder, train = training_data(chosen)
    assert all(any(path.is_relative_to(out) for out in made) for path in (folder, train))


def test_models_and_controls_share_what_was_paid_for(clones: list[str]) -> None:
    """Stages of the same name and variant are the same; others have folders of their own."""
    known: dict[str, tuple] = {}
    owners: dict[Path, str] = {}
    plans = [choices(name, "--control", control, *clones) for name in RECIPES for control in CONTROLS]
    for chosen in plans:
        for stage in stages(chosen):
            words = tuple(command.words for command in stage.commands)
            assert known.setdefault(stage.key, words) == words, stage.key
            for path in stage.outputs:
                assert owners.setdefault(path, stage.key) == stage.key, path
    assert sum(key.startswith("complete-") for key in known) == 1
    assert sum(key.startswith("train-") for key in known) == len(plans)
    assert sum(key.startswith("judge-mt-bench-base-") for key in known) == len(RECIPES)


def test_what_leaves_the_result_alone_is_no_part_of_the_fingerprint(clones: list[str]) -> None:
    here = choices("mistral_7b", *clones)
    there = choices(
        "mistral_7b", *clones, "--gpus", "2", "--gpu-tokens", "5000", "--launch", "torchrun", "--max-cost", "7",
        "--teacher-url", "http://localhost:1/v1", "--batch", "--judge-url", "http://localhost:2/v1",
        "--judge-max-cost", "3", "--set", "complete.concurrency=3", "--set", "train.log-interval=7",
        "--set", "judge-mt-bench.timeout=9", "--set", "answer-arena-hard-base.batch-size=1",
    )  # fmt: skip
    for a, b in zip(stages(here), stages(there), strict=True):
        assert workspace(here).fingerprint(a)["commands"] == workspace(there).fingerprint(b)["commands"], a.name


def test_every_option_that_counts_as_how_is_one_of_its_command(
    clones: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = {stage.name: stage for stage in stages(choices("llama3_8b", *clones))}
    for name, options in HOW.items():
        args = parsed(by_name[name].commands[0], monkeypatch)
        for option in options:
            assert hasattr(args, option.removeprefix("no-").replace("-", "_")), (name, option)


def test_launchers() -> None:
    def train(*options: str) -> str:
        return (
            next(stage for stage in stages(choices("llama3_8b", *options)) if stage.name == "train").commands[0].line()
        )

    assert train().startswith("fairseq-train ")
    assert "--distributed-world-size 8" in train()
    torchrun = train("--launch", "torchrun")
    assert torchrun.startswith("torchrun --standalone --nproc-per-node 8 --no-python fairseq-train ")
    assert "--distributed" not in torchrun
    slurm = train("--launch", "slurm", "--nodes", "2")
    assert slurm.startswith("srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 fairseq-train ")
    assert "--distributed-world-size 16 --distributed-port 29500" in slurm
    assert "--cpu" in train("--gpus", "0")
    assert "--quantize 4bit" in train("--weights", "4bit")
    assert "--shard-model" in train("--weights", "sharded")


def test_answers_fit_the_model(clones: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    most = {}
    for name in ("llama2_7b", "mistral_7b"):
        by_name = {stage.name: stage for stage in stages(choices(name, *clones))}
        for bench in ("mt-bench", "arena-hard"):
            most[name, bench] = parsed(by_name[f"answer-{bench}"].commands[0], monkeypatch).max_tokens
    assert most == {
        ("llama2_7b", "mt-bench"): 1024, ("llama2_7b", "arena-hard"): 2048,
        ("mistral_7b", "mt-bench"): 1024, ("mistral_7b", "arena-hard"): 4096,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "control"),
    [("none", Control()), ("subset-12", Control("subset", 12)), ("subset-0", None), ("subset-", None), ("half", None)],
)
def test_names_of_controls(text: str, control: Control | None) -> None:
    assert Control.from_text(text) == control


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "2026-01-01 | INFO | valid | epoch 003 | valid on 'valid' subset | loss 2.275 | nll_loss 2.275 | "
            "ppl 4.84 | wps 2392 | num_updates 1486 | best_loss 2.1",
            "update 1,486: held-out loss 2.275 bits a token, perplexity 4.84",
        ),
        ("train_inner | epoch 001:  2 / 5 loss=8, num_updates=2", None),
    ],
)
def test_validations_are_what_is_shown_of_a_training(line: str, shown: str | None) -> None:
    assert validation_line(line) == shown
