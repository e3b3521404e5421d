"""What the reproductions compute: sizes of models, memory, costs; which documents are held out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.completion.prices import Price, read_prices
from nid_plugin.pairs import Pair, read_pairs, write_pairs
from plugin_common.errors import UserError
from scripts.nid import memory, split_pairs
from scripts.nid.costs import completion_dollars, judge_dollars
from scripts.nid.memory import fewest_gpus, need
from scripts.nid.recipes import RECIPES, Shape
from scripts.nid.split_pairs import held_out, prompt_key, split
from scripts.nid.training import updates
from tests.toy_causal_lm import make_causal_lm

# ---- sizes of models -------------------------------------------------------------------------------------------------

PUBLISHED = {
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "mistral_7b": 7_241_732_096,
    "llama3_70b_instruct": 70_553_706_496,
}


def test_models_have_the_published_numbers_of_parameters() -> None:
    assert {name: recipe.shape.weights for name, recipe in RECIPES.items()} == PUBLISHED


def test_a_shape_counts_what_the_model_has(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig

    from nid_plugin.causal_lm import lora, source

    folder = make_causal_lm(tmp_path / "model", tied=False, layers=3)
    config = AutoConfig.from_pretrained(folder)
    shape = Shape(
        config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads,
        config.num_key_value_heads, config.vocab_size,
    )  # fmt: skip
    model = source.load_weights(folder, config, dtype=torch.float32, attention="eager")
    assert sum(p.numel() for p in model.parameters()) == shape.weights
    lora.add_adapters(model, lora.LoraOptions(rank=3))
    trained = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert trained == shape.adapter_weights(3)


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_weights_dominate_and_shrink_as_they_should() -> None:
    shape = RECIPES["llama3_70b"].shape
    whole, packed, shared = (need(shape, how, rank=8, tokens=4096, gpus=8) for how in memory.HOLDINGS)
    assert whole.weights == 2 * shape.weights
    assert 0.26 < packed.weights / whole.weights < 0.3
    assert shared.weights == pytest.approx(
        whole.weights / 8 + 4 * shape.block_weights + 2 * shape.vocabulary * shape.hidden
    )
    assert whole.adapters == packed.adapters == 8 * shared.adapters
    assert whole.activations == packed.activations == shared.activations


def test_one_gpu_shares_nothing() -> None:
    shape = RECIPES["llama2_7b"].shape
    assert need(shape, "sharded", rank=8, tokens=4096, gpus=1) == need(shape, "bf16", rank=8, tokens=4096, gpus=1)


def test_loss_is_bounded() -> None:
    shape = RECIPES["llama3_8b"].shape
    few, many = (need(shape, "bf16", rank=8, tokens=tokens, gpus=1) for tokens in (1000, 1_000_000))
    assert few.loss == 2 * 500 * shape.vocabulary
    assert many.loss == 2 * 2**30


def test_fewest_gpus_are_enough_and_one_less_is_not() -> None:
    recipe = RECIPES["llama3_70b"]
    assert fewest_gpus(recipe, "bf16", 80, 4096) is None
    assert fewest_gpus(recipe, "4bit", 80, 4096) == 1
    for card in (24, 40, 48, 80):
        count = fewest_gpus(recipe, "sharded", card, 4096)
        assert count is not None
        assert count > 1

        def total(gpus: int) -> float:
            return need(recipe.shape, "sharded", rank=8, tokens=4096, gpus=gpus).total

        assert total(count) <= card * 1e9 < total(count - 1)


# ---- costs -----------------------------------------------------------------------------------------------------------


def test_completions_cost_what_the_guide_to_pairs_says() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "user-guide" / "pairs.md").read_text(encoding="utf-8")
    prices = read_prices()
    for model, batch in (("gpt-4-turbo", False), ("gpt-4-turbo", True), ("gpt-3.5-turbo", False)):
        likely, most = completion_dollars(RECIPES["llama2_7b"], prices[model], batch=batch)
        assert f"**${likely:,.0f}**, at most ${most:,.0f}" in text


def test_judging_is_bounded_by_its_tokens() -> None:
    assert judge_dollars("mt-bench", Price(1e6 / 160, 0)) == 2 * 1024 + 1500
    assert judge_dollars("arena-hard", Price(0, 1e6 / 1000)) == 4096


def test_updates_go_through_the_documents_as_often_as_said() -> None:
    recipe = RECIPES["mistral_7b"]
    for documents in (1000, 79_500):
        seen = updates(recipe, documents) * recipe.tuning.tokens
        assert 0 <= seen - 3 * documents * 1130 < recipe.tuning.tokens


# ---- held-out documents ----------------------------------------------------------------------------------------------


def pairs(prompts: list[str], completion: str = "so it goes") -> list[Pair]:
    return [Pair(f"{n:032x}", prompt, completion, "s", "t", "stop") for n, prompt in enumerate(prompts)]


@given(st.lists(st.text(min_size=1), min_size=4, unique=True), st.integers(0, 9), st.randoms())
def test_the_same_documents_are_held_out_in_any_order(prompts: list[str], seed: int, random) -> None:
    shuffled = prompts[:]
    random.shuffle(shuffled)
    kept_back = held_out(prompts, 3, seed)
    assert kept_back == held_out(shuffled, 3, seed)
    assert kept_back <= {prompt_key(prompt, seed) for prompt in prompts}
    assert len(kept_back) == 3


def test_a_split_is_the_file_in_two(tmp_path: Path) -> None:
    prompts = [f"Document {n}" for n in range(30)] + ["Document 7"]  # equal prompts stay on one side
    for name, completion in (("teacher", "so it goes"), ("control", "as it was")):
        write_pairs(str(tmp_path / f"{name}.jsonl"), pairs(prompts[::-1] if name == "control" else prompts, completion))
        counts = split(tmp_path / f"{name}.jsonl", tmp_path / "teacher.jsonl", tmp_path / name, valid=8, seed=1)
        lines = [(tmp_path / name / file).read_bytes().splitlines() for file in ("train.jsonl", "valid.jsonl")]
        assert sorted(lines[0] + lines[1]) == sorted((tmp_path / f"{name}.jsonl").read_bytes().splitlines())
        assert (counts.train, counts.valid) == (len(lines[0]), len(lines[1]))
        train, valid = (
            {pair.prompt for pair in read_pairs(str(tmp_path / name / f"{part}.jsonl"))} for part in ("train", "valid")
        )
        assert len(valid) == 8
        assert not train & valid
    held = [
        {pair.prompt for pair in read_pairs(str(tmp_path / name / "valid.jsonl"))} for name in ("teacher", "control")
    ]
    assert held[0] == held[1]


def test_another_seed_holds_out_others(tmp_path: Path) -> None:
    assert held_out(map(str, range(50)), 10, 1) != held_out(map(str, range(50)), 10, 2)


def test_splits_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pairs.jsonl"
    write_pairs(str(file), pairs(["a", "b", "c"]))
    with pytest.raises(UserError, match=r"--valid 4: .*pairs.jsonl has 3 different prompts; give less"):
        split(file, file, tmp_path / "out", valid=4, seed=1)
    with pytest.raises(UserError, match=r"no pair is left for train.jsonl, of 3 in all"):
        split(file, file, tmp_path / "out", valid=3, seed=1)
    write_pairs(str(tmp_path / "others.jsonl"), pairs(["d", "e"]))
    with pytest.raises(UserError, match=r"no pair is left for valid.jsonl"):
        split(tmp_path / "others.jsonl", file, tmp_path / "out", valid=1, seed=1)
    assert not (tmp_path / "out").exists()
    assert split_pairs.main([str(file), "--valid", "1", "--out", str(tmp_path / "out")]) == 0
    assert "2 pairs to train on, 1 held out" in capsys.readouterr().out
    assert split_pairs.main([str(file), "--valid", "1", "--out", str(tmp_path / "out")]) == 1
    assert "got files in the meantime" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        split_pairs.main([str(file), "--valid", "0", "--out", "x"])
