"""``nid answer`` from a folder and an endpoint: the files it writes, field by field; what an interruption costs."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.cli import main
from nid_plugin.evaluation.answers import read_answers
from tests.commands import ROOT
from tests.nid_plugin.evaluation.bench_files import MT_FIRST, arena_questions, mt_questions, read_lines, write_lines
from tests.toy_causal_lm import make_causal_lm
from tests.toy_teacher import Asked, Reply, answer, error, plain_answer, toy_teacher

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(once: Callable[..., Path]) -> Path:
    return once("answering-model", lambda path: make_causal_lm(path / "m", seed=2)) / "m"


def command(bench: str, questions: Path, out: Path, *words: str | Path) -> list[str]:
    given = ["answer", "--bench", bench, "--questions", questions, "--model-id", "my-model", "--out", out, *words]
    return list(map(str, given))


def said_before(asked: Asked) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in asked.body["messages"]]


def talk(asked: Asked) -> Reply:
    """Answers each turn with what was said so far."""
    return answer(f"heard {len(asked.body['messages'])}: {asked.text[-30:]}")


def load_as_fastchat_does(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Model → question → line, read by the documented layout: the file's name is the model's."""
    return {
        path.name[: -len(".jsonl")]: {record["question_id"]: record for record in read_lines(path)}
        for path in sorted(folder.glob("*.jsonl"))
    }


def test_mt_bench_from_an_endpoint(tmp_path: Path, capsys: Capture) -> None:
    questions, out = mt_questions(tmp_path / "q.jsonl"), tmp_path / "out"
    with toy_teacher(talk) as teacher:
        words = command("mt-bench", questions, out, "--model", "served", "--base-url", teacher.base_url)
        assert main(words) == 0
        assert len(teacher.asked) == 16
        written = (out / "my-model.jsonl").read_bytes()
        assert main(words) == 0
        assert len(teacher.asked) == 16 and (out / "my-model.jsonl").read_bytes() == written
    temperatures = {asked.text.split("(")[1].split(")")[0]: asked.body["temperature"] for asked in teacher.asked}
    assert temperatures == {
        "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
        "humanities": 0.1,
    }  # fmt: skip
    assert {asked.body["max_tokens"] for asked in teacher.asked} == {1024}
    second = next(asked for asked in teacher.asked if asked.text == "And now of a town (math).")
    assert said_before(second) == [
        "user: Tell of a river (math).",
        "assistant: heard 1: Tell of a river (math).",
        "user: And now of a town (math).",
    ]
    loaded = load_as_fastchat_does(out)
    assert list(loaded) == ["my-model"] and list(loaded["my-model"]) == list(range(MT_FIRST, MT_FIRST + 8))
    one = loaded["my-model"][84]
    assert list(one) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
    assert one["model_id"] == "my-model" and isinstance(one["answer_id"], str)
    assert one["choices"] == [
        {"index": 0, "turns": ["heard 1: Tell of a river (math).", "heard 3: And now of a town (math)."]}
    ]
    assert abs(one["tstamp"] - time.time()) < 600
    assert len({record["answer_id"] for record in loaded["my-model"].values()}) == 8
    assert "8 of 8 questions answered" in capsys.readouterr().err


def test_arena_hard_from_an_endpoint(tmp_path: Path, capsys: Capture) -> None:
    questions, out = arena_questions(tmp_path / "q.jsonl", 3), tmp_path / "out"
    text = "# Rivers\n- one\n1. two\n**bold**\n```\n# no heading\n```"
    with toy_teacher(lambda asked: answer(text)) as teacher:
        assert main(command("arena-hard", questions, out, "--model", "m", "--base-url", teacher.base_url)) == 0
    assert {(asked.body["temperature"], asked.body["max_tokens"]) for asked in teacher.asked} == {(0.0, 4096)}
    records = read_lines(out / "my-model.jsonl")
    assert [record["uid"] for record in records] == ["uid-0", "uid-1", "uid-2"]
    one = records[1]
    assert list(one) == ["uid", "ans_id", "model", "messages", "tstamp", "metadata"]
    assert one["model"] == "my-model" and isinstance(one["ans_id"], str) and isinstance(one["tstamp"], float)
    assert one["messages"] == [
        {"role": "user", "content": "Tell of river number 1."},
        {"role": "assistant", "content": {"answer": text}},
    ]
    # Their style control reads the values in this order: whole numbers as they are, of the others the sum.
    values = [value if isinstance(value, int) else sum(value.values()) for value in one["metadata"].values()]
    assert list(one["metadata"]) == ["token_len", "header_count", "list_count", "bold_count"]
    assert values[1:] == [1, 2, 1] and values[0] > 10
    assert one["metadata"]["list_count"] == {"ordered": 1, "unordered": 1}
    assert "token_len counts words and punctuation marks" in capsys.readouterr().err


