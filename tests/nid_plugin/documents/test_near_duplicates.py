import os
import random
import subprocess
import sys

import pytest

from nid_plugin.documents.near_duplicates import GrowingBloomFilter, NearDuplicates, best_bands, shingles

VOCABULARY = [f"word{number}" for number in range(5000)]


def document(seed: int, length: int = 300) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=length)


def with_similarity(words: list[str], similarity: float, seed: int) -> list[str]:
    """The document with a new end, so that about this share of the 5-grams of both is common."""
    common = round(2 * similarity / (1 + similarity) * len(words))
    return words[:common] + document(10**6 + seed, len(words) - common)


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def share_dropped(similarity: float, threshold: float, count: int = 150) -> float:
    near = NearDuplicates(threshold)
    dropped = 0
    for seed in range(count):
        words = document(seed)
        assert near.add(" ".join(words))
        other = " ".join(with_similarity(words, similarity, seed))
        assert abs(jaccard(" ".join(words), other) - similarity) < 0.03
        dropped += not near.add(other)
    return dropped / count


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_documents_are_dropped_by_their_similarity(threshold):
    assert share_dropped(min(0.98, threshold + 0.17), threshold) > 0.9
    assert share_dropped(threshold - 0.25, threshold) < 0.1


def test_the_share_dropped_follows_the_curve_of_the_bands():
    bands, rows = best_bands(0.8)
    expected = 1 - (1 - 0.8**rows) ** bands
    assert abs(share_dropped(0.8, 0.8, count=300) - expected) < 0.15


def test_unrelated_documents_stay():
    near = NearDuplicates(0.5)
    assert all(near.add(" ".join(document(seed, 60))) for seed in range(2000))


def test_case_and_spacing_do_not_matter_and_short_texts_work():
    near = NearDuplicates(0.8)
    assert near.add("Some words here")
    assert not near.add("some  words\nHERE")
    assert near.add("some words")
    assert near.add("漢字" * 20)
    assert not near.add("漢字 " * 20)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.99])
def test_bands_rise_at_the_threshold(threshold):
    bands, rows = best_bands(threshold)
    assert bands * rows <= 128
    assert abs((1 / bands) ** (1 / rows) - threshold) < 0.12


def test_the_result_does_not_depend_on_the_hash_seed():
    program = (
        "from nid_plugin.documents.near_duplicates import NearDuplicates\n"
        "near = NearDuplicates(0.8)\n"
        "print(near._band_keys('a b c d e f g h i j k'), near.add('a b c'), near.add('a b c'))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert b"True False" in printed.pop()


def test_the_filter_grows_within_its_bounds():
    bloom = GrowingBloomFilter(1000, 1e-3)
    values = random.Random(1).sample(range(2**60), 30_000)
    for value in values[:20_000]:
        bloom.add(value)
    assert all(value in bloom for value in values[:20_000])
    wrong = sum(value in bloom for value in values[20_000:])
    assert wrong <= 25  # 10 expected at the bound
    assert bloom.bytes / 20_000 < 8
