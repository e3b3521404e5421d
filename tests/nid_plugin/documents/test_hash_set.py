from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from nid_plugin.documents.hash_set import HashSet


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5) | st.sampled_from([2**40, 2**41, 2**42])))
def test_like_a_set(values):
    ours, reference = HashSet(), set()
    for value in values:
        assert (value in ours) == (value in reference)
        assert ours.add(value) == (value not in reference)
        reference.add(value)
    assert len(ours) == len(reference)
    assert all(value in ours for value in reference)


def test_it_grows_and_keeps_its_members():
    values = [(number * 0x9E3779B97F4A7C15) % 2**64 for number in range(50_000)]
    ours = HashSet()
    assert all(ours.add(value) for value in values)
    assert not any(ours.add(value) for value in values)
    assert len(ours) == 50_000
    assert isinstance(ours._table, array)
    assert ours._table.itemsize * len(ours._table) / len(values) < 28
