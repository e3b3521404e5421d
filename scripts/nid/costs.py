"""What a reproduction costs: dollars for teacher and judges, memory of GPUs, time; told before anything is done."""

from collections.abc import Iterator

from nid_plugin.completion.prices import Price, price_of, read_prices
from scripts.nid.choices import Benchmark, Choices
from scripts.nid.memory import CARDS, HOLDINGS, fewest_gpus, need, operations
from scripts.nid.recipes import DOCUMENT_TOKENS, Recipe
from scripts.nid.training import updates

RATE = 4e14
"""Operations a second of a GPU: 40 % of what an H100 does in bf16. Assumed."""
JUDGED = {"mt-bench": 80 * 2, "arena-hard": 500 * 2}
"""Judgments of a model: 80 questions of two turns; 500 questions in both orders."""
JUDGE_MOST = {"mt-bench": (2 * 1024 + 1500, 2048), "arena-hard": (2 * 4096 + 1500, 4096)}
"""Most tokens of prompt and of answer of a judgment: answers of the longest kind, 1,500 for question and prompt."""


def completion_dollars(recipe: Recipe, price: Price, *, batch: bool) -> tuple[float, float]:
    """Of all completions: if they are as long as the second halves, and at most."""
    data = recipe.data
    half = data.documents * DOCUMENT_TOKENS // 2
    likely = price.of(half, min(half, data.documents * data.max_tokens), batch=batch)
    return likely, price.of(half, data.documents * data.max_tokens, batch=batch)


def judge_dollars(benchmark: str, price: Price) -> float:
    """Of judging one model, at most."""
    prompt, answer = (JUDGED[benchmark] * tokens for tokens in JUDGE_MOST[benchmark])
    return price.of(prompt, answer)


def cost_lines(choices: Choices) -> Iterator[str]:
    """What the plan tells of costs."""
    data = choices.recipe.data
    prices = read_prices()
    yield (
        f"data: {data.documents:,} documents ({data.sources['documents']}), {data.held_out:,} of them kept from "
        f"training; taken to have {DOCUMENT_TOKENS:,} tokens each"
    )
    yield f"teacher: {_completions(choices, price_of(choices.teacher.model, prices))}"
    yield from (f"judge: {_judging(benchmark, prices)}" for benchmark in choices.benchmarks)
    yield from _training(choices)


def _completions(choices: Choices, price: Price | None) -> str:
    name = choices.teacher.model
    if "--base-url" in choices.teacher.options or price is None:
        return f"{name}: no price is known here; `nid complete --dry-run` computes with --price"
    batch = "--batch" in choices.teacher.options
    likely, most = completion_dollars(choices.recipe, price, batch=batch)
    return (
        f"{name}{' as a batch' if batch else ''} about ${likely:,.0f}, at most ${most:,.0f} "
        f"(${price.input:g} and ${price.output:g} for a million tokens); `nid complete --dry-run` counts your documents"
    )


def _judging(benchmark: Benchmark, prices: dict[str, Price]) -> str:
    judge, calls = benchmark.judge, JUDGED[benchmark.name]
    price = price_of(judge.model, prices)
    what = f"{judge.model} on {benchmark.name}: {calls:,} judgments of a model, two models"
    if "--base-url" in judge.options or price is None:
        return f"{what}; no price is known here"
    return f"{what}, at most ${2 * judge_dollars(benchmark.name, price):,.0f}; `nid judge --dry-run` counts"


def _training(choices: Choices) -> Iterator[str]:
    recipe, machine = choices.recipe, choices.machine
    tuning = recipe.tuning
    count = updates(recipe, choices.pairs_to_train_on)
    tokens = count * tuning.tokens
    yield (
        f"training: {count:,} updates of {tuning.tokens:,} tokens (about {tuning.epochs:g} times all pairs); LoRA rank "
        f"{tuning.rank}, {recipe.shape.adapter_weights(tuning.rank) / 1e6:.1f} of {recipe.shape.weights / 1e6:,.0f} "
        "million parameters"
    )
    own = need(
        recipe.shape, machine.holding, rank=tuning.rank, tokens=machine.gpu_tokens, gpus=max(1, machine.processes)
    )
    yield f"memory, computed for {machine.holding} weights and {machine.gpu_tokens:,} tokens a GPU: {own.line()}"
    yield f"smallest numbers of GPUs that are enough: {'; '.join(_cards(recipe, machine.gpu_tokens))}"
    work = operations(recipe, tokens)
    hours = work / RATE / 3600
    yield f"time: {hours:,.0f} GPU hours at {RATE / 1e12:.0f} TFLOP/s (assumed: 40 % of an H100)"
    yield "rank: inferred; alpha, rate, epochs, batch and lengths are chosen here, as the paper does not give them"


def _cards(recipe: Recipe, tokens: int) -> Iterator[str]:
    for holding in HOLDINGS:
        counts = {card: fewest_gpus(recipe, holding, card, tokens) for card in CARDS}
        alone = next((card for card in CARDS if counts[card] == 1), CARDS[-1])
        fits = ", ".join(f"{count} of {card} GB" for card, count in counts.items() if count and card <= alone)
        yield f"{holding}: {fits or f'not on {CARDS[-1]} GB'}"
