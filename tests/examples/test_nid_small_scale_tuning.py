"""The second half of the example: the teacher fine-tuned on what it wrote, scored, reported."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.nid_small_scale import run, score_models, tuning_results
from examples.nid_small_scale.score_models import BASE, named, perplexities
from examples.nid_small_scale.sizes import SIZES
from examples.nid_small_scale.steps import stages
from examples.nid_small_scale.tuning_results import (
    as_markdown,
    change,
    curve,
    draw,
    findings,
    in_words,
    measured,
)
from examples.nid_small_scale.tuning_steps import PAIRS, RATES, checkpoint, runs, tuning_stages
from plugin_common.errors import UserError
from scripts.nid import split_pairs
from tests.commands import Runner
from tests.test_documented_commands import PARSERS
from tests.toy_causal_lm import make_causal_lm, toy_pairs, write_toy_pairs
from tests.toy_sft import TASK, TRAIN

ROOT = Path(__file__).resolve().parents[2]
SMALL = SIZES["small"]


# ---- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_command_is_understood(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nid_plugin
    from nid_plugin.cli import NID

    nid_plugin.register()
    seen = []
    for stage in tuning_stages(SIZES[size], tmp_path):
        for command in stage.commands:
            words = [*command.words, *command.how]
            monkeypatch.setattr(sys, "argv", words)
            if words[0] == "nid":
                NID.make_parser(words[1]).parse_args(words[1:])
            elif words[0] == "fairseq-train":
                args: Any = PARSERS[words[0]]()
                assert args.max_tokens * args.update_freq[0] == 2048
                assert (args.max_update, args.bf16, args.cpu) == (SIZES[size].updates, True, True)
                seen.append((args.tuning, Path(args.train_pairs).stem, args.seed))
            elif words[0] == "python":
                name = Path(words[1]).name
                module = {"split_pairs.py": split_pairs, "score_models.py": score_models}[name]
                module.make_parser().parse_args(words[2:])  # type: ignore[attr-defined]
            else:
                assert words[0] in ("cat", "find")
    assert seen == [(run.tuning, f"train_{run.data}", run.seed) for run in runs(SIZES[size])]


def test_trainings_differ_in_one_thing_each() -> None:
    assert [one.name for one in runs(SMALL)] == [
        "lora-teacher-1", "lora-second-half-1", "full-teacher-1", "full-second-half-1",
        "lora-teacher-2", "lora-second-half-2", "full-teacher-2", "full-second-half-2",
    ]  # fmt: skip
    assert SMALL.pairs - SMALL.held_out == 280


def test_each_stage_finds_its_inputs(tmp_path: Path) -> None:
    made: set[Path] = set()
    for stage in [*stages(SMALL, tmp_path, cache=tmp_path, download=False), *tuning_stages(SMALL, tmp_path)]:
        for path in stage.inputs:
            assert path.exists() or path in made or made & set(path.parents), path
        assert not made & set(stage.outputs)
        made |= set(stage.outputs)


def test_a_dry_run_of_each_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, there, missing in (
        ("pairs", "nid complete", "fairseq-train"), ("tuning", "fairseq-train", "nid complete"),
    ):  # fmt: skip
        assert run.main(["--size", "tiny", "--work", str(tmp_path / "work"), "--part", part, "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert there in text
        assert missing not in text
    assert not (tmp_path / "work").exists()


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert named([f"x={tmp_path / 'a'}"], "--model") == {"x": tmp_path / "a"}
    with pytest.raises(UserError, match=r"(?s)2 problems.*--model y: expected NAME=FILE.*--model z=gone: expected"):
        named(["y", "z=gone"], "--model")


OPTIONS = ["--precision", "fp32", "--generate", "3", "--max-tokens", "7"]


def test_scores_are_transformers_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_causal_lm(tmp_path / "base")
    sets = [
        f"{name}={write_toy_pairs(tmp_path / f'{name}.jsonl', 5, seed)}" for seed, name in enumerate(("one", "two"))
    ]
    words = ["--base", str(base), "--held-out", *sets, "--out", str(tmp_path / "out"), *OPTIONS]
    assert score_models.main(words) == 0
    before = json.loads((tmp_path / "out" / f"{BASE}.json").read_text(encoding="utf-8"))
    for seed, kind in enumerate(("one", "two")):
        expected, found = transformers_nats(base, seed), before["scores"][kind]
        assert [score["tokens"] for score in found] == [tokens for _, tokens in expected]
        assert [score["nats"] for score in found] == pytest.approx([nats for nats, _ in expected], rel=1e-4)
    assert [len(before["completions"][way]) for way in score_models.WAYS] == [3, 3]
    assert "before: perplexity of held-out completions: one " in capsys.readouterr().out
    stamp = (tmp_path / "out" / f"{BASE}.json").stat().st_mtime_ns
    assert score_models.main(words) == 0
    assert (tmp_path / "out" / f"{BASE}.json").stat().st_mtime_ns == stamp
    assert score_models.main([*words, "--model", f"{BASE}={tmp_path / 'one.jsonl'}"]) == 1
    assert "is the name of the base model" in capsys.readouterr().err


@pytest.mark.slow
def test_scores_of_a_checkpoint(run: Runner, tmp_path: Path) -> None:
    base, pairs = make_causal_lm(tmp_path / "base"), write_toy_pairs(tmp_path / "one.jsonl", 5, 0)
    run(
        "fairseq-train", tmp_path, *TASK, *TRAIN, "--model", base, "--pair-format", "chat", "--train-pairs", pairs,
        "--disable-validation", "--max-update", "8", "--save-dir", tmp_path / "save", "--no-epoch-checkpoints",
    )  # fmt: skip
    tuned = f"tuned={tmp_path / 'save' / 'checkpoint_last.pt'}"
    words = ["--base", str(base), "--model", tuned, "--held-out", f"one={pairs}", "--out", str(tmp_path / "out")]
    assert score_models.main([*words, *OPTIONS]) == 0
    values = {name: perplexities(tmp_path / "out" / f"{name}.json")["one"] for name in (BASE, "tuned")}
    assert values["tuned"] < 0.9 * values[BASE]  # it was trained on these


def transformers_nats(folder: Path, seed: int) -> list[tuple[float, int]]:
    """−log p and number of tokens of each completion with its end token, after the chat template, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for pair in toy_pairs(5, seed):
        asked = [{"role": "user", "content": pair.prompt}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer(f"{pair.completion}<|im_end|>", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*start, *answer]])
        with torch.no_grad():
            log_probs = model(ids).logits[0].log_softmax(-1)
        nats = -sum(float(log_probs[place - 1, ids[0, place]]) for place in range(len(start), ids.size(1)))
        found.append((nats, len(answer)))
    return found