def test_plain_text_from_an_endpoint(tmp_path: Path) -> None:
    questions, out = mt_questions(tmp_path / "q.jsonl"), tmp_path / "out"
    with toy_teacher(lambda asked: plain_answer(f"<{len(asked.text)}>")) as teacher:
        words = command("mt-bench", questions, out, "--model", "m", "--base-url", teacher.base_url)
        assert main([*words, "--api", "completions", "--no-temperature"]) == 0
    prompts = [asked.body["prompt"] for asked in teacher.asked]
    assert "Tell of a river (stem).\n\n<23>\n\nAnd now of a town (stem)." in prompts
    assert not any("temperature" in asked.body for asked in teacher.asked)


def test_a_refused_question_is_told_and_the_rest_is_written(tmp_path: Path, capsys: Capture) -> None:
    questions, out = mt_questions(tmp_path / "q.jsonl"), tmp_path / "out"
    refusing = True

    def reply(asked: Asked) -> Reply:
        if "river (coding)" in asked.text and refusing:
            return error(400, "no")
        return answer("", finish_reason="stop") if "town (stem)" in asked.text else talk(asked)

    with toy_teacher(reply) as teacher:
        words = command("mt-bench", questions, out, "--model", "m", "--base-url", teacher.base_url)
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "7 of 8 questions answered" in said and "answers empty: 1" in said
        assert "1 questions have no answer: 85 (http 400)" in said and "--retry-failed" in said
        assert [record["question_id"] for record in read_lines(out / "my-model.jsonl")] == [81, 82, 83, 84, 86, 87, 88]
        refusing = False
        before = len(teacher.asked)
        assert main(words) == 1 and len(teacher.asked) == before
        assert main([*words, "--retry-failed"]) == 0
        assert len(teacher.asked) == before + 2  # its two turns
    assert [record["question_id"] for record in read_lines(out / "my-model.jsonl")] == list(range(81, 89))


def test_an_answer_of_half_a_character_can_be_judged_all_the_same(tmp_path: Path, capsys: Capture) -> None:
    questions, out = mt_questions(tmp_path / "q.jsonl"), tmp_path / "out"
    write_lines(questions, [line for line in read_lines(questions) if line["category"] == "math"])
    with toy_teacher(lambda asked: answer("so\ud83d" if "river (math)" in asked.text else "yes\u2028")) as teacher:
        assert main(command("mt-bench", questions, out, "--model", "m", "--base-url", teacher.base_url)) == 0
    assert "answers with half characters, replaced by U+FFFD: 1" in capsys.readouterr().err
    found = read_answers(out, "my-model", "mt-bench")
    assert found[84].turns == ("so\ufffd", "yes\u2028")
    second = next(asked for asked in teacher.asked if asked.text == "And now of a town (math).")
    assert second.body["messages"][1]["content"] == "so\ufffd"


def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    questions, out = mt_questions(tmp_path / "q.jsonl"), tmp_path / "out"
    words = command("mt-bench", questions, out, "--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--dry-run")
    assert main([*words, "--price", "1", "10"]) == 0
    said = capsys.readouterr().out
    assert "requests left: 16" in said and "6,400 in answers if they are 400 tokens each, at most 16,384" in said
    assert "cost: about 0.07 dollars" in said and '"temperature": 0.7' in said
    assert not out.exists()


