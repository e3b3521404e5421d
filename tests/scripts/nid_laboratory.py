"""All that a reproduction needs, in small: documents, a base model, clones of the benchmarks, teacher and judge."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

from scripts.nid.recipes import RECIPES
from tests.nid_plugin.evaluation.bench_files import (
    arena_answer,
    arena_config,
    arena_questions,
    arena_settings,
    mt_prompts,
    mt_questions,
    write_lines,
)
from tests.toy_causal_lm import WORDS, make_causal_lm
from tests.toy_teacher import Asked, Reply, answer, completion_of

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "gpt-4-0314"
DOCUMENTS = 16


def write_documents(path: Path) -> Path:
    """Documents of six sentences each."""
    source = random.Random(1)
    sentences = [
        [" ".join(source.choices(WORDS, k=12)).strip(";,").capitalize() + "." for _ in range(6)]
        for _ in range(DOCUMENTS)
    ]
    return write_lines(path, ({"text": " ".join(document)} for document in sentences))


def make_fastchat(folder: Path) -> Path:
    """What is used of ``fastchat/llm_judge/data``."""
    mt_questions(folder / "mt_bench" / "question.jsonl")
    mt_prompts(folder / "judge_prompts.jsonl")
    return folder


def make_arena_hard(clone: Path, *, older: bool = False) -> Path:
    """What is used of a clone of arena-hard-auto; ``older`` ones have one file of configuration."""
    data = clone / "data" / "arena-hard-v0.1"
    arena_questions(data / "question.jsonl")
    write_lines(
        data / "model_answer" / f"{BASELINE}.jsonl", (arena_answer(f"uid-{n}", BASELINE, "Ha!") for n in range(4))
    )
    for name in ("config", "utils"):
        (clone / name).mkdir()
    if older:
        arena_config(clone / "config" / "judge_config.yaml", system_prompt="You judge.")
    else:
        arena_config(clone / "config" / "arena-hard-v0.1.yaml")
        arena_settings(clone / "utils" / "judge_utils.py")
    return clone


def judge(asked: Asked) -> Reply:
    """A verdict on whatever is shown: a rating of 1 to 10, or a label."""
    if "single" in asked.body["messages"][0]["content"]:
        return answer(f"Rating: [[{1 + len(asked.text) % 10}]]")
    return answer(f"[[{('A>B', 'A=B', 'B>>A')[len(asked.text) % 3]}]]")


def teacher(asked: Asked) -> Reply:
    """Goes on with a text."""
    return answer(completion_of(asked.text))


class Laboratory:
    """A reproduction in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.recipe, self.folder, self.work = RECIPES[name], folder, folder / "work"
        self.base = folder / "base"
        self.documents = write_documents(folder / "documents.jsonl")
        self.words = [
            "--work", str(self.work), "--scale", "tiny", "--gpus", "0", "--base", str(self.base),
            "--documents", str(self.documents), "--teacher", "toy-teacher",
        ]  # fmt: skip

    def make_base(self, seed: int = 0) -> None:
        """Write the base model; another seed gives other weights."""
        family = "mistral" if self.recipe.name.startswith("mistral") else "llama"
        chat = self.recipe.pair_format == "chat"
        make_causal_lm(self.base, family=family, chat_template=chat, tied=False, seed=seed)

    @property
    def environment(self) -> dict[str, str]:
        """Of the script."""
        return {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def script_words(self, *options: str) -> list[str]:
        """The script and all its options."""
        return [str(ROOT / "scripts" / "nid" / f"{self.recipe.name}.sh"), *self.words, *options]

    def script(self, *options: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        """Run its shell script as a user does."""
        words = ["bash", *self.script_words(*options)]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False)

    def run(self, *options: str) -> dict[str, str]:
        """Run it; what became of each stage."""
        done = self.script(*options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return actions(done.stdout)


def actions(output: str) -> dict[str, str]:
    """By stage ``done`` or ``skipped``."""
    found = re.findall(r"^\[ *[\d:]+\] ([a-z-]+): (unchanged, skipped|done in)", output, re.M)
    return {name: "done" if what == "done in" else "skipped" for name, what in found}
