"""Folders of both benchmarks for a judge to work on."""

from pathlib import Path

import pytest

from tests.nid_plugin.evaluation.bench_files import (
    MT_FIRST,
    Bench,
    arena_answer,
    arena_config,
    arena_questions,
    arena_settings,
    mt_answer,
    mt_prompts,
    mt_questions,
    write_lines,
)


@pytest.fixture
def mt(tmp_path: Path) -> Bench:
    """Model ``loud`` answers with 4 and 5 exclamation marks, ``base`` with 3 and 3."""
    bench = Bench(tmp_path, "mt-bench")
    mt_questions(tmp_path / "question.jsonl")
    mt_prompts(tmp_path / "judge_prompts.jsonl")
    for model, turns in (("loud", ("Ha!!!!", "Ho!!!!!")), ("base", ("Ha!!!", "Ho!!!"))):
        write_lines(bench.answers / f"{model}.jsonl", (mt_answer(MT_FIRST + n, model, turns) for n in range(8)))
    return bench


@pytest.fixture
def arena(tmp_path: Path) -> Bench:
    """Model ``loud`` answers with 1 exclamation mark more than the category's baseline, ``mute`` with none."""
    bench = Bench(tmp_path, "arena-hard")
    arena_questions(tmp_path / "question.jsonl", 6, ("hard_prompt", "creative_writing"))
    arena_config(tmp_path / "arena-hard-v2.0.yaml")
    arena_settings(tmp_path / "judge_utils.py")
    for model, text in (("base", "Ha!!"), ("poet", "Ho!!"), ("loud", "Hi!!!"), ("mute", "No")):
        write_lines(bench.answers / f"{model}.jsonl", (arena_answer(f"uid-{n}", model, text) for n in range(6)))
    return bench
