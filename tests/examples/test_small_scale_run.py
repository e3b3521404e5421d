"""The small-scale reproduction: what it consists of, what is made when, and all of it in miniature."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.ctc_nat_small_scale import alignment, corpora, run, schedule, score, units
from examples.ctc_nat_small_scale.commands import Setting
from examples.ctc_nat_small_scale.grid import BASELINE, ROWS, expected
from examples.ctc_nat_small_scale.options import keep_setting, request
from examples.ctc_nat_small_scale.schedule import OUT_OF_TIME, Work
from examples.ctc_nat_small_scale.sizes import DIRECTIONS, SIZES
from examples.ctc_nat_small_scale.units import Unit, identity, is_made, mark_made
from plugin_common.errors import UserError
from plugin_common.stages import Command, Stage

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ctc_nat_small_scale"


def setting(work, **changes):
    return dataclasses.replace(Setting(SIZES["tiny"], Path(work), False, "fp32", 1), **changes)


# ---- what it consists of ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_training_is_asked_for_once_and_the_claims_in_all_directions_and_seeds(size):
    trainings = expected(size)
    names = [(one.direction, one.row, one.seed) for one in trainings]
    assert len(names) == len(set(names))
    for row in (BASELINE, *(row.name for row in ROWS.values() if row.claim)):
        assert {(direction, row, SIZES[size].seeds[0]) for direction in DIRECTIONS} <= set(names)
        assert {("de-en", row, seed) for seed in SIZES[size].seeds} <= set(names)
    assert {row for direction, row, _ in names if direction == "de-en"} == {BASELINE, *ROWS}
    assert trainings[0].direction == "de-en"


@pytest.mark.parametrize("size", SIZES)
def test_a_unit_needs_units_that_are_there_and_stand_before_it(size, tmp_path):
    made = units.units(setting(tmp_path, size=SIZES[size]))
    seen: set[str] = set()
    for unit in made:
        assert set(unit.needs) <= seen, unit.name
        seen.add(unit.name)
    assert len(seen) == len(made)


def test_the_options_of_a_row_are_those_of_its_training(tmp_path):
    made = {unit.name: unit for unit in units.units(setting(tmp_path))}

    def words(row):
        return made[f"rows/de-en/{row}/seed1"].stages[0].commands[0].words

    assert "--random-init" in words("random")
    assert words("random")[words("random").index("--pmlm") + 1].endswith("data/shape")
    assert words("pmlm")[words("pmlm").index("--pmlm") + 1].endswith("pmlm/model")
    assert "token_duplication" in words("duplication")
    assert "--mask-placement" not in words("duplication")
    assert words("ratio2.5")[words("ratio2.5").index("--upsample-ratio") + 1] == "2.5"
    assert "embedding_distillation" in words("distill")
    assert words("kd")[1].endswith("at/de-en/distilled/bin")
    assert "--glancing-start" in words("glancing")
    assert "--glancing-start" not in words("pmlm")


def test_all_wrong_options_are_told_at_once(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    wrong = ["everything", "--size", "huge", "--rows", "x", "--seeds", "one", "--minutes", "-1", "--colour", "red"]
    assert run.main([*wrong, "--work", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    for part in ("everything", "huge", "--rows x", "--seeds one", "--minutes -1", "--colour", "holds files"):
        assert part in told


def test_a_dry_run_makes_nothing(tmp_path, capsys):
    work = tmp_path / "work"
    assert run.main(["all", "--dry-run", "--work", str(work), "--cpu", "--precision", "fp32"]) == 0
    told = capsys.readouterr().out
    assert "== rows/de-en/ratio2.5/seed1 (after data, pmlm)" in told
    assert not work.exists()


# ---- what is made when -----------------------------------------------------------------------------------------------

CHILD = """
import pathlib, sys, time
work, name = pathlib.Path(sys.argv[1]), sys.argv[3]
with (work / "log").open("a") as log:
    log.write(f"start {name}\\n")
if name == "bad":
    sys.exit(3)
time.sleep(60 if name == "slow" else 0.2)
with (work / "log").open("a") as log:
    log.write(f"end {name}\\n")
