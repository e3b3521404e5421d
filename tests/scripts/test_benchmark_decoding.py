import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from plugin_common.errors import UserError
from scripts.benchmarks import decoding_run, decoding_systems
from scripts.benchmarks.decoding_models import SIZES, Batch, batches, random_sentences
from scripts.benchmarks.decoding_run import random_models, started, workloads
from scripts.benchmarks.decoding_systems import (
    QUICK,
    SYSTEMS,
    DecodingSteps,
    Models,
    Turn,
    Workload,
    make_side,
    missing,
)
from scripts.benchmarks.decoding_trained import read_spec
from scripts.benchmarks.decoding_translator import TranslatorSteps, text_lines
from scripts.benchmarks.steps import Step

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "decoding.py"
TRY = SIZES["try"]
NAMED = {f"batch1/{peer}" for peer in ("fairseq_beam5", "fairseq_beam1", "ctranslate2_int8_beam1")} | {
    f"batch32/{peer}" for peer in ("fairseq_beam1", "ctranslate2_int8_beam1")
}
needs_ctranslate2 = pytest.mark.skipif(importlib.util.find_spec("ctranslate2") is None, reason="optional")


@pytest.fixture(scope="module", autouse=True)
def logging_as_before():
    """The processes of the benchmark switch fairseq's messages off; here that must not outlast this file."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    models = random_models("try", tmp_path_factory.mktemp("models"))
    for side, name in (("ours", "ours_fp32"), ("theirs", "fairseq_fp32_beam1")):
        parameters, failed = make_side(models, side, [name])
        assert parameters > 40_000 and failed == {}
    return models


@pytest.fixture(scope="module")
def converted(models):
    assert make_side(models, "theirs", ["ctranslate2_fp32_beam1"])[1] == {}
    return models


def translated(name, models, rows, target_length=TRY.tokens):
    system = decoding_systems.load(name, models, 1, "cpu")
    return system.token_ids(system.translate(system.prepare(Batch(rows, target_length))))


# ---- sentences ------------------------------------------------------------------------------------------------------


def test_sentences_are_the_same_each_time_and_of_ordinary_words():
    for name in ("even", "ragged"):
        rows = random_sentences(SIZES["base"], name, 33)
        assert rows == random_sentences(SIZES["base"], name, 33)
        assert all(4 <= token < 31_999 for row in rows for token in row)
    assert {len(row) for row in random_sentences(SIZES["base"], "even", 5)} == {25}
    lengths = [len(row) for row in random_sentences(SIZES["base"], "ragged", 33)]
    assert (min(lengths), max(lengths), sum(lengths) / 33) == (10, 40, 25)
    assert lengths != sorted(lengths)


def test_batches_hold_every_sentence_and_targets_of_its_length():
    rows = random_sentences(TRY, "ragged", 10)
    made = batches(rows, 4, forced=True)
    assert [len(batch.rows) for batch in made] == [4, 4, 2]
    assert sorted(map(tuple, rows)) == sorted(tuple(row) for batch in made for row in batch.rows)
    for batch in made:
        lengths = [len(row) for row in batch.rows]
        assert min(lengths) <= batch.target_length <= max(lengths)
    assert [batch.target_length for batch in batches(rows, 4, forced=False)] == [None] * 3


def test_workloads():
    full = workloads(["even", "ragged"], [1, 8, 128], quick=False)
    assert [(w.sentences, w.batch, w.count) for w in full] == [
        ("even", 1, 20), ("even", 8, 32), ("ragged", 8, 32), ("even", 128, 128),
    ]  # fmt: skip
    assert [w.count for w in workloads(["even"], [1, 32], quick=True)] == [2, 32]


# ---- systems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 5])
def test_left_to_right_systems_make_as_many_tokens_as_the_source_has(models, beam):
    rows = random_sentences(TRY, "ragged", 3)
    for name in (f"fairseq_fp32_beam{beam}", f"fairseq_bf16_beam{beam}", f"huggingface_fp32_beam{beam}"):
        assert [len(row) for row in translated(name, models, rows)] == [TRY.tokens] * 3
        assert [len(row) for row in translated(name, models, rows, 5)] == [5] * 3


@needs_ctranslate2
@pytest.mark.parametrize("beam", [1, 5])
def test_ctranslate2_translates_as_the_fairseq_checkpoint_that_it_comes_from(converted, beam):
    rows = random_sentences(TRY, "ragged", 6)
    expected = translated(f"fairseq_fp32_beam{beam}", converted, rows)
    found = translated(f"ctranslate2_fp32_beam{beam}", converted, rows)
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    assert all(len(row) == TRY.tokens for row in translated(f"ctranslate2_int8_beam{beam}", converted, rows))


@pytest.mark.parametrize("name", ["ours_fp32", "fairseq_fp32_beam1"])
def test_translations_come_in_the_order_of_the_sentences(models, name):
    rows = random_sentences(TRY, "ragged", 5)
    together = translated(name, models, rows)
    assert together == [translated(name, models, [row])[0] for row in rows]
    assert len({tuple(row) for row in together}) > 1


def test_a_step_times_every_batch_and_checks_the_lengths(models):
    steps = DecodingSteps("fairseq_fp32_beam1", models, 1, "cpu")
    turn = steps.step(Workload("ragged", 4, 10), False)
    assert (len(turn.seconds), len(turn.tokens), turn.problem) == (3, 10, None)
    assert turn.resident_mib > 50 and turn.extra_mib >= 0  # the peak is that of all tests of this process
    assert len(steps.step(Workload("ragged", 4, 10), True).tokens) == 10  # a batch of each shape
    assert len(steps.step(Workload("even", 4, 8), True).tokens) == 4
    steps.system.token_ids = lambda rows: [row[1:] for row in rows]
    assert steps.step(Workload("even", 4, 4), False).problem == "4 lengths are wrong; the first is 7, not 8"
    steps.system.token_ids = lambda rows: rows[1:]
    assert steps.step(Workload("even", 4, 4), False).problem == "4 sentences in, 3 out"


def test_a_library_that_is_missing_is_told_and_no_error(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ctranslate2" else found(name))
    assert missing("ctranslate2_int8_beam1", "cpu") == "missing: ctranslate2 is not installed"
    assert missing("ours_fp32", "cpu") is None
    assert missing("ours_bf16_cuda_graphs", "cpu") == "runs on cuda only"


@pytest.mark.slow
def test_a_system_that_fails_is_left_out_and_the_others_run(models, monkeypatch):
    monkeypatch.setattr(decoding_run, "REST_SECONDS", 0)
    broken = Models(models.folder, models.ours, models.ours, None)  # no left-to-right checkpoint
    workload = Workload("text", 2, 2, ((5, 6), (7, 8)))
    with started(broken, ["ours_fp32", "fairseq_fp32_beam1"], threads=1, device="cpu") as run:
        results = decoding_run.measure(run, workload, ["ours_fp32", "fairseq_fp32_beam1"], 2)
    assert {name: len(steps) for name, steps in results.items()} == {"ours_fp32": 2}
    assert "Error" in run.left_out["fairseq_fp32_beam1"]


def test_a_system_that_fails_in_a_turn_is_left_out_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(decoding_run, "REST_SECONDS", 0)
    workload = Workload("text", 2, 2, ((5, 6), (7, 8)))
    calls = []
    a_turn = Step(0.1, 10.0, Turn([0.1], 100.0, 20.0, [[5, 6]]))

    def good(asked, warm_up):
        return a_turn

    def bad(asked, warm_up):
        calls.append(warm_up)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return a_turn

    run = decoding_run.Run(Models("", None, None, "try"), {"ours_fp32": good, "ours_bf16": bad})
    results = decoding_run.measure(run, workload, ["ours_fp32", "ours_bf16"], 4)
    assert {name: len(steps) for name, steps in results.items()} == {"ours_fp32": 4}
    assert run.left_out == {"ours_bf16": "text/batch2: out of memory"} and calls == [True, False, False]


# ---- command line ---------------------------------------------------------------------------------------------------


def test_the_quick_systems_give_the_named_ratios():
    for device, names in QUICK.items():
        assert all(SYSTEMS[name].only in (None, device) for name in names)
        assert {"fairseq_fp32_beam5", "fairseq_fp32_beam1", "ctranslate2_int8_beam1"} <= set(names)
        assert any(SYSTEMS[name].ours for name in names)


def test_a_specification_is_checked_as_a_whole(tmp_path):
    spec = tmp_path / "spec.json"
    with pytest.raises(UserError, match=r"spec\.json: not a JSON file that can be read"):
        read_spec(str(spec))
    spec.write_text('{"data": "bin", "source_lang": "de", "target_lang": "en"}')
    with pytest.raises(UserError, match=r"(?s)3 problems.*entry subset is missing.*entry pmlm.*entry reference"):
        read_spec(str(spec))
    told = {"data": "bin", "source_lang": "de", "target_lang": "en", "subset": "test", "pmlm": "p", "reference": "r"}
    spec.write_text(json.dumps(told))
    with pytest.raises(UserError, match="names no model"):
        read_spec(str(spec))
    spec.write_text(json.dumps(told | {"one_pass": {"ours": "model.pt"}}))
    with pytest.raises(UserError, match=r"(?s)4 problems.*bin: no such.*model\.pt: no such"):
        read_spec(str(spec))


def run_script(folder, *options):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", "out.json", "--threads", "1", *options],
        check=False, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text()), done.stdout


@pytest.mark.slow
@needs_ctranslate2
def test_the_quick_report(tmp_path):
    report, shown = run_script(tmp_path, "--sizes", "try", "--quick", "--repeats", "1", "--plot", "out.png")
    assert set(report["ratios"]) >= NAMED | {"try/translator_int8_over_model"}
    assert report["ratios"]["try/translator_int8_over_model"] > 1
    about = report["settings"]["sizes_measured"]["try"]
    assert about["left_out"] == {}
    assert about["output_tokens"]["even/batch1"]["fairseq_fp32_beam5"] == [TRY.tokens] * 2
    assert about["our_best"]["even/batch1"] == "ours_onnx_int8"
    assert "our best is" in shown and "Helcl et al., 2022" in shown
    assert (tmp_path / "out.png").stat().st_size > 10_000


@pytest.mark.slow
def test_trained_models(tmp_path, pieces):
    (tmp_path / "reference").write_text("".join(f"{target}\n" for _, target in pieces.test))
    spec = {"data": str(pieces.bin), "source_lang": "en", "target_lang": "de", "subset": "test"} | {
        "pmlm": str(pieces.pmlm), "reference": "reference", "one_pass": {"toy": str(pieces.checkpoint)},
    }  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    options = ["--sizes", "try", "--batches", "1", "--sets", "even", "--repeats", "1"]
    systems = ["--systems", "ours_fp32", "ours_onnx_fp32"]
    report, _ = run_script(tmp_path, *options, *systems, "--trained", "spec.json")
    in_fairseq, onnx = report["trained"]
    assert [entry["system"] for entry in report["trained"]] == ["ours_fp32", "ours_onnx_fp32"]
    assert in_fairseq["bleu"] == onnx["bleu"] > 50
    assert in_fairseq["sentences"] == 20
    agreed = report["settings"]["sizes_measured"]["try"]["tokens_as_fairseq_fp32"]["even/batch1"]
    assert agreed == {"ours_onnx_fp32": 1.0}


@pytest.mark.slow
def test_the_translator_is_timed_inside_and_out(models):
    assert make_side(models, "ours", ["ours_onnx_int8"])[1] == {}
    steps = TranslatorSteps(f"{models.folder}/export", "int8", 1, text_lines(TRY.tokens))
    shares = steps.step()
    assert 0 < shares.model < shares.whole
