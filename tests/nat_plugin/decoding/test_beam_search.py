"""The beam search against the enumeration of all alignments."""

import subprocess
import sys
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.decoding.beam_search import BeamOptions, BeamResult, ctc_beam_search
from nat_plugin.decoding.ngram_lm import NgramLm
from nat_plugin.decoding.ngram_tables import NgramTable, NgramTables
from plugin_common.errors import UserError

ROOT = Path(__file__).parents[3]
BLANK, PAD = 0, 1
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c"]  # the blank is <s>, as in this project
LABELS = np.array([BLANK, 4, 5, 6])
WIDE = 400


def distributions(shape: tuple[int, ...], *, sharpness: float = 1.0, seed: int = 0) -> np.ndarray:
    """Natural-log probabilities over LABELS, [*shape, 4] float32."""
    scores = sharpness * np.random.default_rng(seed).normal(size=(*shape, len(LABELS)))
    return (scores - np.log(np.exp(scores).sum(-1, keepdims=True))).astype(np.float32)


def search(log_probs: np.ndarray, lengths: Any = None, **options: Any) -> BeamResult:
    """Search with all labels as candidates; ``log_probs`` [B, T, 4]."""
    lengths = np.full(len(log_probs), log_probs.shape[1]) if lengths is None else np.array(lengths)
    labels = np.broadcast_to(LABELS, log_probs.shape)
    return ctc_beam_search(
        log_probs, labels, log_probs[:, :, 0], lengths, blank=BLANK, pad=PAD, options=BeamOptions(**options)
    )


def hypotheses(result: BeamResult) -> list[tuple[int, ...]]:
    return [tuple(row[:n].tolist()) for row, n in zip(result.tokens, result.lengths, strict=True)]


def collapsed(alignment: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(alignment) if label != BLANK)


