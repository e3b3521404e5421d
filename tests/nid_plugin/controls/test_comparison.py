"""Two teachers on the same prompts."""

from pathlib import Path

import pytest

from nid_plugin.completion.prices import Price
from nid_plugin.controls.by_prompt import by_prompt
from nid_plugin.controls.comparison import Comparison, Values, common_pairs, compare
from nid_plugin.controls.comparison_report import as_json, as_markdown, cost
from nid_plugin.controls.findings import findings_of
from nid_plugin.halving import Half
from nid_plugin.pairs import Pair

NAMES = {"a": "one.jsonl", "b": "other.jsonl"}


def pair(
    prompt: str, completion: str, teacher: str = "one", reason: str = "stop", tokens: tuple[int, int] | None = (10, 5)
) -> Pair:
    usage = {} if tokens is None else {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Pair(f"{teacher} {prompt}", prompt, completion, f"file of {prompt}", teacher, reason, usage)


def compared(
    a: list[Pair], b: list[Pair], halves: list[Half] | None = None, examples: int = 0, seed: int = 1
) -> tuple[Comparison, list[tuple[Pair, Pair]]]:
    counts, folder = Comparison(), Path("/tmp")
    with by_prompt(b, Pair, folder) as others, by_prompt(halves or [], Half, folder) as documents:
        found = documents if halves is not None else None
        common = common_pairs(a, others, counts)
        return counts, list(compare(common, found, counts, findings_of, examples=examples, seed=seed))


def test_the_common_prompts_in_the_order_of_the_first() -> None:
    a, b = [pair(p, p) for p in "cabd"], [pair(p, p, "other") for p in "bxac"]
    counts, both = compared(a, b)
    assert [(one.prompt, other.prompt) for one, other in both] == [("c", "c"), ("a", "a"), ("b", "b")]
    assert (counts.a.pairs, counts.b.pairs, counts.a.only_here, counts.b.only_here) == (3, 3, 1, 1)
    assert counts.identical == 3


def test_what_is_counted_of_each_side() -> None:
    prompt = "one two three four five six seven eight nine"
    a = [pair(prompt, "Zero " + prompt), pair("q", "a b a b", reason="length")]
    b = [pair(prompt, "x y", "other"), pair("q", "I'm sorry, but I can't help with that.", "other", tokens=None)]
    halves = [Half("0", prompt, " x z", "s"), Half("1", "elsewhere", "x", "s")]
    counts, _ = compared(a, b, halves)
    report = as_json(counts, NAMES, {"one": Price(1.0, 2.0)})
    assert report["common_prompts"] == 2
    assert report["more_words"] == {"a": 1, "b": 1}
    assert report["without_second_half"] == 1
    first, second = report["a"], report["b"]
    assert first["finish_reasons"] == {"stop": 1, "length": 1}
    assert (first["findings"], second["findings"]) == ({}, {"refusal": 1})
    assert (first["words"]["mean"], second["words"]["mean"]) == (7, 5)
    assert first["copied_from_prompt"] == {
        "count": 1,
        "mean": round(2 / 3, 4),
        "p5": 0.6667,
        "p50": 0.6667,
        "p95": 0.6667,
    }
    assert second["copied_from_prompt"]["mean"] == 0
    # Cut to the words of the shorter one: "zero one" and "x y"; "a b a b" and the first four of the other.
    assert first["distinct"]["1"]["mean"] == pytest.approx((1 + 0.5) / 2)
    assert second["distinct"]["1"]["mean"] == 1
    assert second["overlap_with_second_half"]["1"]["mean"] == 0.5
    assert second["overlap_with_second_half"]["2"]["mean"] == 0
    assert report["overlap_of_the_completions"]["1"] == {"count": 2, "mean": 0, "p5": 0, "p50": 0, "p95": 0}
    assert first["tokens"] == {"one": {"pairs": 2, "prompt_tokens": 20, "completion_tokens": 10}}
    assert first["dollars"] == pytest.approx((20 * 1 + 10 * 2) / 1e6)
    assert second["dollars"] is None  # of one pair nobody knows the tokens


def test_no_price_no_cost() -> None:
    counts, _ = compared([pair("p", "a")], [pair("p", "b", "other")])
    assert cost(counts.a, {"another": Price(1, 1)}) is None
    assert cost(counts.b, {"other": Price(0, 0)}) == 0


def test_quantiles_are_values_that_occur() -> None:
    values = Values()
    for number in range(1, 101):
        values.add(number)
    values.add(None)
    assert values.summary() == {"count": 100, "mean": 50.5, "p5": 5, "p50": 50, "p95": 95}
    assert Values().summary() == {"count": 0}


def test_examples_are_drawn_by_the_seed_whatever_the_order() -> None:
    prompts = [f"prompt {number}" for number in range(40)]
    a, b = [pair(p, p) for p in prompts], [pair(p, p, "other") for p in prompts]
    drawn = [[one.prompt for one, _ in compared(x, b, examples=3)[0].examples] for x in (a, a[::-1])]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 3
    others = {tuple(one.prompt for one, _ in compared(a, b, examples=3, seed=seed)[0].examples) for seed in range(9)}
    assert len(others) > 5


def test_the_report_to_read() -> None:
    long = "word " * 200
    counts, _ = compared([pair("the prompt", f"```\n{long}")], [pair("the prompt", "b", "other")], examples=1)
    text = as_markdown(counts, NAMES, {})
    assert "A is `one.jsonl` (one 1), B is `other.jsonl` (other 1)." in text
    assert "| words a completion: mean | 201.0 | 1.0 |" in text
    assert "| finish reason stop | 100.0 % | 100.0 % |" in text
    assert "| cost | unknown | unknown |" in text
    assert "A's completion has more words for 100.0 % of the prompts" in text
    assert "Source: `file of the prompt`" in text
    assert "````text\n```\nword word" in text  # a longer fence around a text that has one
    assert "…\n````" in text
    assert "second half" not in text  # none was given
