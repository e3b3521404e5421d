from hypothesis import given, settings
from hypothesis import strategies as st

from nid_plugin.documents.shuffling import shuffled


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 70), st.integers())
def test_a_permutation_that_the_seed_fixes(count, buffer_size, seed):
    once = list(shuffled(range(count), buffer_size, seed))
    assert sorted(once) == list(range(count))
    assert once == list(shuffled(range(count), buffer_size, seed))


def test_seeds_differ_and_order_changes():
    orders = {tuple(shuffled(range(50), 20, seed)) for seed in range(20)}
    assert len(orders) == 20
    assert tuple(range(50)) not in orders


def test_no_more_is_read_ahead_than_the_buffer_holds():
    read = []
    first = next(shuffled((read.append(number) or number for number in range(1000)), 10, seed=1))
    assert first < 10
    assert len(read) == 11