print("done", name)
"""


def work_of(tmp_path, names_and_needs, *, jobs=2, minutes=None):
    """Units without stages of their own: a script says when it was called."""
    stage = Stage("s", "", ((Command(("true",)),),), (tmp_path / "never",))
    every = [Unit(name, "grid", (stage,), tuple(needs)) for name, needs in names_and_needs.items()]
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    return Work(setting(tmp_path), every, every, [sys.executable, str(script), str(tmp_path)], jobs, minutes)


def test_a_unit_starts_when_what_it_needs_has_ended(tmp_path):
    assert schedule.make(work_of(tmp_path, {"a": [], "b": ["a"], "c": [], "d": ["b", "c"]})) == 0
    log = (tmp_path / "log").read_text().splitlines()
    assert log.index("end a") < log.index("start b")
    assert max(log.index("end b"), log.index("end c")) < log.index("start d")
    assert log.index("start c") < log.index("end a")  # two at a time


def test_what_needs_a_failed_unit_is_left_out_and_the_rest_is_made(tmp_path, capsys):
    assert schedule.make(work_of(tmp_path, {"bad": [], "after": ["bad"], "later": ["after"], "other": []})) == 1
    assert set((tmp_path / "log").read_text().splitlines()) == {"start bad", "start other", "end other"}
    told = capsys.readouterr()
    assert "[bad] FAILED with status 3" in told.out
    assert "[after] left out" in told.err
    assert "[later] left out" in told.err


def test_time_up_stops_the_children(tmp_path):
    started = time.monotonic()
    assert schedule.make(work_of(tmp_path, {"slow": []}, minutes=0.02)) == OUT_OF_TIME
    assert time.monotonic() - started < 15
    assert "end slow" not in (tmp_path / "log").read_text()


def unit_with_file(tmp_path, word="x"):
    output = tmp_path / "work" / "rows" / "scores.json"
    command = Command((sys.executable, "-c", f"open({str(output)!r}, 'w').write({word!r})"))
    weights = tmp_path / "work" / "rows" / "model.pt"
    train = Stage("t", "", ((Command((sys.executable, "-c", f"open({str(weights)!r}, 'w')")),),), (weights,))
    return Unit("rows", "grid", (train, Stage("s", "", ((command,),), (output,), (weights,))))


def test_a_made_unit_may_lose_its_weights_but_not_its_scores_or_its_commands(tmp_path):
    chosen, unit = setting(tmp_path / "work"), unit_with_file(tmp_path)
    every = {"rows": unit}
    assert not is_made(chosen, unit, every)
    run.runner(1).run(units.workspace(chosen, unit), unit.stages)
    assert is_made(chosen, unit, every)
    mark_made(chosen, unit, every)
    (tmp_path / "work/rows/model.pt").unlink()
    assert is_made(chosen, unit, every)
    changed = unit_with_file(tmp_path, "y")
    assert not is_made(chosen, changed, {"rows": changed})
    (tmp_path / "work/rows/scores.json").unlink()
    assert not is_made(chosen, unit, every)


def test_what_a_unit_is_depends_on_what_it_needs(tmp_path):
    chosen, after = setting(tmp_path), Unit("after", "grid", (), ("rows",))
    before = [identity(chosen, after, {"rows": unit_with_file(tmp_path, word), "after": after}) for word in "xyx"]
    assert before[0] == before[2] != before[1]


def test_weights_that_are_gone_are_made_again_when_something_reads_them(tmp_path):
    unit = unit_with_file(tmp_path)
    chosen = setting(tmp_path / "work")
    reader = Unit("reader", "grid", (Stage("r", "", (), (tmp_path / "r",), unit.stages[0].outputs),), ("rows",))
    other = Unit("other", "grid", (Stage("o", "", (), (tmp_path / "o",)),), ("rows",))
    every = {one.name: one for one in (unit, reader, other)}
    run.runner(1).run(units.workspace(chosen, unit), unit.stages)
    mark_made(chosen, unit, every)

    def waiting(*wanted):
        return [one.name for one in Work(chosen, list(every.values()), wanted, [], 1).waiting()]

    assert waiting(reader, other) == ["reader", "other"]
    unit.stages[0].outputs[0].unlink()
    assert waiting(other) == ["other"]
    assert waiting(reader) == ["rows", "reader"]


def test_what_is_timed_runs_alone_and_last(tmp_path):
    work = work_of(tmp_path, {"timed": [], "a": [], "b": [], "timed too": []}, jobs=3)
    work.every = work.chosen = [dataclasses.replace(one, alone="timed" in one.name) for one in work.every]
    assert schedule.make(work) == 0
    log = (tmp_path / "log").read_text().splitlines()
    assert log[4:] == ["start timed", "end timed", "start timed too", "end timed too"]


def test_old_scores_go_before_a_model_is_made_anew(tmp_path):
    chosen, unit = setting(tmp_path / "work"), unit_with_file(tmp_path)
    scores = unit.stages[1].outputs[0]
    run.runner(1).run(units.workspace(chosen, unit), unit.stages)
    units.drop_outdated(chosen, unit)
    assert scores.exists()
    changed = unit_with_file(tmp_path)
    train = dataclasses.replace(changed.stages[0], steps=((Command(("false",)),),))
    units.drop_outdated(chosen, dataclasses.replace(changed, stages=(train, changed.stages[1])))
    assert not scores.exists()


def test_a_folder_keeps_the_setting_that_it_was_begun_with(tmp_path, capsys):
    keep_setting(setting(tmp_path / "work", source="sample", precision="bf16"))
    asked = request(["data", "--work", str(tmp_path / "work"), "--cpu"])
    assert (asked.setting.size.name, asked.setting.source, asked.setting.precision) == ("tiny", "sample", "bf16")
    other = ["data", "--work", str(tmp_path / "work"), "--size", "cpu", "--source", "debian", "--precision", "fp32"]
    assert run.main(other) == 2
    told = capsys.readouterr().err
    for option in ("--size cpu", "--source debian", "--precision fp32"):
        assert option in told


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with run.alone_in(tmp_path), pytest.raises(UserError, match="another run"), run.alone_in(tmp_path):
        pass


def test_chosen_rows_bring_no_results_that_need_others(tmp_path):
    def chosen(*options):
        asked = request([*options, "--work", str(tmp_path / "w"), "--cpu", "--precision", "fp32"])
        return {unit.name for unit in asked.chosen(units.units(asked.setting))}

    few = chosen("all", "--rows", BASELINE, "pmlm", "--directions", "de-en")
    assert {"at/de-en/seed1", "rows/de-en/pmlm/seed1"} <= few
    assert not few & {"at/de-en/distilled", "alignment", "export", "speed", "rows/de-en/distill/seed1"}
    assert "alignment" in chosen("all", "--rows", "pmlm", "duplication", "--directions", "de-en")
    with pytest.raises(UserError, match="no part of grid at size tiny"):
        chosen("grid", "--rows", "glancing", "--directions", "ro-en")


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_the_corpus_is_cut_to_what_is_asked_for_and_counted(tmp_path):
    arguments = ["--source", "sample", "--held-out", "50", "--train-pairs", "300", "--most-words", "5"]
    assert corpora.main([*arguments, "--output", str(tmp_path / "corpora")]) == 0
    report = json.loads((tmp_path / "corpora/report.json").read_text())
    for pair, sides in corpora.PAIRS.items():
        for split, count in report["pairs"][pair].items():
            texts = [(tmp_path / "corpora" / pair / f"{split}.{side}").read_text().splitlines() for side in sides]
            assert len(texts[0]) == len(texts[1]) == count["kept"] <= {"train": 300}.get(split, 50)
            assert max(len(line.split()) for text in texts for line in text) <= 5
            assert count["kept"] + count["too_long"] + count["not_needed"] == count["read"]


def test_the_cost_of_a_training_is_that_of_all_its_epochs_with_what_was_resumed(tmp_path):
    log = tmp_path / "train.log"
    log.write_text(
        "| train_inner | num_updates=50, train_wall=7\n"
        "| INFO | train | epoch 001 | num_updates 100 | lr 1 | gnorm 1 | train_wall 12 | wall 30\n"
        "| INFO | train | epoch 002 | num_updates 150 | lr 1 | gnorm 1 | train_wall 4 | wall 12\n"
        "| INFO | train | epoch 002 | num_updates 200 | lr 1 | gnorm 1 | train_wall 9 | wall 12\n"
    )
    assert score.training_cost(log) == {"updates": 200, "training_seconds": 21}
    log.write_text("nothing")
    with pytest.raises(UserError, match="no number of updates"):
        score.training_cost(log)


def test_the_line_for_the_figure_grows_and_is_translated_best():
    sources = ["a b c", "Spalten nummer", "Name", "x", "Datei"]
    targets = ["d e f", "num ber of a col umn", "a name", "y z w v", " ".join("w" * 30)]
    references = ["def", "number of a column", "a name", "yzwv", "w" * 30]
    assert alignment.telling_line(sources, targets, references, references) == 2
    assert alignment.telling_line(sources, targets, ["def", "number", "a name", "y", "w" * 30], references) == 3
    assert alignment.telling_line(sources[:1], targets[:1], [""], references[:1]) == 1


# ---- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_reproduction_in_miniature(tmp_path):
    """Stopped once on the way, then through to the tables; a second run finds nothing to do."""
    work = tmp_path / "work"
    command = [
        sys.executable,
        EXAMPLE / "run.py",
        "all",
        "--size",
        "tiny",
        "--work",
        work,
        "--source",
        "sample",
        "--cpu",
    ]
    rows = ["--rows", BASELINE, "random", "pmlm", "distill", "duplication", "kd", "glancing", "--directions", "de-en"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def reproduce(*options):
        return subprocess.run([*command, *rows, *options], capture_output=True, text=True, env=environment)

    stopped = reproduce("--minutes", "1")
    assert stopped.returncode == OUT_OF_TIME, stopped.stdout + stopped.stderr
    done = reproduce()
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((work / "results/results.json").read_text())
    assert (work / "results/results.md").exists()
    assert "rows/de-en/pmlm/seed1" not in str(results["missing"])
    assert "ratio3" in str(results["missing"])
    assert (work / "results/figures/alignment-pmlm.png").exists()
    assert (work / "export/de-en/README.md").exists()
    scores = json.loads((work / "rows/de-en/pmlm/seed1/beam/scores.json").read_text())
    assert scores["lines"] == len((work / "data/corpora/en-de/test.en").read_text().splitlines())
    again = reproduce()
    assert again.returncode == 0
    assert "0 parts to make" in again.stdout
