"""Each of the five scripts, as a user starts it, from documents to scores: tiny random models, servers on loopback."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.pairs import read_pairs
from scripts.nid.recipes import tiny
from tests.nid_plugin.evaluation.bench_files import read_lines
from tests.scripts.nid_laboratory import Laboratory, actions, judge, make_arena_hard, make_fastchat, teacher
from tests.toy_teacher import ToyTeacher, completion_of, toy_teacher

pytestmark = pytest.mark.slow
HELD_OUT = 3


@pytest.fixture
def teaching() -> Iterator[ToyTeacher]:
    with toy_teacher(teacher) as server:
        yield server


@pytest.fixture
def judging() -> Iterator[ToyTeacher]:
    with toy_teacher(judge) as server:
        yield server


@pytest.fixture
def laboratory(request: pytest.FixtureRequest, tmp_path: Path, teaching: ToyTeacher, judging: ToyTeacher) -> Laboratory:
    made = Laboratory(request.param, tmp_path)
    made.make_base()
    made.words += ["--teacher-url", teaching.base_url, "--judge-url", judging.base_url, "--judge", "toy-judge"]
    made.words += ["--set", "audit.decontaminate-shortest=3"]  # the toy benchmarks' questions are short
    return made


def mt_bench(laboratory: Laboratory) -> tuple[str, str]:
    return "--mt-bench", str(make_fastchat(laboratory.folder / "fastchat"))


def arena_hard(laboratory: Laboratory, *, older: bool = False) -> tuple[str, str]:
    return "--arena-hard", str(make_arena_hard(laboratory.folder / "arena", older=older))


def summary(laboratory: Laboratory, data: str = "toy-teacher") -> dict[str, Any]:
    path = laboratory.work / f"summary-{laboratory.recipe.name}-{data}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def trained_on(laboratory: Laboratory, file: str) -> dict[str, str]:
    """Completions by prompt of a file under ``completions/toy-teacher``."""
    path = laboratory.work / "completions" / "toy-teacher" / file
    return {pair.prompt: pair.completion for pair in read_pairs(str(path))}


@pytest.mark.parametrize("laboratory", ["llama2_7b"], indirect=True)
def test_from_documents_to_both_benchmarks_and_then_a_control(laboratory: Laboratory, teaching: ToyTeacher) -> None:
    options = (*mt_bench(laboratory), *arena_hard(laboratory))
    first = laboratory.run(*options)
    assert len(first) == 15
    assert set(first.values()) == {"done"}
    documents = tiny(laboratory.recipe).data.documents
    assert sorted(teaching.times().values()) == [1] * documents
    teachers, held_back = trained_on(laboratory, "split/train.jsonl"), trained_on(laboratory, "split/valid.jsonl")
    assert (len(teachers), len(held_back)) == (documents - HELD_OUT, HELD_OUT)
    assert all(completion == completion_of(prompt).strip() or completion == completion_of(prompt)
               for prompt, completion in (teachers | held_back).items())  # fmt: skip
    adapter = laboratory.work / "models" / "llama2_7b-toy-teacher" / "adapter"
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {p.name for p in adapter.iterdir()}
    answers = {name: read_lines(laboratory.work / "answers/mt-bench" / f"llama2_7b-{name}.jsonl")
               for name in ("base", "toy-teacher")}  # fmt: skip
    assert all(len(record["choices"][0]["turns"]) == 2 for own in answers.values() for record in own)
    assert [r["choices"] for r in answers["base"]] != [r["choices"] for r in answers["toy-teacher"]]
    scores = summary(laboratory)["scores"]
    for which in ("base", "tuned"):
        mt, arena = scores["mt-bench"][which], scores["arena-hard"][which]
        assert (mt["n"], mt["unparsed"], mt["missing"]) == (16, 0, 0)
        assert 1 <= mt["score"] <= 10
        assert (arena["n"], arena["unparsed"], arena["missing"]) == (4, 0, 0)
        assert 0 <= arena["score"] <= 100
    assert set(laboratory.run(*options).values()) == {"skipped"}

    until = (*options, "--control", "second-half", "--until", "train")
    control = laboratory.run(*until)
    assert {name for name, action in control.items() if action == "done"} == {"control", "split", "train"}
    seconds = trained_on(laboratory, "split-second-half/train.jsonl")
    assert seconds.keys() == teachers.keys()
    halves = read_lines(laboratory.work / "documents" / "halves.jsonl")
    assert all(seconds[half["prompt"]] == half["second_half"] for half in halves if half["prompt"] in seconds)
    assert trained_on(laboratory, "split-second-half/valid.jsonl").keys() == held_back.keys()
    assert sorted(teaching.times().values()) == [1] * documents


@pytest.mark.parametrize("laboratory", ["llama3_8b"], indirect=True)
def test_a_subset_is_trained_on_and_another_base_runs_what_depends_on_it(laboratory: Laboratory) -> None:
    options = ("--control", "subset-5", *mt_bench(laboratory))
    assert set(laboratory.run(*options).values()) == {"done"}
    assert len(trained_on(laboratory, "subset-5/pairs-5.jsonl")) == 5
    assert (
        trained_on(laboratory, "subset-5/pairs-5.jsonl").items() <= trained_on(laboratory, "split/train.jsonl").items()
    )
    log = (laboratory.work / "logs/train-llama3_8b-toy-teacher-subset-5.log").read_text(encoding="utf-8")
    assert "subset-5/pairs-5.jsonl" in log
    assert summary(laboratory, "toy-teacher-subset-5")["control"] == "subset-5"
    laboratory.make_base(seed=2)
    assert "   run: changed: BASE" in laboratory.script(*options, "--dry-run").stdout.splitlines()
    after = laboratory.run(*options, "--until", "export")
    assert {name for name, action in after.items() if action == "done"} == {"train", "export"}
    assert (laboratory.work / "models/llama3_8b-toy-teacher-subset-5/checkpoints.before-1").is_dir()


@pytest.mark.parametrize("laboratory", ["mistral_7b"], indirect=True)
def test_filtered_pairs_and_an_older_clone_of_arena_hard(laboratory: Laboratory) -> None:
    assert set(laboratory.run("--control", "filtered", *arena_hard(laboratory, older=True)).values()) == {"done"}
    filtered = trained_on(laboratory, "filtered.jsonl")
    both = trained_on(laboratory, "split-filtered/train.jsonl") | trained_on(laboratory, "split-filtered/valid.jsonl")
    assert both == filtered
    assert summary(laboratory, "toy-teacher-filtered")["scores"]["arena-hard"]["tuned"]["n"] == 4


@pytest.mark.parametrize("laboratory", ["llama3_70b"], indirect=True)
def test_answers_of_an_endpoint(laboratory: Laboratory, judging: ToyTeacher) -> None:
    from tests.toy_teacher import plain_answer

    with toy_teacher(lambda asked: plain_answer(f"{asked.body['model']} says {len(asked.text)}")) as served:
        options = ("--answers-url", served.base_url, *mt_bench(laboratory))
        assert set(laboratory.run(*options).values()) == {"done"}
        assert {asked.path for asked in served.asked} == {"/v1/completions"}
        models = {asked.body["model"] for asked in served.asked}
    assert models == {"llama3_70b-base", "llama3_70b-toy-teacher"}
    assert {asked.body["model"] for asked in judging.asked} == {"toy-judge"}
    assert summary(laboratory)["scores"]["mt-bench"]["tuned"]["n"] == 16


@pytest.mark.parametrize("laboratory", ["llama3_70b_instruct"], indirect=True)
def test_an_interrupted_training_goes_on_and_a_merged_chat_model_is_scored(laboratory: Laboratory) -> None:
    longer = ("--merged", "--set", "train.max-update=60", *mt_bench(laboratory))
    words = ["bash", *laboratory.script_words(*longer)]
    running = subprocess.Popen(words, env=laboratory.environment, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if "held-out loss" in line:
            running.send_signal(signal.SIGTERM)
            break
    running.stdout.read()
    assert running.wait(60) == 143
    done = laboratory.script(*longer)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "(it did not end; goes on with what is there)" in done.stdout
    log = (laboratory.work / "logs/train-llama3_70b_instruct-toy-teacher.log").read_text(encoding="utf-8")
    assert log.count("$ fairseq-train") == 2
    assert "checkpoints/checkpoint_last.pt (epoch" in log  # "Loaded checkpoint …"
    made = actions(done.stdout)
    assert {name for name, action in made.items() if action == "skipped"} == {"documents", "complete", "audit", "split"}
    merged = laboratory.work / "models" / "llama3_70b_instruct-toy-teacher" / "merged"
    assert "<|im_start|>" in (merged / "chat_template.jinja").read_text(encoding="utf-8")
    answers = (laboratory.work / "logs/answer-mt-bench-llama3_70b_instruct-toy-teacher.log").read_text(encoding="utf-8")
    assert f"--model {merged} --pair-format chat" in answers
    assert summary(laboratory)["pair_format"] == "chat"
