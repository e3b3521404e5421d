"""The reproductions' command line: dry runs, what it refuses, what it leaves alone; and the guide about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugin_common.errors import UserError
from scripts.nid.costs import RATE
from scripts.nid.memory import CARDS, need, operations
from scripts.nid.options import parser, request
from scripts.nid.pipeline import stages
from scripts.nid.recipes import RECIPES, Data, Tuning
from scripts.nid.training import updates
from tests.scripts.nid_laboratory import BASELINE, Laboratory, make_arena_hard, teacher
from tests.scripts.test_nid_reproduction_commands import CONTROLS, choices, clones, parsed
from tests.toy_teacher import toy_teacher

ROOT = Path(__file__).resolve().parents[2]
__all__ = ["clones"]  # a fixture


# ---- the command itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_tells_everything_and_does_nothing(name: str, clones: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    options = ["--dry-run", "--gpus", "8", "--work", str(tmp_path / "work"), *clones]
    done = subprocess.run(
        ["bash", str(ROOT / f"scripts/nid/{name}.sh"), *options],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "work").exists()
    for stage in stages(choices(name, *clones)):
        assert f" {stage.name}: {stage.purpose}\n   run: not run yet\n     $ " in done.stdout
    for told in (
        "data: 80,000 documents", "gpt-4-turbo about $1,808, at most $2,910", "4,113 updates", "LoRA rank 8",
        "memory, computed for", "smallest numbers of GPUs", "GPU hours", "as the paper does not give them",
        "judge: gpt-4 on mt-bench: 160 judgments", "--tasks openllm --batch_size auto", "# vllm serve",
        f"--model {RECIPES[name].base} ", "--sample 80000",
    ):  # fmt: skip
        assert told in done.stdout, told


def test_all_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    wrong = [
        "mistral_7b", "--gpus", "x", "--precision", "fp8", "--control", "half", "--seed", "-1", "--scale", "huge",
        "--set", "lr", "--base", "./none", "--mt-bench", str(tmp_path), "--arena-hard", str(tmp_path), "--nodes", "0",
        "--launch", "mpi", "--weights", "2bit", "--gpu-tokens", "9", "--max-cost", "much", "--judge-max-cost", "0",
        "--teacher-url", "localhost", "--work", str(tmp_path), "--speed", "--redo", "nap",
    ]  # fmt: skip
    with pytest.raises(UserError) as caught:
        request(wrong)
    for text in (
        "--gpus x: expected a whole number, 0 or more", "--precision fp8: expected one of bf16, fp32",
        "--control half: expected one of none, second-half, filtered, subset-N", "--seed -1:", "--scale huge: expected",
        "--set lr: expected STAGE.OPTION=VALUE", "--base ./none: no such folder", "has no mt_bench/question.jsonl",
        "has no judge_prompts.jsonl", "has no config/arena-hard-v0.1.yaml", "has no utils/judge_utils.py",
        f"{BASELINE}.jsonl: no such file", "--nodes 0:", "--launch mpi: expected one of fairseq, torchrun, slurm",
        "--weights 2bit: expected one of bf16, 4bit, sharded", "--gpu-tokens 9: expected a whole number, 4096 or more",
        "--max-cost much: expected dollars", "--judge-max-cost 0: expected dollars", "--speed: no such option",
        "--teacher-url localhost: expected http://", f"--work {tmp_path}: holds files that no reproduction made",
        "--redo nap: no such stage; there are documents, complete, audit",
    ):  # fmt: skip
        assert text in str(caught.value), text
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "0", "--launch", "torchrun"), "--launch torchrun: is for GPUs"),
        (("--gpus", "0", "--weights", "4bit"), "--weights 4bit: is for GPUs"),
        (("--gpus", "8", "--nodes", "2"), "--nodes 2: only --launch slurm starts processes on several machines"),
        (("--gpus", "99"), "--gpus 99: "),
        (("--gpus", "0", "--control", "subset-80000"), "there are 79,500 pairs to train on"),
        (("--gpus", "0", "--set", "judge-mt-bench.seed=2"), "--set judge-mt-bench: no such stage"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], message: str) -> None:
    dry = () if options[:2] == ("--gpus", "99") else ("--dry-run",)
    with pytest.raises(UserError, match=message):
        request(["llama3_8b", *dry, *options])


def test_older_clones_of_arena_hard_keep_all_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choices("mistral_7b", "--arena-hard", str(make_arena_hard(tmp_path / "arena", older=True)))
    judge = next(stage for stage in stages(chosen) if stage.name == "judge-arena-hard")
    assert parsed(judge.commands[0], monkeypatch).judge_prompts == [str(tmp_path / "arena/config/judge_config.yaml")]


def test_pairs_are_made_and_then_left_alone(tmp_path: Path) -> None:
    laboratory = Laboratory("llama2_7b", tmp_path)
    laboratory.base.mkdir()
    until = ("--until", "complete")
    with toy_teacher(teacher) as server:
        options = ("--teacher-url", server.base_url, *until)
        assert laboratory.run(*options) == {"documents": "done", "complete": "done"}
        assert len(server.asked) == 12
        assert laboratory.run(*options) == {"documents": "skipped", "complete": "skipped"}
        assert len(server.asked) == 12
    planned = laboratory.script("--control", "second-half", "--dry-run").stdout
    assert planned.count("   skip: done ") == 2
    assert " control: the documents' own second halves as completions\n   run: not run yet" in planned


# ---- the guide -------------------------------------------------------------------------------------------------------


def test_the_guide_knows_all_options_and_stages(clones: list[str]) -> None:
    text = (ROOT / "docs" / "user-guide" / "reproduce-nid.md").read_text(encoding="utf-8")
    for action in parser()._actions:
        for option in set(action.option_strings) - {"-h", "--help"}:
            assert f"`{option}" in text, option
    for control in CONTROLS:
        for stage in stages(choices("llama3_8b", "--control", control, "--lm-eval", "openllm", *clones)):
            assert f"`{stage.name.removesuffix('-base')}`" in text, stage.name
    for name in RECIPES:
        assert f"`{name}`" in text
    shown = [line[2:] for line in text.splitlines() if line.startswith("$ scripts/nid/")]
    assert len(shown) >= 3
    for line in shown:
        path, *options = line.split()
        assert (ROOT / path).is_file()
        assert parser().parse_args([Path(path).stem, *options]).reproduction in RECIPES


def test_the_guide_shows_what_is_computed() -> None:
    text = (ROOT / "docs" / "user-guide" / "reproduce-nid.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if " GB |" in line]
    assert len(rows) == 8
    for names, holding, gigabytes, card, hours in rows:
        for name in names.split(", "):
            recipe = RECIPES[name]
            gpus = int(holding.rpartition(" ")[2]) if "over" in holding else 1
            own = need(recipe.shape, holding.partition(",")[0], rank=8, tokens=recipe.gpu_tokens, gpus=gpus)
            tokens = updates(recipe, 79_500) * recipe.tuning.tokens
            assert gigabytes == f"{own.total / 1e9:.0f}"
            assert card == f"{min(size for size in CARDS if own.total <= size * 1e9)} GB"
            assert hours == f"{operations(recipe, tokens) / RATE / 3600:.0f}"
    tuning, data = Tuning(), Data()
    for name, value in (
        ("documents", f"{data.documents:,}"), ("held out", f"{data.held_out:,}"), ("LoRA alpha", f"{tuning.alpha:g}"),
        ("longest completion", f"{data.max_tokens:,} tokens"), ("epochs", f"{tuning.epochs:g}"),
        ("LoRA rank", f"{tuning.rank}, all linear layers of the blocks"),
        ("learning rate", f"{tuning.lr:g}, cosine to 0, {100 * tuning.warmup:g} % warm-up"),
    ):  # fmt: skip
        assert f"| {name} | {value} |" in text