# ---- results ---------------------------------------------------------------------------------------------------------


def scores_of(nats: list[float], tokens: list[int]) -> dict[str, list[dict[str, float]]]:
    return {kind: [{"nats": n, "tokens": t} for n, t in zip(nats, tokens, strict=True)] for kind in PAIRS}


def test_a_change_is_that_of_nats_a_token_averaged_over_seeds() -> None:
    scores = {BASE: scores_of([10, 20, 30], [5, 10, 15]), "a": scores_of([9, 18, 27], [5, 10, 15]),
              "b": scores_of([7, 14, 21], [5, 10, 15])}  # fmt: skip
    found = change(scores, ["a", "b"], "teacher")
    assert found["nats"] == pytest.approx((48 - 60) / 30)
    assert found["low"] == found["high"] == pytest.approx(-0.4)  # each document's nats a token fall by 0.4
    assert in_words(found) == f"become more probable (perplexity × {math.exp(-0.4):.2f})"


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12))
def test_the_interval_is_about_the_change(differences: list[float]) -> None:
    tokens = [10] * len(differences)
    scores = {BASE: scores_of([20.0] * len(differences), tokens), "a": scores_of([20 + d for d in differences], tokens)}
    found = change(scores, ["a"], "teacher")
    assert min(differences) / 10 - 1e-9 <= found["low"] <= found["high"] <= max(differences) / 10 + 1e-9
    assert found["nats"] == pytest.approx(sum(differences) / sum(tokens), abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "nats", "said"),
    [(-0.1, 0.1, 0.0, "show no change"), (0.1, 0.3, 0.2, "become less probable"), (-0.3, -0.1, -0.2, "become more")],
)
def test_a_change_in_words(low: float, high: float, nats: float, said: str) -> None:
    assert in_words({"low": low, "high": high, "nats": nats}).startswith(said)


