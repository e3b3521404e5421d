"""Two teachers on the same prompts: what is counted of each, and how alike their completions are."""

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from nid_plugin.audit.intervals import quantile_rank
from nid_plugin.controls.by_prompt import ByPrompt, prompt_key
from nid_plugin.controls.text_measures import copied_share, distinct_share, normalised_words, overlap_f1
from nid_plugin.documents.words import words
from nid_plugin.halving import Half
from nid_plugin.pairs import Pair

COPIED_WORDS = 8
"""Length of a run of words that counts as copied from the prompt."""
ALIKE_N = (1, 2)
DISTINCT_N = (1, 2, 3)

Findings = Callable[[Pair], Iterable[str]]
"""Names of what is found in a pair (a refusal, say), each once."""


@dataclass
class Values:
    """Numbers of which mean and quantiles are asked; 4 bytes each."""

    values: array = field(default_factory=lambda: array("f"))

    def add(self, value: float | None) -> None:
        """Take a number; None is passed over."""
        if value is not None:
            self.values.append(value)

    def summary(self) -> dict[str, float]:
        """``count``, ``mean``, and ``p5``, ``p50``, ``p95``: the value with so many percent of all at or below it."""
        ordered = sorted(self.values)
        if not ordered:
            return {"count": 0}
        ranks = {f"p{percent}": quantile_rank(percent, len(ordered)) for percent in (5, 50, 95)}
        quantiles = {name: round(ordered[rank - 1], 4) for name, rank in ranks.items()}
        return {"count": len(ordered), "mean": round(sum(ordered) / len(ordered), 4), **quantiles}


@dataclass
class Tokens:
    """What endpoints counted, over the pairs that say it."""

    pairs: int = 0
    prompt: int = 0
    completion: int = 0


def _values(numbers: tuple[int, ...]) -> Callable[[], dict[int, Values]]:
    return lambda: {number: Values() for number in numbers}


@dataclass
class Side:
    """One teacher's completions of the common prompts.

    Attributes:
        only_here: pairs whose prompt the other file does not have; all else is about the common prompts.
        findings: completions in which something was found, by its name.
        words, characters: of a completion; words as ``documents.words`` has them.
        distinct: by n, the share of different n-grams in a completion cut to the words of the shorter one of the two.
        copied: the share of a completion's runs of ``COPIED_WORDS`` words that occur in its prompt.
        with_second_half: by n, the overlap with the document's own second half.
        tokens: by teacher.
    """

    pairs: int = 0
    only_here: int = 0
    teachers: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    words: Values = field(default_factory=Values)
    characters: Values = field(default_factory=Values)
    distinct: dict[int, Values] = field(default_factory=_values(DISTINCT_N))
    copied: Values = field(default_factory=Values)
    with_second_half: dict[int, Values] = field(default_factory=_values(ALIKE_N))
    tokens: dict[str, Tokens] = field(default_factory=dict)

    def add(self, pair: Pair, findings: Findings) -> None:
        """Count what a pair tells by itself."""
        self.pairs += 1
        self.teachers[pair.teacher or "unknown"] += 1
        self.finish_reasons[pair.finish_reason or "unknown"] += 1
        self.findings.update(list(dict.fromkeys(findings(pair))))  # in this order, whatever the hash seed
        self.words.add(len(words(pair.completion)))
        self.characters.add(len(pair.completion))
        prompt, completion = pair.usage.get("prompt_tokens"), pair.usage.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(completion, int):
            counted = self.tokens.setdefault(pair.teacher, Tokens())
            counted.pairs += 1
            counted.prompt += prompt
            counted.completion += completion


@dataclass
class Comparison:
    """What is found over all common prompts.

    Attributes:
        alike: by n, the overlap of the two completions.
        identical: prompts with the same completion of both.
        longer: prompts for which the completion of ``a``, of ``b`` has more words, or ``neither``.
        without_second_half: common prompts that no document in the halves has (where there are halves).
        examples: prompts with both completions, drawn by the seed.
    """

    a: Side = field(default_factory=Side)
    b: Side = field(default_factory=Side)
    alike: dict[int, Values] = field(default_factory=_values(ALIKE_N))
    identical: int = 0
    longer: Counter[str] = field(default_factory=Counter)
    without_second_half: int = 0
    examples: list[tuple[Pair, Pair]] = field(default_factory=list)

    def add(self, a: Pair, b: Pair, half: Half | None, findings: Findings) -> None:
        """Count one prompt."""
        self.a.add(a, findings)
        self.b.add(b, findings)
        self.identical += a.completion == b.completion
        lengths = len(words(a.completion)), len(words(b.completion))
        self.longer["a" if lengths[0] > lengths[1] else "b" if lengths[1] > lengths[0] else "neither"] += 1
        prompt, completions = normalised_words(a.prompt), [normalised_words(pair.completion) for pair in (a, b)]
        shorter = min(map(len, completions))
        for side, own in zip((self.a, self.b), completions, strict=True):
            side.copied.add(copied_share(own, prompt, COPIED_WORDS))
            for n, values in side.distinct.items():
                values.add(distinct_share(own[:shorter], n))
        for n, values in self.alike.items():
            values.add(overlap_f1(completions[0], completions[1], n))
        if half is not None:
            second = normalised_words(half.second_half)
            for side, own in zip((self.a, self.b), completions, strict=True):
                for n, values in side.with_second_half.items():
                    values.add(overlap_f1(own, second, n))


def common_pairs(a: Iterable[Pair], b: ByPrompt[Pair], counts: Comparison) -> Iterator[tuple[Pair, Pair]]:
    """The pairs with the same prompt, in the order of ``a``; what only one has is counted at the end."""
    for pair in a:
        other = b.take(pair.prompt)
        if other is None:
            counts.a.only_here += 1
        else:
            yield pair, other
    counts.b.only_here = len(b)


def compare(
    pairs: Iterable[tuple[Pair, Pair]],
    halves: ByPrompt[Half] | None,
    counts: Comparison,
    findings: Findings,
    *,
    examples: int,
    seed: int,
) -> Iterator[tuple[Pair, Pair]]:
    """Pass the pairs on and count them; ``counts`` is complete when the last one was taken.

    Args:
        pairs: two pairs of the same prompt each.
        halves: the documents, for the overlap with the second half.
        counts: added to.
        findings: what else is looked for in each pair.
        examples: how many to keep, drawn by ``seed`` from the prompts.
        seed: of that draw.
    """
    drawn: list[tuple[int, int, tuple[Pair, Pair]]] = []
    for number, both in enumerate(pairs):
        half = halves.find(both[0].prompt) if halves is not None else None
        counts.without_second_half += halves is not None and half is None
        counts.add(*both, half, findings)
        entry = (-prompt_key(both[0].prompt, seed), number, both)  # the heap's smallest is the one to go
        if len(drawn) < examples:
            heapq.heappush(drawn, entry)
        elif examples:
            heapq.heappushpop(drawn, entry)
        yield both
    counts.examples = [both for _, _, both in sorted(drawn, reverse=True)]
