"""Tables, verdicts and figures of the small-scale reproduction, from folders with real scores of small texts."""

import json
import re
import shutil
from pathlib import Path

import pytest

from examples.ctc_nat_small_scale import bootstrap, claims, diagnosis, result_figures, results, runs_read, tables
from examples.ctc_nat_small_scale.grid import BASELINE, Expected, expected
from examples.ctc_nat_small_scale.runs_read import BLEU, CHRF
from nat_plugin.scoring import plain_significance
from plugin_common.errors import UserError
from tests.examples.small_scale_runs import LINES, add_grid, add_run, damaged, references, speed_entry


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """de-en with three rows and the baseline, two seeds of two of them, one evaluation of each but one."""
    work = tmp_path_factory.mktemp("small")
    rows = [("at", 1, ("beam5", "beam1")), ("random", 1, ("greedy",)), ("random", 2, ("greedy",))]
    rows += [("pmlm", 1, ("greedy", "single")), ("pmlm", 2, ("greedy",)), ("distill", 1, ("greedy",))]
    add_grid(work, [Expected("de-en", *row) for row in rows])
    return work


@pytest.fixture
def own(small, tmp_path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(small, tmp_path / "work")


@pytest.fixture(scope="module")
def made(small, tmp_path_factory) -> Path:
    """The report of ``small``."""
    output = tmp_path_factory.mktemp("report")
    assert results.main(["--work", str(small), "--size", "cpu", "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def content(made) -> dict:
    return json.loads((made / "results.json").read_text(encoding="utf-8"))


def row(content: dict, name: str, evaluation: str = "greedy", direction: str = "de-en") -> dict:
    wanted = (direction, name, evaluation)
    (found,) = [one for one in content["rows"] if (one["direction"], one["row"], one["evaluation"]) == wanted]
    return found


def claim(content: dict, name: str, direction: str = "de-en") -> dict:
    (found,) = [one for one in content["claims"] if (one["claim"], one["direction"]) == (name, direction)]
    return found


def test_scores_are_those_of_the_files(small, content):
    pmlm = row(content, "pmlm")
    for seed in (1, 2):
        told = json.loads((small / f"rows/de-en/pmlm/seed{seed}/greedy/scores.json").read_text(encoding="utf-8"))
        values = {entry["name"]: entry["value"] for entry in told["scores"]}
        assert (pmlm["bleu"][str(seed)], pmlm["chrf"][str(seed)]) == (values[BLEU], values[CHRF])
    assert (pmlm["updates"], pmlm["minutes"]) == (900, 10.0)
    assert pmlm["logs"] == [f"rows/de-en/pmlm/seed{seed}/logs/train.log" for seed in (1, 2)]
    assert set(content["signatures"]) == {BLEU, CHRF}


def test_a_row_is_compared_with_its_reference_seed_by_seed(content):
    pmlm, random_init, baseline = row(content, "pmlm"), row(content, "random"), row(content, BASELINE, "beam5")
    deltas = [pmlm["bleu"][seed] - random_init["bleu"][seed] for seed in "12"]
    assert pmlm["delta"] == pytest.approx(sum(deltas) / 2)
    assert pmlm["delta_at"] == pytest.approx(pmlm["bleu"]["1"] - baseline["bleu"]["1"])  # which has seed 1 only


def test_verdicts_follow_the_bootstrap(small, content):
    """random: far behind for both seeds; distill: ahead of the first seed of pmlm by a little."""
    found = claim(content, "pmlm-init")
    assert found["verdict"] == claims.HOLDS
    hypotheses = {
        name: (small / f"rows/de-en/{name}/seed2/greedy/hypotheses.en").read_text(encoding="utf-8").split("\n")[:-1]
        for name in ("random", "pmlm")
    }
    bleu, _ = plain_significance(hypotheses["random"], hypotheses["pmlm"], references(small, "de-en"))
    assert found["pairs"][1]["p"] == bleu.p_value
    assert found["pairs"][1]["signature"] == bleu.signature
    assert "bs:1000|seed:12345" in bleu.signature
    assert claim(content, "distillation")["verdict"] == claims.NOISE
    assert claim(content, "mask-insertion")["verdict"] == claims.NOT_RUN
    assert claim(content, "pmlm-init", "en-ro")["verdict"] == claims.NOT_RUN


def test_only_equal_seeds_are_compared_and_their_number_is_told(made, content):
    assert [pair["seed"] for pair in claim(content, "distillation")["pairs"]] == [1]
    assert [pair["seed"] for pair in claim(content, "pmlm-init")["pairs"]] == [1, 2]
    report = (made / "results.md").read_text(encoding="utf-8")
    assert re.search(r"Embedding distillation adds .* within noise [+-][\d.]+, 1 seed \(!\) \|", report)
    assert re.search(r"Starting from the masked LM beats .* holds \+[\d.]+, 2 seeds \|", report)


def test_what_the_grid_asks_for_and_is_not_there_is_missing(made, content):
    report = (made / "results.md").read_text(encoding="utf-8")
    there = {"at/1/beam5", "at/1/beam1", "random/1/greedy", "random/2/greedy", "pmlm/1/greedy", "pmlm/1/single"}
    there |= {"pmlm/2/greedy", "distill/1/greedy"}
    asked = {f"{one.direction}/{one.row}/{one.seed}/{name}" for one in expected("cpu") for name in one.evaluations}
    assert set(content["missing"]) == asked - {f"de-en/{name}" for name in there}
    assert "- de-en glancing: seed 1 greedy" in report
    line = next(line for line in report.split("\n") if line.startswith("| glancing |"))
    assert "1: missing" in line


def test_the_report_shows_every_score_with_its_log(made, content):
    report = (made / "results.md").read_text(encoding="utf-8")
    line = next(line for line in report.split("\n") if line.startswith("| pmlm | PMLM init"))
    assert "rows/de-en/pmlm/seed{1,2}/logs/train.log" in line
    assert f"1: {row(content, 'pmlm')['bleu']['1']:.2f}, 2: {row(content, 'pmlm')['bleu']['2']:.2f}" in line
    for signature in content["signatures"].values():
        assert signature in report
    assert claims.RULE in report


def test_every_table_is_whole(made):
    """All lines of a table have as many cells as its head, whatever the text in them."""
    blocks = (made / "results.md").read_text(encoding="utf-8").split("\n\n")
    shown = [block.split("\n") for block in blocks if block.startswith("|")]
    assert len(shown) > 15
    for lines in shown:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, lines[0]


def test_the_figures_are_drawn_and_linked(made, content):
    report = (made / "results.md").read_text(encoding="utf-8")
    assert list(content["figures"]) == [
        "BLEU by row", "Training, de-en, main rows: validation, first seed of each row"
    ]  # fmt: skip
    for file in content["figures"].values():
        assert (made / file).read_bytes().startswith(b"\x89PNG")
        assert f"]({file})" in report
    assert any("loss.jsonl" in note for note in content["notes"])
    assert any("speed.json" in note for note in content["notes"])


def test_the_same_files_give_the_same_report_without_a_new_comparison(small, made, monkeypatch):
    before = {name: (made / name).read_bytes() for name in ("results.json", "results.md", "figures/bleu.png")}
    monkeypatch.setattr(bootstrap, "plain_significance", None)  # would fail if called
    assert results.main(["--work", str(small), "--size", "cpu", "--output", str(made)]) == 0
    assert before == {name: (made / name).read_bytes() for name in before}


def test_other_translations_are_compared_anew(small, tmp_path):
    lines = references(small, "de-en")
    one, two = damaged(lines, 0.2, "a"), damaged(lines, 0.6, "b")
    first = bootstrap.Bootstrap(tmp_path / "cache.json", samples=50)
    assert first.compare(one, two, lines)[BLEU].p_value < 0.05
    again = bootstrap.Bootstrap(tmp_path / "cache.json", samples=50)
    assert again.compare(one, two, lines) == first.compare(one, two, lines)
    assert again.compare(two, one, lines)[BLEU].system > again.compare(one, two, lines)[BLEU].system
    assert (again.made, again.remembered) == (1, 2)


def test_a_broken_memory_is_made_anew(small, tmp_path):
    (tmp_path / "cache.json").write_text('{"a": [')
    lines = references(small, "de-en")
    found = bootstrap.Bootstrap(tmp_path / "cache.json", samples=20).compare(lines, lines, lines)
    assert found[BLEU].p_value == 1.0


def test_broken_scores_are_named_all_at_once(own, capsys):
    scores = own / "rows/de-en/pmlm/seed1/greedy/scores.json"
    scores.write_text("{")
    other = own / "rows/de-en/random/seed1/greedy/scores.json"
    told = json.loads(other.read_text())
    other.write_text(json.dumps(told | {"scores": told["scores"][:1], "seed": 7}))
    assert results.main(["--work", str(own)]) == 1
    message = capsys.readouterr().err
    assert str(scores) in message
    assert "not a JSON file" in message
    assert f"no number for {CHRF} in scores" in message
    assert "its place is that of" in message
    assert not (own / "results" / "results.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": "none"}, f"no number for {BLEU}"),
        ({"scores": [{"name": BLEU, "value": "NaN", "signature": "x"}]}, f"no number for {BLEU}"),
        ({"training_seconds": None}, "no number for training_seconds"),
        ({"updates": True}, "no number for updates"),
        ({"log": 3}, "names no log"),
        ({"direction": "en-de"}, "its place is that of"),
    ],
)
def test_scores_that_lack_something_are_refused(own, change, message):
    scores = own / "rows/de-en/pmlm/seed1/greedy/scores.json"
    scores.write_text(json.dumps(json.loads(scores.read_text()) | change))
    with pytest.raises(UserError, match=message) as error:
        runs_read.read_runs(own, [])
    assert str(scores) in str(error.value)


