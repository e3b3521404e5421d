"""The six reproductions' recipes and every command line that they run, as the programs' own parsers understand them."""

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_common.stages import Command
from scripts.nat import clean, drop_long, hypotheses
from scripts.nat.options import parser
from scripts.nat.pipeline import Choices, speed_commands, stages, workspace
from scripts.nat.recipes import RECIPES, Baseline, OnePass, tiny
from scripts.nat.training import Machine, validation_line
from tests.test_documented_commands import PARSERS

ROOT = Path(__file__).resolve().parents[2]
GPUS = Machine(gpus=8, gpu_tokens=4096, workers=2, precision="fp16")
CPU = Machine(gpus=0, gpu_tokens=12288, workers=2, precision="bf16")


def choices(name: str, *, machine: Machine = GPUS, small: bool = False, **more: Any) -> Choices:
    recipe = tiny(RECIPES[name]) if small else RECIPES[name]
    return Choices(recipe, ROOT / "runs" / "test", machine, "FacebookAI/xlm-roberta-base", **more)


def parsed(command: Command, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the program's own parser makes of the command."""
    import nat_plugin
    from nat_plugin import scoring
    from nat_plugin.cli import make_parser

    nat_plugin.register()
    words = [*command.words, *command.how]
    monkeypatch.setattr(sys, "argv", words)
    result = PARSERS[words[0]]() if words[0] in PARSERS else None
    if result is not None:
        assert isinstance(result, argparse.Namespace)
        return result
    if words[0] == "nat":
        return make_parser().parse_args(words[1:])
    if words[0] == "cat":
        return argparse.Namespace(files=words[1:])
    assert words[0] == "python"
    if words[1:3] == ["-m", "nat_plugin.scoring"]:
        return scoring._parser().parse_args(words[3:])
    module = {"clean.py": clean, "drop_long.py": drop_long, "hypotheses.py": hypotheses}[Path(words[1]).name]
    return _arguments_of(module.main, words[2:], monkeypatch)


def _arguments_of(main: Callable[..., int], words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What ``main`` parses, without what it does."""

    class Parsed(BaseException):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, given: Any = None, namespace: Any = None) -> Any:
        raise Parsed(parse(self, given, namespace))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        with pytest.raises(Parsed) as caught:
            main(words)
    return caught.value.args[0]


SHIPPED = [
    *(pytest.param(choices(name), id=name) for name in RECIPES),
    pytest.param(choices("wmt16_roen", data="raw", machine=CPU), id="raw on a CPU"),
    pytest.param(choices("iwslt14_deen", data="mixed", small=True, machine=CPU), id="mixed, tiny"),
]


@pytest.mark.parametrize("chosen", SHIPPED)
def test_every_command_parses(chosen: Choices, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for stage in stages(chosen):
        for command in stage.commands:
            try:
                seen[stage.name] = parsed(command, monkeypatch)
            except SystemExit:
                pytest.fail(f"{stage.name}: {command.line()}")
    processes = max(1, chosen.machine.gpus)
    recipe = chosen.recipe
    one_pass, baseline = seen["nat-train"], seen["at-train"]
    for args, settings in ((one_pass, recipe.one_pass), (baseline, recipe.baseline)):
        assert args.max_tokens <= chosen.machine.gpu_tokens
        tokens = args.max_tokens * args.update_freq[0] * processes
        assert abs(tokens - settings.tokens) <= processes * args.update_freq[0]
        assert (args.lr, args.warmup_updates, args.max_update) == ([settings.lr], settings.warmup, settings.updates)
        assert (args.dropout, args.weight_decay) == (settings.dropout, settings.weight_decay)
        assert args.keep_best_checkpoints == settings.best
        assert (args.cpu, args.bf16, args.fp16) == (
            (True, True, False) if not chosen.machine.gpus else (False, False, True)
        )
        assert settings.updates / args.validate_interval_updates >= settings.best
    assert one_pass.distill_start_update / one_pass.max_update == 0.75
    assert seen["nat-average"].best == recipe.one_pass.best
    assert seen["at-generate"].like.name == f"test.{recipe.target_lang}"


def test_the_one_pass_model_is_trained_as_the_paper_says(monkeypatch: pytest.MonkeyPatch) -> None:
    train = next(stage for stage in stages(choices("iwslt14_deen")) if stage.name == "nat-train")
    args = parsed(train.commands[0], monkeypatch)
    assert (args.task, args.arch, args.criterion) == ("ctc_nat", "ctc_pmlm", "embedding_distillation")
    assert (args.optimizer, args.adam_betas, args.lr_scheduler) == ("adam", "(0.9, 0.98)", "inverse_sqrt")
    assert (args.lr, args.warmup_updates, args.weight_decay, args.dropout) == ([2e-4], 10_000, 0.01, 0.1)
    assert args.max_tokens * args.update_freq[0] * 8 == 12_288
    assert (args.max_update, args.distill_start_update) == (100_000, 75_000)
    assert (args.upsampler, args.upsample_ratio, args.mask_placement) == ("mask_insertion", 2.0, "uniform")
    assert args.random_positions is True
    assert args.teacher == args.pmlm == args.pmlm_tokenizer
    assert (args.eval_bleu, args.best_checkpoint_metric, args.maximize_best_checkpoint_metric) == (True, "bleu", True)
    assert args.keep_best_checkpoints == 5


def test_wmt14_trains_three_times_as_long() -> None:
    updates = {name: recipe.one_pass.updates for name, recipe in RECIPES.items()}
    assert updates == {name: 300_000 if name.startswith("wmt14") else 100_000 for name in RECIPES}
    assert RECIPES["wmt14_ende"].one_pass.distill_start == 225_000


@pytest.mark.parametrize("kind", [OnePass, Baseline])
@pytest.mark.parametrize("name", RECIPES)
def test_each_setting_has_its_source(name: str, kind: type) -> None:
    settings = RECIPES[name].one_pass if kind is OnePass else RECIPES[name].baseline
    fields = {field.name for field in dataclasses.fields(kind)} - {"sources"}
    assert settings.sources.keys() == fields
    assert all(settings.sources.values())


def test_a_script_for_each_recipe() -> None:
    scripts = {path.stem: path for path in (ROOT / "scripts" / "nat").glob("*.sh")}
    assert scripts.keys() == RECIPES.keys()
    for name, path in scripts.items():
        assert os.access(path, os.X_OK)
        assert f'reproduce.py" {name} "$@"' in path.read_text(encoding="utf-8")
        source, target = name[-4:-2], name[-2:]
        assert (RECIPES[name].source_lang, RECIPES[name].target_lang) == (source, target)
        assert RECIPES[name].dataset == name.partition("_")[0]


def test_no_two_stages_write_the_same_and_inputs_come_from_earlier_ones() -> None:
    for data in ("distilled", "raw", "mixed"):
        chosen = choices("iwslt14_ende", data=data)
        made: set[Path] = set()
        for stage in stages(chosen):
            for path in stage.inputs:
                assert any(path.is_relative_to(out) or out.is_relative_to(path) for out in made), (stage.name, path)
            for path in stage.outputs:
                assert not any(path.is_relative_to(out) or out.is_relative_to(path) for out in made), (stage.name, path)
            made |= set(stage.outputs)


def test_variants_share_all_but_what_comes_from_their_data() -> None:
    plain, raw = (choices("iwslt14_ende", data=data) for data in ("distilled", "raw"))
    outputs = [{path for stage in stages(c) for path in stage.outputs} for c in (plain, raw)]
    shared = {path.relative_to(plain.work).parts[0] for path in outputs[0] & outputs[1]}
    assert shared == {"raw", "clean", "pmlm", "pieces", "data-bin", "at"}
    assert {stage.key for stage in stages(raw)} - {stage.key for stage in stages(plain)} == {
        "nat-train-raw", "nat-average-raw", "nat-generate-raw", "score-raw", "speed-raw",
    }  # fmt: skip


def test_what_leaves_the_result_alone_is_no_part_of_the_fingerprint() -> None:
    here = choices("wmt16_enro")
    there = dataclasses.replace(
        here, machine=dataclasses.replace(GPUS, gpus=2, gpu_tokens=2000, workers=9),
        mirror="https://mirror.example", archives=Path("/a"),
    )  # fmt: skip
    for a, b in zip(stages(here), stages(there), strict=True):
        assert [c.words for c in a.commands] == [c.words for c in b.commands], a.name
        assert workspace(here).fingerprint(a)["commands"] == workspace(there).fingerprint(b)["commands"]


def test_speed_is_taken_in_rounds() -> None:
    names = [command.output.name for command in speed_commands(choices("iwslt14_deen")) if command.output]
    assert names[:4] == ["nat.one.1.log", "at-beam5.one.1.log", "at-beam1.one.1.log", "nat.large.1.log"]
    assert len(names) == len(set(names)) == 12


def test_options_are_added_to_the_commands_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"nat-train": ["--lr", "1e-3"], "at-generate": ["--beam", "4"], "clean": ["--deduplicate"]}
    by_name = {stage.name: stage for stage in stages(choices("wmt16_roen", extra=extra))}
    assert parsed(by_name["nat-train"].commands[0], monkeypatch).lr == [1e-3]
    assert parsed(by_name["at-generate"].commands[0], monkeypatch).beam == 4
    assert "--beam" not in by_name["at-generate"].commands[1].words
    assert parsed(by_name["clean"].commands[0], monkeypatch).deduplicate is True


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "2026-01-01 00:00:00 | INFO | valid | epoch 003 | valid on 'valid' subset | loss 7.275 | infeasible 25 | "
            "bleu 14.34 | wps 2392 | num_updates 1486 | best_bleu 15",
            "update 1,486: validation loss 7.275, BLEU 14.34",
        ),
        (
            "2026-01-01 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 8.379 | nll_loss 8 | num_updates 2",
            "update 2: validation loss 8.379",
        ),
        ("train_inner | epoch 001:  2 / 5 loss=8, num_updates=2", None),
    ],
)
def test_validations_are_what_is_shown_of_a_training(line: str, shown: str | None) -> None:
    assert validation_line(line) == shown


# ---- the guide ---


def guide() -> str:
    return (ROOT / "docs" / "user-guide" / "reproduce.md").read_text(encoding="utf-8")


def test_the_guide_shows_the_recipes() -> None:
    text = guide()
    baselines = [RECIPES[name].baseline for name in ("wmt14_ende", "wmt16_enro", "iwslt14_deen")]
    rows: dict[str, Callable[[Baseline], str]] = {
        "`--arch`": lambda b: b.arch,
        "updates": lambda b: f"{b.updates:,}",
        "tokens an update": lambda b: f"{b.tokens:,}",
        "learning rate, warm-up": lambda b: f"{b.lr:g}, {b.warmup:,}",
        "dropout": lambda b: f"{b.dropout:g}",
        "weight decay": lambda b: f"{b.weight_decay:g}",
        "label smoothing": lambda b: f"{b.label_smoothing:g}",
        "beam, length penalty": lambda b: f"{b.beam}, {b.lenpen:g}",
    }
    for name, show in rows.items():
        assert f"| {name} | {' | '.join(show(baseline) for baseline in baselines)} |" in text


def test_the_guide_knows_all_options_and_stages() -> None:
    text = guide()
    for action in parser()._actions:
        for option in set(action.option_strings) - {"-h", "--help"}:
            assert f"`{option}" in text, option
    for stage in stages(choices("wmt16_enro")):
        assert f"`{stage.name}`" in text, stage.name
    shown = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert len(shown) == 3
    for line in shown:
        path, *options = line.split()
        assert (ROOT / path).is_file()
        assert parser().parse_args([Path(path).stem, *options]).reproduction in RECIPES


# ---- the command itself ----------------------------------------------------------------------------------------------


def script(*options: object, name: str = "iwslt14_deen") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    words = ["bash", str(ROOT / f"scripts/nat/{name}.sh"), *map(str, options)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_dry_run_tells_everything_and_does_nothing(tmp_path: Path) -> None:
    done = script("--dry-run", "--gpus", 0, "--work", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "work").exists()
    for stage in stages(choices("iwslt14_deen")):
        assert f" {stage.name}: {stage.purpose}\n   run: not run yet\n     $ " in done.stdout
    assert f"$ nat download iwslt14 --source-lang de --target-lang en --output {tmp_path}/work/raw" in done.stdout


def test_a_part_of_the_stages(tmp_path: Path) -> None:
    done = script("--dry-run", "--gpus", 0, "--work", tmp_path / "work", "--from", "clean", "--until", "tokenize")
    assert [line.split()[1] for line in done.stdout.splitlines() if line[:2].strip().isdigit()] == [
        "clean:", "prune:", "tokenize:",
    ]  # fmt: skip


def test_all_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = script(
        "--gpus", "x", "--precision", "fp8", "--data", "new", "--seed", "-1", "--scale", "huge", "--set", "lr",
        "--redo", "nap", "--from", "score", "--until", "clean", "--pmlm", "./none", "--mirror", "none",
        "--checksums", tmp_path / "none", "--work", tmp_path, "--gpu-tokens", 0, "--speed",
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for text in (
        "--gpus x: expected a whole number, 0 or more", "--precision fp8: expected one of fp16, bf16, fp32",
        "--data new: expected one of distilled, raw, mixed", "--seed -1:", "--scale huge: expected one of full, tiny",
        "--set lr: expected STAGE.OPTION=VALUE", "--redo nap: no such stage; there are download, clean,",
        "--pmlm ./none: no such folder", "--mirror none: no such folder", "none: no such file", "--gpu-tokens 0:",
        f"--work {tmp_path}: holds files that no reproduction made", "--speed: no such option",
    ):  # fmt: skip
        assert text in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "0", "--precision", "fp16"), "--precision fp16: only for GPUs; on the CPU give bf16 or fp32"),
        (("--gpus", "99"), "--gpus 99: "),
        (("--from", "score", "--until", "clean"), "--until clean: comes before --from score"),
        (("--until", "clean", "--redo", "score"), "--redo score: is left out by --from or --until"),
        (("--data", "raw", "--set", "distill.beam=4"), "--set distill: no such stage"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], message: str) -> None:
    done = script("--gpus", "0", *options, "--dry-run")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_failed_download_names_stage_and_log(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    done = script("--gpus", 0, "--work", tmp_path / "work", "--mirror", tmp_path / "mirror", "--scale", "tiny")
    assert done.returncode == 1
    assert "stage download: nat ended with status 1" in done.stderr
    assert "de-en.tgz" in done.stderr
    assert f"the whole log: {tmp_path}/work/logs/download.log" in done.stderr
    assert "Traceback" not in done.stderr
