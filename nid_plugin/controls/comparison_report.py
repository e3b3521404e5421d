"""The report of a comparison of two teachers: as JSON values and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from nid_plugin.completion.prices import Price, price_of
from nid_plugin.controls.comparison import COPIED_WORDS, Comparison, Side, Values
from nid_plugin.markdown import code_block, code_span, listed, plain, table
from nid_plugin.pairs import Pair

EXCERPT = 500
"""Characters of a text that the report shows."""


def as_json(comparison: Comparison, names: Mapping[str, str], prices: Mapping[str, Price]) -> dict[str, Any]:
    """All that was counted.

    Args:
        comparison: over all common prompts.
        names: the files of ``a`` and ``b``.
        prices: by model.
    """
    return {
        "common_prompts": comparison.a.pairs,
        "identical_completions": comparison.identical,
        "more_words": dict(comparison.longer),
        "overlap_of_the_completions": _by_n(comparison.alike),
        "without_second_half": comparison.without_second_half,
        "a": {"file": names["a"], **_side(comparison.a, prices)},
        "b": {"file": names["b"], **_side(comparison.b, prices)},
    }


def as_markdown(comparison: Comparison, names: Mapping[str, str], prices: Mapping[str, Price]) -> str:
    """The report to read: one table, then the examples."""
    sides, common = (comparison.a, comparison.b), comparison.a.pairs
    longer = comparison.longer
    lines = [
        "# Two teachers on the same prompts",
        "",
        f"A is {code_span(names['a'])} ({listed(comparison.a.teachers)}), B is {code_span(names['b'])} "
        f"({listed(comparison.b.teachers)}).",
        f"They have {common:,} prompts in common; only A has {comparison.a.only_here:,} more, only B "
        f"{comparison.b.only_here:,}. Everything below is about the common ones.",
        "",
        table(("", "A", "B"), _rows(sides, prices)),
        "",
        f"A's completion has more words for {_share(longer['a'], common)} of the prompts, B's for "
        f"{_share(longer['b'], common)}; {_share(comparison.identical, common)} of the completions are identical.",
        *(
            f"Overlap of A's and B's completions, {n}-grams (F1, 0 to 1): {_mean(values)}."
            for n, values in comparison.alike.items()
        ),
        "",
        "For overlap and n-grams words are runs of letters and digits in lower case. Overlap: F1 of n-grams counted "
        "with repetition (ROUGE-N without stemming). Distinct n-grams: different by all n-grams of a completion, both "
        "cut to the words of the shorter one. Copied from the prompt: the share of a completion's runs of "
        f"{COPIED_WORDS} words that stand in its prompt. Found: the detectors of `nid audit`, in the completion.",
    ]
    if comparison.without_second_half:
        lines += ["", f"No second half was found for {comparison.without_second_half:,} of the common prompts."]
    for number, (a, b) in enumerate(comparison.examples, start=1):
        lines += ["", f"## Example {number}", "", f"Source: {code_span(a.source)}", *_example(a, b)]
    return "\n".join(lines) + "\n"


def _side(side: Side, prices: Mapping[str, Price]) -> dict[str, Any]:
    tokens = {
        teacher: {"pairs": one.pairs, "prompt_tokens": one.prompt, "completion_tokens": one.completion}
        for teacher, one in side.tokens.items()
    }
    return {
        "only_here": side.only_here,
        "teachers": dict(side.teachers),
        "finish_reasons": dict(side.finish_reasons.most_common()),
        "findings": dict(side.findings.most_common()),
        "words": side.words.summary(),
        "characters": side.characters.summary(),
        "distinct": _by_n(side.distinct),
        "copied_from_prompt": side.copied.summary(),
        "overlap_with_second_half": _by_n(side.with_second_half),
        "tokens": tokens,
        "dollars": cost(side, prices),
    }


def cost(side: Side, prices: Mapping[str, Price]) -> float | None:
    """US dollars at the prices of single requests; None where a pair has no token counts or its model no price."""
    found = {teacher: price_of(teacher, dict(prices)) for teacher in side.tokens}
    if not side.tokens or None in found.values() or sum(one.pairs for one in side.tokens.values()) < side.pairs:
        return None
    return sum(
        price.of(side.tokens[teacher].prompt, side.tokens[teacher].completion)
        for teacher, price in found.items()
        if price
    )


def _rows(sides: Sequence[Side], prices: Mapping[str, Price]) -> list[list[str]]:
    def row(name: str, cells: Sequence[str]) -> list[str]:
        return [name, *cells]

    rows = [row("words a completion: mean", [_mean(side.words, 1) for side in sides])]
    rows += [row("words a completion: 5 %, 50 %, 95 %", [_quantiles(side.words) for side in sides])]
    for title, counters in (
        ("finish reason", [side.finish_reasons for side in sides]),
        ("found:", [side.findings for side in sides]),
    ):
        names = sorted({name for counter in counters for name in counter})
        rows += [
            row(
                f"{title} {plain(name)}",
                [_share(side.get(name, 0), one.pairs) for side, one in zip(counters, sides, strict=True)],
            )
            for name in names
        ]
    for n in sides[0].distinct:
        rows.append(row(f"distinct {n}-grams", [_mean(side.distinct[n]) for side in sides]))
    rows.append(row("copied from the prompt", [_mean(side.copied) for side in sides]))
    for n in sides[0].with_second_half:
        if any(side.with_second_half[n].values for side in sides):
            cells = [_mean(side.with_second_half[n]) for side in sides]
            rows.append(row(f"overlap with the second half, {n}-grams", cells))
    rows.append(row("prompt tokens", [_total(side, "prompt") for side in sides]))
    rows.append(row("completion tokens", [_total(side, "completion") for side in sides]))
    dollars = [cost(side, prices) for side in sides]
    rows.append(row("cost", ["unknown" if one is None else f"${one:,.2f}" for one in dollars]))
    return rows


def _by_n(values: Mapping[int, Values]) -> dict[str, dict[str, float]]:
    return {str(n): one.summary() for n, one in values.items()}


def _mean(values: Values, digits: int = 3) -> str:
    found = values.summary()
    return f"{found['mean']:,.{digits}f}" if found["count"] else "–"


def _quantiles(values: Values) -> str:
    found = values.summary()
    return ", ".join(f"{found[name]:,.0f}" for name in ("p5", "p50", "p95")) if found["count"] else "–"


def _total(side: Side, name: str) -> str:
    pairs = sum(one.pairs for one in side.tokens.values())
    if not pairs:
        return "unknown"
    total = f"{sum(getattr(one, name) for one in side.tokens.values()):,}"
    return total if pairs == side.pairs else f"{total} in {pairs:,} pairs"


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else "–"


def _example(a: Pair, b: Pair) -> list[str]:
    texts = (("The prompt's end", a.prompt[-EXCERPT:]), ("A goes on", a.completion), ("B goes on", b.completion))
    lines = []
    for title, text in texts:
        lines += ["", f"**{title}:**", "", *code_block(text[:EXCERPT] + ("…" if len(text) > EXCERPT else ""))]
    return lines