def test_from_a_folder(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    questions, out = mt_questions(tmp_path / "q.jsonl"), tmp_path / "out"
    words = command("mt-bench", questions, out, "--model", folder, "--max-tokens", "12")
    assert main([*words, "--dry-run"]) == 0
    assert "answers left: 16, of at most 12 tokens each" in capsys.readouterr().out and not out.exists()
    assert main(words) == 0
    records = read_lines(out / "my-model.jsonl")
    assert [record["question_id"] for record in records] == list(range(81, 89))
    assert all(len(record["choices"][0]["turns"]) == 2 for record in records)
    again = tmp_path / "again"
    assert (
        main(command("mt-bench", questions, again, "--model", folder, "--max-tokens", "12", "--batch-size", "3")) == 0
    )
    assert [r["choices"] for r in read_lines(again / "my-model.jsonl")] == [r["choices"] for r in records]
    arena = tmp_path / "arena"
    words = command("arena-hard", arena_questions(tmp_path / "a.jsonl"), arena, "--model", folder, "--max-tokens", "12")
    assert main([*words, "--pair-format", "plain"]) == 0
    assert "token_len counts the model's own tokens" in capsys.readouterr().err
    assert main(words) == 1  # the same ledger, another format
    assert "made with other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    questions, out = arena_questions(tmp_path / "q.jsonl", 20), tmp_path / "out"

    def slow(asked: Asked) -> Reply:
        time.sleep(0.08)
        return talk(asked)

    with toy_teacher(slow) as teacher:
        words = command(
            "arena-hard", questions, out, "--model", "m", "--base-url", teacher.base_url, "--concurrency", "2"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "nid_plugin.cli", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        results = out / "my-model.ledger" / "results.jsonl"
        deadline = time.monotonic() + 60
        while not (results.is_file() and results.read_bytes().count(b"\n") >= 4) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = {json.loads(line)["completion"] for line in results.read_bytes().splitlines()}
        assert 4 <= len(kept) < 20
        assert main(words) == 0
    times = teacher.times()
    assert len(times) == 20
    assert all(
        times[f"Tell of river number {n}."] == 1 for n in range(20) if f"heard 1: Tell of river number {n}." in kept
    )
    assert [record["uid"] for record in read_lines(out / "my-model.jsonl")] == [f"uid-{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--price", "1", "2", "--no-temperature"], ["--price needs --base-url", "--no-temperature needs --base-url"]),
        (["--base-url", "http://localhost:9/v1", "--adapter", "x"], ["--adapter is for a model in a folder"]),
        (["--base-url", "http://localhost:9/v1", "--pair-format", "plain"], ["an endpoint of plain text has --api"]),
        (["--base-url", "ftp://x"], ["--base-url ftp://x: http://HOST:PORT/v1"]),
        (["--pair-format", "template"], ["--pair-format template and --template FILE go together"]),
        (["--batch-size", "0", "--top-p", "2"], ["--batch-size 0: at least 1", "--top-p 2.0: above 0"]),
        (["--model-id", "a/b"], ["--model-id 'a/b': must be usable as the name of a file"]),
        (["--api", "completions"], ["--api completions needs --base-url"]),
        (["--stop", "x", "--stop", ""], ["--stop '': every answer would end before it begins"]),
        (
            ["--teacher-seed", "0", "--max-cost", "0"],
            ["--teacher-seed needs --base-url", "--max-cost needs --base-url"],
        ),
    ],
)
def test_bad_options(words: list[str], messages: list[str], tmp_path: Path, capsys: Capture) -> None:
    questions = mt_questions(tmp_path / "q.jsonl")
    questions.write_text(questions.read_text().replace("writing", "cooking"))
    assert main([*command("mt-bench", questions, tmp_path / "out", "--model", "none/such"), *words]) == 1
    said = capsys.readouterr().err
    assert 'unknown category "cooking"' in said  # all at once
    assert all(message in said for message in messages), said
    assert not (tmp_path / "out").exists()