def test_scores_of_other_translations_are_refused(own):
    file = own / "rows/de-en/pmlm/seed1/greedy/hypotheses.en"
    file.write_text("x\n" * LINES)
    with pytest.raises(UserError, match=r"the translations beside it have 0\.00"):
        runs_read.read_runs(own, [])
    file.write_text("x\n" * (LINES - 1))
    with pytest.raises(UserError, match=f"{LINES - 1} translations of {LINES} test lines"):
        runs_read.read_runs(own, [])
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        runs_read.read_runs(own, [])


def test_scores_of_two_kinds_are_not_mixed(own):
    scores = own / "rows/de-en/pmlm/seed1/greedy/scores.json"
    scores.write_text(scores.read_text().replace("tok:13a", "tok:intl"))
    with pytest.raises(UserError, match="sacreBLEU was computed in 2 ways"):
        runs_read.read_runs(own, [])


def test_a_working_folder_that_is_not_there_or_empty(tmp_path, capsys):
    assert results.main(["--work", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert results.main(["--work", str(tmp_path), "--size", "tiny"]) == 0
    report = (tmp_path / "results" / "results.md").read_text(encoding="utf-8")
    assert "There is no evaluation yet." in report
    assert claims.RULE in report
    assert f"missing: {sum(len(one.evaluations) for one in expected('tiny'))}" in report
    with pytest.raises(SystemExit) as ended:
        results.main([])
    assert ended.value.code == 2


def test_a_missing_training_log_costs_its_figure_only(own):
    shutil.rmtree(own / "rows/de-en/pmlm/seed1/logs")
    runs = runs_read.read_runs(own, [])
    (own / "figures").mkdir()
    skipped = result_figures.draw_training(runs, "de-en", ("random", "pmlm"), own / "figures" / "a.png")
    assert len(skipped) == 1
    assert "pmlm/seed1/logs/train.log" in skipped[0]
    assert diagnosis.infeasible_share(own / "rows/de-en/pmlm/seed1/logs/train.log") is None


def test_what_is_told_of_text_and_pretraining(tmp_path):
    assert results.text_facts(tmp_path / "report.json") == results.pretraining_facts(tmp_path / "loss.jsonl") == []
    counts = {name: {"kept": kept} for name, kept in (("train", 1234), ("valid", 5), ("test", 6))}
    report = {"source": "sample", "most_words": 16, "pairs": {"en-de": counts}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    (told,) = results.text_facts(tmp_path / "report.json")
    assert "sample, at most 16 words a side; pairs of training / validation / test: en-de: 1,234 / 5 / 6." in told
    (tmp_path / "report.json").write_text(json.dumps({**report, "pairs": [1]}))
    with pytest.raises(UserError, match=r"report.json: not a report of corpora.py"):
        results.text_facts(tmp_path / "report.json")
    lines = [{"update": 10, "loss": 5.0, "seconds": 30, "tokens": 99}, {"update": 20, "valid_loss": 4.5, "seconds": 90}]
    (tmp_path / "loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (told,) = results.pretraining_facts(tmp_path / "loss.jsonl")
    assert "20 updates, 99 tokens, 1.5 minutes, validation loss 4.50 nats" in told


def test_pretraining_curve(tmp_path):
    lines = [{"update": 10, "loss": 5.0, "seconds": 1}, {"update": 10, "valid_loss": 4.5, "valid_accuracy": 0.2}]
    lines[1]["by_language"] = {"de": {"loss": 4.6, "accuracy": 0.1}, "en": {"loss": 4.4, "accuracy": 0.3}}
    lines += [{"update": 20, "loss": 4.0}, {"update": 20, "loss": 3.9}]
    file = tmp_path / "loss.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"update": 30, "lo')
    records = result_figures.read_pretraining(file)
    assert records == lines  # the one that was cut off is left out
    assert result_figures._series(records, "loss") == ([10, 20], [5.0, 3.9])
    result_figures.draw_pretraining(file, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
    file.write_text('{"updates": 3}\n')
    with pytest.raises(UserError, match=r"loss.jsonl, line 1: expected a JSON object with update"):
        result_figures.draw_pretraining(file, tmp_path / "p.png")


def test_speed_comes_from_the_benchmarks_report(own):
    (own / "results").mkdir()
    settings = {"sizes_measured": {"small": {}}, "threads": 2}
    trained = [speed_entry("ours_onnx_int8", 100, 120), speed_entry("fairseq_fp32_beam5", 10, 12)]
    report = {"machine": {"cpu": "x"}, "settings": settings, "trained": [*trained, {"system": "a", "left_out": "b"}]}
    file = own / "results" / "speed.json"
    file.write_text(json.dumps(report))
    read = result_figures.read_speed(file)
    assert read["trained"] == trained
    result_figures.draw_speed(read, own / "speed.png")
    assert (own / "speed.png").stat().st_size > 5000
    for broken in ("{", "[]", json.dumps({**report, "trained": []})):
        file.write_text(broken)
        with pytest.raises(UserError, match=r"speed.json: .*make it: .*decoding.py --trained"):
            result_figures.read_speed(file)


def test_diagnosis_counts(own):
    lines = references(own, "de-en")
    hypotheses = ["", "the the file", *lines[2:]]
    add_run(own, "rows/de-en/pmlm/seed1", "greedy", hypotheses)
    shutil.rmtree(own / "rows/de-en/pmlm/seed2")
    found = {one.row: one for one in diagnosis.diagnoses(runs_read.read_runs(own, []), "de-en")}
    base = sum(map(diagnosis.has_repetition, lines[2:]))
    assert found["pmlm"].empty == 1 / LINES
    assert found["pmlm"].repeated == (base + 1) / LINES
    assert found["pmlm"].infeasible == 0.025
    members = diagnosis.bucket_members(runs_read.read_test(own, "de-en").source)
    for scores, lines_of in zip(found["pmlm"].buckets, members, strict=True):
        assert (scores is None) == (not lines_of)
        assert scores is None or 0 in lines_of or 1 in lines_of or scores[CHRF] == pytest.approx(100)


@pytest.mark.slow
def test_a_complete_grid_has_no_missing_row(tmp_path):
    add_grid(tmp_path, expected("tiny"), lines=30)
    assert results.main(["--work", str(tmp_path), "--size", "tiny"]) == 0
    content = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert content["missing"] == []
    assert all(claim(content, one.name)["verdict"] != claims.NOT_RUN for one in claims.CLAIMS)
    report = (tmp_path / "results" / "results.md").read_text(encoding="utf-8")
    assert tables.MISSING not in report.partition("## Claims")[2].replace("translations of one side are missing", "")
