"""Small measures: copies, intervals, agreement, distributions, names to drop for."""

import math
import random
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.audit.copying import COPY_WORDS, copied, longest_common_run, repeated_share
from nid_plugin.audit.dropping import DEFAULT, REASONS, SETS, reasons_named
from nid_plugin.audit.examination import excerpt, printable
from nid_plugin.audit.intervals import kappa, wilson
from nid_plugin.audit.matching import Match
from nid_plugin.audit.totals import QUANTILES, Distribution, Examples
from plugin_common.errors import UserError

FEW_WORDS = st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=30)


@given(FEW_WORDS, FEW_WORDS)
def test_longest_common_run_is_that_of_all_runs(one: list[str], other: list[str]) -> None:
    runs = {tuple(other[i:j]) for i in range(len(other)) for j in range(i + 1, len(other) + 1)}
    lengths = [j - i for i in range(len(one)) for j in range(i + 1, len(one) + 1) if tuple(one[i:j]) in runs]
    assert longest_common_run(one, other) == max(lengths, default=0)


def test_long_runs_in_common_take_no_long_time() -> None:
    words = ("a b " * 25_000).split()
    begun = time.process_time()
    assert longest_common_run(words, [*words[:30_000], "c", *words]) == 50_000
    assert time.process_time() - begun < 5


def test_what_is_copied() -> None:
    source = [f"w{i}" for i in range(40)]
    assert copied(source[5:25], source).share == 1
    assert copied(source[5:25], source).longest == 20
    half = source[:12] + [f"v{i}" for i in range(12)]
    assert copied(half, source).share == pytest.approx(5 / 17)
    assert copied(source[: COPY_WORDS - 1], source).share is None
    assert copied([f"v{i}" for i in range(20)], source).longest == 0


def test_what_is_repeated() -> None:
    assert repeated_share([f"w{i}" for i in range(30)]) == 0
    assert repeated_share(["a"] * 27) == pytest.approx(19 / 20)
    assert repeated_share(["a"] * 7) is None


def test_wilson_interval_against_the_quadratic_that_it_solves() -> None:
    for hits, trials in [(1, 10), (7, 1000), (50, 100), (999, 1000)]:
        for bound in wilson(hits, trials):
            deviation = abs(hits / trials - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert deviation == pytest.approx(1.959964, abs=1e-5)


def test_wilson_interval_at_the_ends() -> None:
    assert wilson(0, 0) == (0, 1)
    low, high = wilson(0, 100)
    assert low == 0 and high == pytest.approx(0.03699, abs=1e-4)  # z² / (n + z²)
    assert wilson(100, 100)[1] == 1
    with pytest.raises(ValueError, match="3 hits in 2 trials"):
        wilson(3, 2)


def test_kappa() -> None:
    assert kappa(20, 5, 10, 15) == pytest.approx(0.4)  # agreement 0.7, by chance 0.5
    assert kappa(5, 0, 0, 5) == 1
    assert kappa(0, 5, 5, 0) == -1
    assert kappa(0, 0, 0, 10) is None and kappa(0, 0, 0, 0) is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_quantiles_are_those_of_the_sorted_values(values: list[int]) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    summary, ordered = distribution.summary(), sorted(values)
    assert summary["count"] == len(values) and summary["mean"] == pytest.approx(sum(values) / len(values))
    assert (summary["min"], summary["max"]) == (ordered[0], ordered[-1])
    for q in QUANTILES:
        assert summary[f"{q}%"] == ordered[max(0, math.ceil(Fraction(q, 100) * len(values)) - 1)]


def test_examples_are_a_fair_sample_and_the_same_for_a_seed() -> None:
    drawn: Counter[int] = Counter()
    for seed in range(600):
        examples = Examples(2, seed)
        for item in range(6):
            examples.add("x", item)
        drawn.update(examples.kept["x"])
    assert all(140 < drawn[item] < 260 for item in range(6)), drawn  # 200 each, standard deviation 12
    again = [Examples(2, 7) for _ in range(2)]
    for item in random.Random(1).sample(range(100), 50):
        for examples in again:
            examples.add("x", item)
    assert again[0].kept == again[1].kept


def test_names_to_drop_for() -> None:
    assert reasons_named(["all"]) == tuple(REASONS)
    assert reasons_named(["refusal", "role-marker"]) == ("role-marker", "refusal")  # in the order of the report
    assert set(reasons_named(DEFAULT)) == {*SETS["detectors"], "evaluation-overlap", "judged-instruction"}
    assert set(SETS["assistant"] + SETS["instruction"] + SETS["address"]) == set(SETS["detectors"])
    with pytest.raises(
        UserError, match=r"unknown refusals; there are role-marker, .*refusal.*several at once assistant"
    ):
        reasons_named(["refusals"])


def test_excerpts() -> None:
    text = "x" * 100 + " the \n place " + "y" * 300
    shown = excerpt(text, Match(101, 104))
    assert shown.startswith("…x") and " the place y" in shown and shown.endswith("y…")
    assert excerpt("all of it", Match(0, 9)) == "all of it"


@given(st.text(alphabet=st.characters(codec=None, categories=["Cs", "L", "So"])))
def test_printable_text_can_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert shown == text or any("\ud800" <= character <= "\udfff" for character in text)
