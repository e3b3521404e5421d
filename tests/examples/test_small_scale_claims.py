"""The rule of the small-scale reproduction's verdicts, what counts against them, and what is drawn and shown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.ctc_nat_small_scale import claims, diagnosis, result_figures, runs_read, tables
from examples.ctc_nat_small_scale.grid import BASELINE, ROWS, expected
from examples.ctc_nat_small_scale.runs_read import Key
from tests.examples.small_scale_runs import speed_entry


def test_speed_verdicts():
    measured = [speed_entry("ours_fp32", 50, 60), speed_entry("ours_onnx_int8", 100, 120)]
    measured += [speed_entry("fairseq_fp32_beam5", 10, 12), speed_entry("ctranslate2_int8_beam1", 115, 130)]
    found = claims.speed_findings([*measured, speed_entry("ctranslate2_int8_beam5", 200, 220)])
    assert [one.verdict for one in found] == [claims.HOLDS, claims.NOISE, claims.FAILS]
    assert all("ours_onnx_int8" in one.ours for one in found)
    assert found[0].times == pytest.approx(10)


def test_the_rule_of_the_verdicts():
    assert claims.verdict([]) == claims.NOT_RUN
    assert claims.verdict([(1.0, 0.01), (0.2, 0.049)]) == claims.HOLDS
    assert claims.verdict([(1.0, 0.01), (0.2, 0.05)]) == claims.NOISE
    assert claims.verdict([(1.0, 0.01), (-1.0, 0.01)]) == claims.NOISE
    assert claims.verdict([(-1.0, 0.01), (-0.1, 0.02)]) == claims.FAILS
    assert claims.overall([claims.HOLDS, claims.NOT_RUN]) == claims.HOLDS
    assert claims.overall([claims.HOLDS, claims.NOISE]) == claims.DIFFERS
    assert claims.overall([claims.NOT_RUN]) == claims.overall([]) == claims.NOT_RUN


def evaluation(seed: int, bleu: float, chrf: float = 30.0, seconds: float = 600) -> runs_read.Evaluation:
    key = Key("de-en", "pmlm", seed, "greedy")
    return runs_read.Evaluation(key, bleu, chrf, {}, 1.0, 1.0, True, ["a"], seconds, 900, "log")


def pair(bleu: tuple[float, float], chrf=(30.0, 30.0), seconds=(600.0, 600.0), seed: int = 1) -> claims.SeedPair:
    return claims.SeedPair(*(evaluation(seed, *told) for told in zip(bleu, chrf, seconds, strict=True)), {})


@pytest.mark.parametrize(
    ("pairs", "caution"),
    [
        ([pair((4.9, 20)), pair((4.9, 20))], "BLEU 4.9: below 5"),
        ([pair((20, 19))], r"difference \(1.00\) is no larger than the spread of the seeds \(1.50\)"),
        ([pair((20, 10), seconds=(600, 300))] * 2, "10.0 against 5.0 minutes"),
        ([pair((20, 10), chrf=(30, 31))] * 2, "chrF2 says the opposite for 2 of 2"),
    ],
)
def test_what_counts_against_a_verdict(pairs, caution):
    (found,) = claims.cautions(pairs, (None, 1.5))
    assert re.search(caution, found)


def test_nothing_counts_against_a_clear_one():
    assert claims.cautions([pair((20, 10)), pair((20.5, 11))], (0.5, 1)) == []
    assert claims.cautions([pair((20, 10))], (None, None)) == claims.cautions([]) == []


def test_every_claim_and_reference_names_rows_of_the_grid():
    known = {BASELINE, *ROWS}
    for one in claims.CLAIMS:
        assert {one.system[0], one.reference[0]} <= known
    assert set(claims.REFERENCE_ROWS) == set(ROWS)
    assert set(claims.REFERENCE_ROWS.values()) <= known
    shown = {row for rows in result_figures.CURVES.values() for row in rows}
    assert shown == known
    assert {one.row for size in ("tiny", "cpu", "small", "full") for one in expected(size)} == known


@given(st.lists(st.text(), max_size=40), st.integers(0, 10))
def test_samples_are_drawn_once_and_for_all(sources, count):
    chosen = diagnosis.sample_lines(sources, count)
    assert chosen == diagnosis.sample_lines(sources, count) == sorted(set(chosen))
    assert len(chosen) == min(count, len(sources))
    assert all(0 <= i < len(sources) for i in chosen)


@given(st.lists(st.text()))
def test_every_sentence_with_a_word_is_in_one_bucket(sources):
    members = [i for bucket in diagnosis.bucket_members(sources) for i in bucket]
    assert sorted(members) == [i for i, line in enumerate(sources) if line.split()]


@given(st.text())
def test_any_text_stays_in_its_cell(text):
    shown = tables.cell_text(text)
    assert len(shown.splitlines()) <= 1
    assert "|" not in shown.replace("\\|", "")
    assert "<" not in shown


def test_logs_that_differ_in_the_seed_are_one_path():
    assert tables.merged_logs(["rows/a/seed1/logs/train.log", "rows/a/seed12/logs/train.log"]) == (
        "rows/a/seed{1,12}/logs/train.log"
    )
    assert tables.merged_logs(["a/seed1/x", "b/seed2/x"]) == "a/seed1/x, b/seed2/x"
    assert tables.merged_logs(["a/seed1/x"]) == "a/seed1/x"
    assert tables.merged_logs([]) == ""


def test_alignment_figures_are_linked_and_stale_ones_removed(tmp_path):
    for name in ("alignment-pmlm.png", "bleu.png"):
        (tmp_path / name).write_bytes(b"of an earlier run")
    runs = runs_read.Runs(tmp_path, {}, {})
    drawn, left_out = result_figures.draw_all(runs, tmp_path, None)
    assert list(drawn.values()) == [tmp_path / "alignment-pmlm.png"]
    assert not (tmp_path / "bleu.png").exists()
    assert any("BLEU by row: there is no evaluation" in reason for reason in left_out)
