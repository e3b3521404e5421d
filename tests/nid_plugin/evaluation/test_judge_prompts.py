"""Judge prompts from files in the layouts of both projects."""

import os
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.evaluation.judge_prompts import read_arena_prompts, read_mt_bench_prompts
from plugin_common.errors import UserError
from tests.nid_plugin.evaluation.bench_files import LABEL_PATTERNS, arena_config, arena_settings, mt_prompts


def test_mt_bench(tmp_path: Path) -> None:
    path = str(mt_prompts(tmp_path / "p.jsonl"))
    single = read_mt_bench_prompts([path], "single")
    assert single.of("writing", 1).name == "single-v1" and single.of("math", 2).name == "single-math-v1-multi-turn"
    filled = single.of("coding", 1).fill(question="{answer}", ref_answer_1="T", answer="{0} }{")
    assert filled == "Q {answer}\nR T\nS {0} }{"  # texts go in as they stand
    assert read_mt_bench_prompts([path], "pairwise").of("reasoning", 1).name == "pair-math-v1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, 'prompt "pair-v2": is missing'),
        ({"type": "single"}, "its type is 'single', not \"pairwise\""),
        ({"output_format": "[[rating_a,rating_b]]"}, 'not "[[A]]"'),
        ({"system_prompt": None}, 'has no text "system_prompt"'),
        ({"prompt_template": "{question} {answer_a}"}, "its template lacks {answer_b}"),
        ({"prompt_template": "{question} {answer_a} {answer_b} {judge}"}, "its template has {judge}"),
        ({"prompt_template": "{question {answer_a}"}, "its template is malformed"),
    ],
)
def test_bad_prompts_of_mt_bench(change: Any, message: str, tmp_path: Path) -> None:
    path = mt_prompts(tmp_path / "p.jsonl", **{"pair-v2": change})
    with pytest.raises(UserError) as raised:
        read_mt_bench_prompts([str(path)], "pairwise")
    assert message in str(raised.value) and "expected data/judge_prompts.jsonl of FastChat" in str(raised.value)
    read_mt_bench_prompts([str(path)], "single")  # the other mode needs none of it


def test_files_of_the_other_benchmark(tmp_path: Path) -> None:
    config, prompts = arena_config(tmp_path / "c.yaml"), mt_prompts(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="MT-Bench takes one file"):
        read_mt_bench_prompts([str(config)], "single")
    with pytest.raises(UserError, match="is neither YAML nor Python"):
        read_arena_prompts([str(prompts)])


def test_arena_hard_2(tmp_path: Path) -> None:
    paths = [str(arena_config(tmp_path / "c.yaml")), str(arena_settings(tmp_path / "judge_utils.py"))]
    found = read_arena_prompts(paths)
    assert "NEVER_RUN" not in os.environ
    assert (found.temperature, found.max_tokens) == (0.0, 16000)
    assert [pattern.pattern for pattern in found.patterns] == LABEL_PATTERNS
    assert (found.baseline("hard_prompt"), found.baseline("creative_writing")) == ("base", "poet")
    prompt = found.of("hard_prompt")
    assert prompt is not None and prompt.system == "You judge rivers."
    assert prompt.fill(QUESTION="q", ANSWER_A="a", ANSWER_B="b") == "Q q\nA a\nB b"
    assert found.of("arena-hard-v0.1") is None and found.baseline("arena-hard-v0.1") is None


def test_arena_hard_1(tmp_path: Path) -> None:
    path = arena_config(
        tmp_path / "judge_config.yaml",
        regex_patterns="left out",
        regex_pattern=LABEL_PATTERNS[0],
        system_prompt="You judge all.",
        baseline_model="old",
        prompt_template=["Q {question_1} 1 {answer_1} 2 {answer_2}"],
    )
    found = read_arena_prompts([str(path)])
    prompt = found.of("any")
    assert prompt is not None and prompt.fill(QUESTION="q", ANSWER_A="a", ANSWER_B="b") == "Q q 1 a 2 b"
    assert (prompt.system, found.baseline("any")) == ("You judge all.", "old")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_template": "left out"}, "no prompt_template"),
        ({"prompt_template": ["a", "b"]}, "no prompt_template (one text)"),
        ({"prompt_template": "{QUESTION} {ANSWER_A}"}, "lacks {ANSWER_B}"),
        ({"regex_patterns": "left out"}, "no regex_patterns"),
        ({"regex_patterns": ["[A"]}, "is none"),
        ({"regex_patterns": [r"A|B"]}, "needs one group"),
        ({"regex_patterns": [3]}, "is none"),
        ({"temperature": "warm"}, "temperature is 'warm', no number"),
    ],
)
def test_bad_configurations_of_arena_hard(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    paths = [str(arena_config(tmp_path / "c.yaml", **changes)), str(arena_settings(tmp_path / "s.py"))]
    with pytest.raises(UserError) as raised:
        read_arena_prompts(paths)
    assert message in str(raised.value)


def test_no_system_prompt_and_broken_files(tmp_path: Path) -> None:
    config = str(arena_config(tmp_path / "c.yaml"))
    with pytest.raises(UserError, match="no system prompt"):
        read_arena_prompts([config])
    (tmp_path / "b.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "e.py").write_text("JUDGE_SETTINGS = {'a': {}}", encoding="utf-8")
    (tmp_path / "l.yaml").write_text("- a", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        read_arena_prompts([str(tmp_path / name) for name in ("b.yaml", "e.py", "l.yaml", "none.yaml")])
    for part in ("4 problems", "not valid YAML", "has no JUDGE_SETTINGS", "a YAML mapping is expected", "no such file"):
        assert part in str(raised.value)