def enumerate_all(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Natural-log CTC probability of every translation; ``log_probs`` [T, 4]."""
    sums: dict[tuple[int, ...], float] = {}
    for columns in product(range(len(LABELS)), repeat=len(log_probs)):
        found = collapsed(tuple(int(LABELS[column]) for column in columns))
        here = float(sum(log_probs[t, column] for t, column in enumerate(columns)))
        sums[found] = float(np.logaddexp(sums.get(found, -np.inf), here))
    return sums


def bigram_lm() -> NgramLm:
    """A small model in which "a b" is likely and "b" at the start is not; c is unknown."""
    words = ["<s>", "</s>", "<unk>", "a", "b"]
    unigrams = NgramTable(
        np.arange(5, dtype=np.int32)[:, None],
        np.array([-99, -0.8, -1.5, -0.4, -0.9], dtype=np.float32),
        np.array([-0.4, 0, 0, -0.3, -0.1], dtype=np.float32),
    )
    bigrams = NgramTable(
        np.array([[0, 3], [3, 4], [4, 1]], dtype=np.int32),
        np.array([-0.2, -0.15, -0.25], dtype=np.float32),
        np.zeros(3, dtype=np.float32),
    )
    return NgramLm.from_tables(NgramTables(words, [unigrams, bigrams]), SYMBOLS, source="test")


def lm_log_prob(lm: NgramLm, tokens: tuple[int, ...]) -> float:
    total, state = 0.0, lm.start(1)
    for token in tokens:
        log_prob, state = lm.score(state, np.array([token]))
        total += float(log_prob[0])
    return total + float(lm.end(state)[0])


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("lm_weight", "token_bonus"), [(0.0, 0.0), (0.7, 0.0), (1.5, 2.0), (0.0, -0.6)])
def test_a_wide_beam_finds_the_best_translation(sharpness: float, lm_weight: float, token_bonus: float) -> None:
    log_probs = distributions((12, 5), sharpness=sharpness)
    lengths = [5, 0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5]
    lm = bigram_lm()
    result = search(log_probs, lengths, beam=WIDE, lm=lm, lm_weight=lm_weight, token_bonus=token_bonus)
    for row, (found, length) in enumerate(zip(hypotheses(result), lengths, strict=True)):
        sums = enumerate_all(log_probs[row, :length])
        ranks = {t: p + lm_weight * lm_log_prob(lm, t) + token_bonus * len(t) for t, p in sums.items()}
        assert ranks[found] == pytest.approx(max(ranks.values()), abs=1e-5)
        assert result.scores[row] == pytest.approx(sums[found], abs=1e-5)


def test_the_language_model_decides_between_what_is_nearly_equal() -> None:
    log_probs = np.log(np.array([[[0.02, 0.94, 0.02, 0.02], [0.02, 0.02, 0.47, 0.49]]], dtype=np.float32))
    assert hypotheses(search(log_probs, beam=8)) == [(4, 6)]
    assert hypotheses(search(log_probs, beam=8, lm=bigram_lm(), lm_weight=1.0)) == [(4, 5)]


def test_a_repeat_needs_a_blank_between() -> None:
    def path(*columns: int) -> np.ndarray:
        log_probs = np.full((1, len(columns), 4), np.log(0.01), dtype=np.float32)
        log_probs[0, np.arange(len(columns)), list(columns)] = np.log(0.97)
        return log_probs

    assert hypotheses(search(path(1, 1), beam=5)) == [(4,)]
    assert hypotheses(search(path(1, 0, 1), beam=5)) == [(4, 4)]
    assert hypotheses(search(path(0, 1, 1, 0, 2, 0, 2), beam=5)) == [(4, 5, 5)]


def test_alignments_of_one_translation_are_summed() -> None:
    """The best single alignment is all blank (0.36), but those of "a" together have 0.4 + 0.4 * 0.6 = 0.64."""
    log_probs = np.log(np.array([[[0.6, 0.4, 1e-9, 1e-9]] * 2], dtype=np.float32))
    result = search(log_probs, beam=3)
    assert hypotheses(result) == [(4,)]
    assert np.exp(result.scores[0]) == pytest.approx(0.64, abs=1e-6)


def test_a_narrow_beam_sums_what_it_keeps_and_a_wider_one_no_less() -> None:
    log_probs = distributions((20, 6), sharpness=1.5, seed=3)
    exact = [enumerate_all(row) for row in log_probs]
    before = np.full(20, -np.inf)
    for beam in (1, 2, 4, 8, WIDE):
        result = search(log_probs, beam=beam)
        for found, score, sums in zip(hypotheses(result), result.scores, exact, strict=True):
            assert score <= sums[found] + 1e-5
        assert result.scores.mean() >= before.mean() - 1e-9
        before = result.scores
    assert before == pytest.approx([max(sums.values()) for sums in exact], abs=1e-5)


def test_beam_one_follows_the_best_prefix() -> None:
    log_probs = np.log(np.array([[[0.1, 0.8, 0.05, 0.05], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.75, 0.05]]]))
    result = search(log_probs.astype(np.float32), beam=1)
    assert hypotheses(result) == [(4, 5)]
    # After position 2 the prefix "a" has 0.8 * (0.7 blank + 0.1 repeat).
    assert result.scores[0] == pytest.approx(np.log(0.8 * 0.8 * 0.75), abs=1e-6)
    assert result.token_scores[0] == pytest.approx(np.log([0.8, 0.75]), abs=1e-6)


def test_the_blank_may_be_missing_among_the_labels_and_labels_come_in_any_order() -> None:
    log_probs = distributions((6, 5), seed=4)
    whole = search(log_probs, beam=WIDE)
    shuffled = np.array([3, 1, 2])
    labels = np.broadcast_to(LABELS[shuffled], (6, 5, 3))
    lengths = np.full(6, 5)
    options = BeamOptions(WIDE)
    part = ctc_beam_search(
        log_probs[:, :, shuffled], labels, log_probs[:, :, 0], lengths, blank=BLANK, pad=PAD, options=options
    )
    assert hypotheses(part) == hypotheses(whole)
    assert part.scores == pytest.approx(whole.scores, abs=1e-6)


def test_only_the_most_probable_candidates_are_considered() -> None:
    log_probs = np.log(np.array([[[0.1, 0.3, 0.35, 0.25]]], dtype=np.float32))
    lm = bigram_lm()  # would choose a
    assert hypotheses(search(log_probs, beam=8, candidates=2, lm=lm, lm_weight=1.0)) == [(4,)]
    assert hypotheses(search(log_probs, beam=8, candidates=1, lm=lm, lm_weight=1.0)) == [(5,)]


@pytest.mark.parametrize("beam", [1, 3, 10])
@pytest.mark.parametrize("lm_weight", [0.0, 0.5])
def test_a_sentence_alone_gives_exactly_what_it_gives_in_a_batch(beam: int, lm_weight: float) -> None:
    lengths = [9, 4, 0, 7, 9, 1, 3]
    log_probs = distributions((7, 9), sharpness=1.2, seed=5)
    log_probs = np.round(log_probs * 4) / 4  # equal ranks are frequent
    for row, length in enumerate(lengths):
        log_probs[row, length:] = np.nan  # must not be read
    options = {"beam": beam, "lm": bigram_lm(), "lm_weight": lm_weight}
    together = search(log_probs, lengths, **options)
    for row, length in enumerate(lengths):
        alone = search(log_probs[row : row + 1, :length], **options)
        assert hypotheses(alone) == [hypotheses(together)[row]]
        assert alone.scores[0] == together.scores[row]
        assert (alone.token_scores[0] == together.token_scores[row, : alone.lengths[0]]).all()
    beyond = np.arange(together.tokens.shape[1]) >= together.lengths[:, None]
    assert (together.tokens[beyond] == PAD).all() and (together.token_scores[beyond] == 0).all()


def test_empty_batches_and_sentences() -> None:
    empty = search(np.zeros((0, 5, 4), dtype=np.float32), beam=3)
    assert empty.tokens.shape == (0, 0) and empty.scores.shape == (0,)
    for positions in (0, 4):
        none = search(distributions((3, positions)), [0, 0, 0], beam=3, lm=bigram_lm(), lm_weight=1.0)
        assert none.tokens.shape == (3, 0) and none.tokens.dtype == np.int64
        assert none.lengths.tolist() == [0, 0, 0] and none.scores.tolist() == [0.0, 0.0, 0.0]


def test_certain_labels_and_impossible_ones() -> None:
    """Probabilities of exactly 0 and 1, as saturated models give, leave no NaN behind."""
    log_probs = np.full((1, 4, 4), -np.inf, dtype=np.float32)
    log_probs[0, np.arange(4), [1, 1, 0, 1]] = 0.0
    with np.errstate(invalid="raise"):
        result = search(log_probs, beam=5)
    assert hypotheses(result) == [(4, 4)] and result.scores[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.integers(-6, 3), min_size=4, max_size=4), min_size=0, max_size=5),
    beam=st.integers(1, 6),
    weight=st.sampled_from([0.0, 0.4, 1.0]),
    bonus=st.sampled_from([0.0, 1.0, -1.0]),
)
def test_what_is_found_can_be_and_scores_are_parts_of_its_probability(
    scores: list[list[int]], beam: int, weight: float, bonus: float
) -> None:
    raw = np.array(scores, dtype=np.float64).reshape(1, len(scores), 4)
    log_probs = (raw - np.log(np.exp(raw).sum(-1, keepdims=True))).astype(np.float32)
    result = search(log_probs, beam=beam, lm=bigram_lm(), lm_weight=weight, token_bonus=bonus)
    sums = enumerate_all(log_probs[0])
    (found,) = hypotheses(result)
    assert found in sums
    assert result.scores[0] <= sums[found] + 1e-5
    for token, score in zip(found, result.token_scores[0], strict=True):
        assert score in log_probs[0, :, LABELS.tolist().index(token)]


def test_long_sentences_with_many_merges_keep_prefixes_apart() -> None:
    """Two labels over 60 positions: prefixes leave the beam and come back; none may be counted twice."""
    log_probs = np.log(np.full((4, 60, 4), 1e-4, dtype=np.float32))
    log_probs[:, :, :3] = np.log(np.random.default_rng(6).dirichlet([1.0, 1.0, 1.0], size=(4, 60)) * 0.9999 + 1e-9)
    result = search(log_probs, beam=12)
    for row, found in enumerate(hypotheses(result)):
        assert result.scores[row] <= forward_log_prob(log_probs[row], found) + 1e-4


def forward_log_prob(log_probs: np.ndarray, target: tuple[int, ...]) -> float:
    """The CTC forward algorithm of Graves et al. (2006)."""
    states = [BLANK]
    for label in target:
        states += [label, BLANK]
    column = {int(label): i for i, label in enumerate(LABELS)}
    alpha = np.full(len(states), -np.inf)
    for t, row in enumerate(log_probs.astype(np.float64)):
        before = alpha
        alpha = np.full(len(states), -np.inf)
        for s, label in enumerate(states):
            paths = [before[s]] + ([before[s - 1]] if s else [])
            if s > 1 and label != BLANK and label != states[s - 2]:
                paths.append(before[s - 2])
            start = 0.0 if t == 0 and s < 2 else -np.inf
            alpha[s] = np.logaddexp.reduce([start, *paths] if t == 0 else paths) + row[column[label]]
    return float(np.logaddexp.reduce(alpha[-2:]))


def test_neither_torch_nor_fairseq_is_loaded() -> None:
    code = "import sys, nat_plugin.decoding.beam_search; print({'torch', 'fairseq'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def test_wrong_options_are_all_named() -> None:
    with pytest.raises(UserError) as caught:
        BeamOptions(0, candidates=0, lm_weight=-1.0, token_bonus=float("nan"))
    for part in ("4 problems", "beam 0: expected 1 or more", "candidates 0", "weight -1.0", "token bonus nan"):
        assert part in str(caught.value)


@pytest.mark.parametrize("beam", [10**8, 10**18])
def test_too_little_memory_is_told_with_what_to_lower(beam: int) -> None:
    message = (
        rf"too little memory for beam {beam}, 4 candidates, 2 sentences at once \(.+\); lower --ctc-beam first .*, "
        r"then --ctc-candidates or the batch size"
    )
    with pytest.raises(UserError, match=message):
        search(distributions((2, 3)), [3, 2], beam=beam)


def test_nan_and_shapes_that_do_not_fit_are_refused() -> None:
    log_probs = distributions((2, 3))
    log_probs[1, 2, 3] = np.nan
    with pytest.raises(UserError, match="sentence 1, position 2: a log-probability is NaN"):
        search(log_probs, beam=2)
    with pytest.raises(UserError, match="expected 0 to 3 positions"):
        search(distributions((2, 3)), [3, 4], beam=2)
    with pytest.raises(UserError, match=r"found \[2, 3, 4\], \[2, 3, 4\], \[2, 3\] and \[1\]"):
        search(distributions((2, 3)), [3], beam=2)
    with pytest.raises(UserError, match="at least 1 label"):
        none = np.zeros((1, 2, 0), dtype=np.float32)
        ctc_beam_search(
            none, none.astype(int), np.zeros((1, 2)), np.array([2]), blank=BLANK, pad=PAD, options=BeamOptions(2)
        )