def test_curves_are_read_from_logs(tmp_path: Path) -> None:
    line = (
        "2026 | INFO | valid_{0} | epoch 001 | valid on 'valid_{0}' subset | loss 1.5 | nll_loss {1} | ppl 2 | "
        "wps 34 | num_updates {2}\n"
    )
    text = line.format("teacher", 1.0, 4) + line.format("second-half", 3.0, 4) + line.format("teacher", 2.0, 8)
    (tmp_path / "log").write_text(text + "other\n" + line.format("teacher", 0.0, 8))  # the last one counts
    assert curve(tmp_path / "log") == {"teacher": [(4, 2.0), (8, 1.0)], "second-half": [(4, 8.0)]}


def test_what_was_written_is_measured() -> None:
    found = measured(["One two three.", "As an AI language model, I have no taste."], [True, False])
    assert found == {"texts": 2, "words": 6.0, "cut": 1, "talk": 1}


def some_results() -> dict[str, Any]:
    names = [BASE, *(one.name for one in runs(SMALL))]
    own = {way: ["a <b> | c", "d"] for way in score_models.WAYS} | {
        f"cut {way}": [False, True] for way in score_models.WAYS
    }
    return {
        "pairs": {kind: {"train": 280, "held_out": 40} for kind in PAIRS}, "tokens": dict.fromkeys(PAIRS, 1000),
        "rates": RATES, "updates": 48,
        "perplexity": {name: {"teacher": 2.0, "second-half": 9.0} for name in names},
        "change": {
            f"{tuning} on {data}": {kind: {"nats": -0.1, "low": -0.2, "high": -0.05} for kind in PAIRS}
            for tuning in RATES for data in PAIRS
        },
        "curves": {name: {kind: [(24, 2.5), (48, 2.0)] for kind in PAIRS} for name in names[1:]},
        "writing": {name: {way: measured(own[way], own[f"cut {way}"]) for way in score_models.WAYS} for name in names},
        "prompts": ["first prompt", "second prompt"], "completions": dict.fromkeys(names, own),
    }  # fmt: skip


def test_the_page_and_the_figure(tmp_path: Path) -> None:
    found = some_results()
    page = as_markdown(SMALL, found, [1])
    assert "SmolLM2-135M-**Instruct**, and it is the teacher, too" in page
    assert page.count("| nothing (before) | 2.00 | 9.00 |") == 2
    assert page.count("| the teacher's completions | 2.00 (2.00, 2.00) | 9.00 (9.00, 9.00) |") == 2
    assert len(findings(found)) == 4
    assert all(f"- {line}" in page for line in findings(found))
    assert "second prompt" in page
    assert "first prompt" not in page  # may not be shown
    assert "- **before**: d" in page.partition("### Prompt 2")[2]
    draw(SMALL, found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_checkpoints_lie_where_the_trainings_put_them(tmp_path: Path) -> None:
    by_name: dict[str, Callable[..., Any] | Any] = {stage.name: stage for stage in tuning_stages(SMALL, tmp_path)}
    for one in runs(SMALL):
        words = by_name[one.name].commands[0].words
        assert checkpoint(one, tmp_path).parent == Path(words[words.index("--save-dir") + 1])
    assert tuning_results.KINDS.keys() == PAIRS.keys()
