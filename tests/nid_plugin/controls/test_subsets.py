"""Nested, seeded subsets."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.controls.subsets import Keys, membership, repeated
from nid_plugin.pairs import Pair


def pair(prompt: str, number: int = 0) -> Pair:
    return Pair(str(number), prompt, "c", "s", "t", "stop")


def draw(pairs: list[Pair], sizes: list[int], seed: int = 1) -> dict[int, list[Pair]]:
    keys = Keys(seed)
    keys.add_all(pairs)
    chosen = membership(keys, sizes)
    subsets: dict[int, list[Pair]] = {size: [] for size in sizes}
    for one in pairs:
        for size in chosen.sizes_of(one):
            subsets[size].append(one)
    return subsets


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.data())
def test_sizes_are_exact_and_smaller_ones_are_within_larger_ones(prompts: list[str], data: st.DataObject) -> None:
    pairs = [pair(prompt, number) for number, prompt in enumerate(prompts)]
    sizes = sorted(data.draw(st.sets(st.integers(1, len(pairs)), min_size=1)))
    subsets = draw(pairs, sizes, data.draw(st.integers(0, 3)))
    assert [len(subsets[size]) for size in sizes] == sizes
    ids = [{one.id for one in subsets[size]} for size in sizes]
    assert all(smaller < larger for smaller, larger in pairwise(ids))


def test_the_order_of_the_file_decides_nothing_but_the_order() -> None:
    pairs = [pair(f"prompt {number}") for number in range(200)]
    mixed = random.Random(1).sample(pairs, len(pairs))
    one, other = draw(pairs, [20])[20], draw(mixed, [20])[20]
    assert {p.prompt for p in one} == {p.prompt for p in other}
    assert one == [p for p in pairs if p in one]
    assert other == [p for p in mixed if p in one]


def test_another_seed_draws_others_and_every_pair_may_be_drawn() -> None:
    pairs = [pair(f"prompt {number}") for number in range(50)]
    drawn = [frozenset(p.prompt for p in draw(pairs, [10], seed)[10]) for seed in range(60)]
    assert len(set(drawn)) > 55
    assert frozenset.union(*drawn) == {p.prompt for p in pairs}


def test_pairs_of_another_teacher_give_the_same_prompts() -> None:
    prompts = [f"prompt {number}" for number in range(60)]
    pairs = [pair(prompt) for prompt in prompts]
    others = [Pair(f"other {prompt}", prompt, "another", "s", "u", "length") for prompt in reversed(prompts)]
    assert {p.prompt for p in draw(pairs, [15])[15]} == {p.prompt for p in draw(others, [15])[15]}


def test_repeated_prompts_are_counted() -> None:
    keys = Keys(1)
    keys.add_all([pair("a"), pair("b"), pair("a"), pair("a")])
    assert repeated(keys) == 2
