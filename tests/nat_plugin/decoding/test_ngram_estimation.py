"""Estimation against the formulas, written for one n-gram at a time."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from nat_plugin.decoding.ngram_counts import count_ngrams
from nat_plugin.decoding.ngram_estimation import Estimate, estimate
from nat_plugin.decoding.ngram_lm import NgramLm
from plugin_common.errors import UserError

Ngram = tuple[str, ...]


def zipf_lines(count: int, words: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, words + 1)
    return [
        " ".join(f"w{i}" for i in rng.choice(words, rng.integers(0, 9), p=weights / weights.sum()))
        for _ in range(count)
    ]


class KneserNey:
    """p(w | h) by the formulas of Chen & Goodman, recursively, with plain dictionaries."""

    def __init__(self, lines: list[str], order: int, prune: list[int]) -> None:
        self.order, self.prune = order, prune
        self.raw: list[Counter[Ngram]] = [Counter() for _ in range(order + 1)]
        for line in lines:
            words = ["<s>", *line.split(), "</s>"]
            for n in range(1, order + 1):
                self.raw[n].update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        self.words = {word for (word,) in self.raw[1]} - {"<s>"} | {"<unk>"}
        self.adjusted: list[dict[Ngram, int]] = [{}]
        for n in range(1, order + 1):
            left: dict[Ngram, set[str]] = defaultdict(set)
            for longer in self.raw[n + 1] if n < order else ():
                left[longer[1:]].add(longer[0])
            plain = {g: c if n == order or g[0] == "<s>" else len(left[g]) for g, c in self.raw[n].items()}
            self.adjusted.append({g: c for g, c in plain.items() if g != ("<s>",)})
        self.discounts = [self._discounts(n) for n in range(order + 1)]

    def _discounts(self, n: int) -> list[float]:
        t = Counter(self.adjusted[n].values())
        if not all(t[k] for k in (1, 2, 3)):
            return [0, 0.5, 1.0, 1.5]
        y = t[1] / (t[1] + 2 * t[2])
        found = [0, *(k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))]
        return found if all(0 <= d <= k for k, d in enumerate(found)) else [0, 0.5, 1.0, 1.5]

    def _is_kept(self, ngram: Ngram) -> bool:
        return len(ngram) == 1 or self.raw[len(ngram)][ngram] > self.prune[len(ngram) - 1]

    def prob(self, context: Ngram, word: str) -> float:
        n = len(context) + 1
        lower = self.prob(context[1:], word) if context else 1 / len(self.words)
        following = {g: a for g, a in self.adjusted[n].items() if g[:-1] == context}
        total = sum(following.values())
        if not total:
            return lower
        taken = {g: self.discounts[n][min(a, 3)] if self._is_kept(g) else a for g, a in following.items()}
        ngram = (*context, word)
        own = following[ngram] - taken[ngram] if ngram in following else 0.0
        return own / total + sum(taken.values()) / total * lower


def estimated(tmp_path: Path, lines: list[str], order: int, prune: list[int]) -> tuple[Estimate, NgramLm, list[str]]:
    path = tmp_path / "text"
    path.write_text("".join(f"{line}\n" for line in lines))
    found = estimate(count_ngrams([str(path)], order, chunk_words=1000), prune)
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *found.model.vocabulary[3:]]
    return found, NgramLm.from_tables(found.model, symbols, source="test"), symbols


def probs_after(lm: NgramLm, symbols: list[str], history: Ngram) -> dict[str, float]:
    """p(w | <s> history) of all words."""
    state = lm.start(1)
    for word in history:
        _, state = lm.score(state, np.array([symbols.index(word)]))
    words = [word for word in symbols if word not in ("<s>", "<pad>")]
    log_probs, _ = lm.score(np.repeat(state, len(words)), np.array([symbols.index(word) for word in words]))
    return dict(zip(words, np.exp(log_probs).tolist(), strict=True))


@pytest.mark.parametrize(
    ("order", "prune"), [(1, [0]), (2, [0, 0]), (3, [0, 0, 0]), (4, [0, 0, 0, 0]), (3, [0, 1, 1]), (4, [0, 0, 1, 2])]
)
def test_probabilities_are_those_of_the_formulas_and_sum_to_one(tmp_path: Path, order: int, prune: list[int]) -> None:
    lines = zipf_lines(400, 40, seed=order)
    _, lm, symbols = estimated(tmp_path, lines, order, prune)
    oracle = KneserNey(lines, order, prune)
    histories = [
        (),
        ("w0",),
        ("w1", "w0"),
        ("w39", "w17", "w3"),
        ("<unk>",),
        *(tuple(x.split()[:3]) for x in lines[:8]),
    ]
    for history in histories:
        found = probs_after(lm, symbols, history)
        assert sum(found.values()) == pytest.approx(1, abs=2e-5)
        context = ("<s>", *history)[-(order - 1) :] if order > 1 else ()
        for word, prob in found.items():
            assert prob == pytest.approx(oracle.prob(context, word), rel=2e-5), (history, word)


def test_pruning_leaves_out_rare_ngrams_and_keeps_their_parts(tmp_path: Path) -> None:
    lines = zipf_lines(400, 40, seed=7)
    whole, _, _ = estimated(tmp_path, lines, 3, [0])
    pruned, _, _ = estimated(tmp_path, lines, 3, [0, 1, 2])
    raw = KneserNey(lines, 3, [0, 1, 2]).raw
    assert list(whole.counted) == list(pruned.counted) == [len(table) for table in whole.model.orders]
    for n in (2, 3):
        kept = {tuple(pruned.model.text(n, row).split()) for row in range(len(pruned.model.orders[n - 1]))}
        assert kept == {ngram for ngram, count in raw[n].items() if count > n - 1}
    assert len(pruned.model.orders[0]) == len(whole.model.orders[0])


def test_tiny_texts_take_fixed_discounts_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, lm, symbols = estimated(tmp_path, ["a b", "a"], 3, [0])
    assert found.discounts == [(0.0, 0.5, 1.0, 1.5)] * 3
    assert "order 3: too little text for discounts of its own (3, 0, 0, 0 n-grams" in caplog.text
    for history in ((), ("a",), ("a", "b"), ("b", "b")):
        assert sum(probs_after(lm, symbols, history).values()) == pytest.approx(1, abs=1e-5)


def test_unknown_pieces_in_the_text_are_words(tmp_path: Path) -> None:
    _, lm, symbols = estimated(tmp_path, ["a <unk> b", "<unk>", "<unk> a"], 2, [0])
    assert probs_after(lm, symbols, ())["<unk>"] > probs_after(lm, symbols, ())["b"]


@pytest.mark.parametrize("prune", [[1], [0, 2, 1], [0, 0, 0, 0]])
def test_thresholds_that_would_tear_the_model_apart_are_refused(tmp_path: Path, prune: list[int]) -> None:
    with pytest.raises(UserError, match=f"--prune {' '.join(map(str, prune))}: expected up to 3 counts, the first 0"):
        estimated(tmp_path, ["a b"], 3, prune)
