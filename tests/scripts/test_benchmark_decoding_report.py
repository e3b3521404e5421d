import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.benchmarks.decoding_plot import draw, spread
from scripts.benchmarks.decoding_report import (
    best_of_ours,
    named_ratios,
    percentile,
    ratios_of,
    rows_of,
    table,
    verdict,
)
from scripts.benchmarks.decoding_run import agreement
from scripts.benchmarks.decoding_systems import SYSTEMS, Turn
from scripts.benchmarks.steps import Step


def step(*seconds, tokens=((5, 6),)):
    return Step(sum(seconds), 10.0, Turn(list(seconds), 100.0, 20.0, [list(row) for row in tokens]))


RESULTS = {
    "even/batch1": {
        "ours_fp32": [step(0.5), step(0.7), step(0.6)],
        "ours_onnx_int8": [step(0.1), step(0.3), step(0.2)],
        "fairseq_fp32_beam5": [step(1.0), step(1.2), step(4.0)],
        "ctranslate2_int8_beam1": [step(0.05), step(0.3), step(0.1)],
    },
    "even/batch32": {
        "ours_fp32": [step(1.0, tokens=[(5,)] * 32)],
        "fairseq_fp32_beam1": [step(0.5, tokens=[(5,)] * 32)],
    },
}


def test_ratios_are_medians_of_pairs_against_our_fastest():
    assert best_of_ours(RESULTS["even/batch1"]) == "ours_onnx_int8"
    ratios = ratios_of("base", RESULTS)
    assert ratios["base/even/batch1/fairseq_fp32_beam5"] == pytest.approx(10)  # of 10, 4, 20
    assert ratios["base/even/batch1/ctranslate2_int8_beam1"] == pytest.approx(0.5)
    assert ratios["base/even/batch1/fairseq_fp32_beam5/ours_fp32"] == pytest.approx(2)  # of 2, 12/7, 20/3
    assert ratios["base/even/batch1/ctranslate2_int8_beam1/ours_onnx_int8"] == pytest.approx(0.5)
    assert named_ratios("base", ratios) == pytest.approx(
        {"batch1/fairseq_beam5": 10, "batch1/ctranslate2_int8_beam1": 0.5, "batch32/fairseq_beam1": 0.5}
    )


def test_rows():
    rows = rows_of("base", RESULTS)
    assert rows["base/even/batch1/ours_fp32/ms_per_sentence"] == pytest.approx({"min": 500, "median": 600, "max": 700})
    assert rows["base/even/batch32/ours_fp32/sentences_per_s"]["median"] == pytest.approx(32)
    assert rows["base/even/batch1/ours_fp32/latency_p95_ms"]["median"] == pytest.approx(600)
    assert rows["base/even/batch1/ours_fp32/latency_all_ms"]["p95"] == pytest.approx(700)
    assert "base/even/batch32/ours_fp32/latency_p95_ms" not in rows
    assert rows["base/even/batch1/ours_fp32/resident_peak_mib"]["max"] == 100
    assert rows["base/even/batch1/ours_fp32/extra_peak_mib"]["max"] == 20
    assert len(list(table("base", RESULTS))) == 2 * 2 + 6


def test_percentiles_by_nearest_rank():
    values = [float(n) for n in range(20, 0, -1)]
    assert [percentile(values, share) for share in (0.05, 0.5, 0.95, 1.0)] == [1, 10, 19, 20]
    assert percentile([7.0], 0.5) == 7


def test_the_verdict_says_where_we_lose():
    said = "\n".join(verdict("base", RESULTS, device="cpu"))
    assert "base/even/batch1: our best is ours_onnx_int8.\n  faster than fairseq_fp32_beam5 (10.00x)" in said
    assert "SLOWER than ctranslate2_int8_beam1 (by 2.00x)" in said
    assert "SLOWER than fairseq_fp32_beam1 (by 2.00x)" in said
    assert "on a CPU, that way of comparing gives 10.0x" in said
    assert "it is 0.5x at batch 1" in said


def test_agreement_with_float32():
    results = {
        "ours_fp32": [step(1.0, tokens=[(5, 6), (7,)])],
        "ours_onnx_fp32": [step(1.0, tokens=[(5, 6), (8,)])],
        "fairseq_fp32_beam1": [step(1.0, tokens=[(5, 2), (7, 2)])],
        "ctranslate2_fp32_beam1": [step(1.0, tokens=[(5, 9), (7, 9)])],
        "huggingface_fp32_beam1": [step(1.0, tokens=[(5, 9), (7, 9)])],
    }
    assert agreement(results) == {"ours_onnx_fp32": 0.5, "ctranslate2_fp32_beam1": 1.0}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12).map(sorted), st.floats(0.01, 20))
def test_labels_move_apart_and_keep_their_order_and_centre(places, gap):
    moved = spread(places, gap)
    assert all(b - a >= gap * (1 - 1e-6) - 1e-9 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(places), abs=1e-6)


def test_every_system_can_be_drawn(tmp_path):
    rows = {
        f"base/even/batch{batch}/{name}/sentences_per_s": {"min": 1 + k, "median": 2 + k, "max": 3 + k}
        for k, name in enumerate(SYSTEMS)
        for batch in (1, 32)
    }
    speed = {"min": 1.0, "median": 2.0, "max": 3.0}
    trained = [{"model": "m", "system": "ours_fp32", "batch": 32, "sentences_per_s": speed, "bleu": 20.0}]
    settings = {"sizes_measured": {"base": {"tokens": 25}}, "threads": 2}
    for extra in ({}, {"trained": [*trained, {"model": "m", "system": "ours_bf16", "left_out": "why"}]}):
        draw({"rows": rows, "settings": settings, "machine": {"cpu": "a CPU"}} | extra, f"{tmp_path}/a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
