"""lm-eval takes a model folder and a task of local files as they are, without a network."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT, Runner
from tests.nid_plugin.evaluation.bench_files import write_lines
from tests.toy_causal_lm import make_causal_lm

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
TASK = """task: toy_rivers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""
QUESTIONS = [
    {"question": "the river runs through our", "choices": ["old town", "green trees"], "answer": 0},
    {"question": "small birds", "choices": ["walk", "sing", "knows"], "answer": 1},
    {"question": "music makes us", "choices": ["happy", "nobody"], "answer": 0},
]


def likelihood(folder: Path, question: str, choice: str) -> float:
    """The log-probability (natural) that the model gives to a choice."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt, whole = tokenizer(question)["input_ids"], tokenizer(f"{question} {choice}")["input_ids"]
    assert whole[: len(prompt)] == prompt
    with torch.inference_mode():
        log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return float(sum(log_probs[place - 1, whole[place]] for place in range(len(prompt), len(whole))))


@pytest.mark.slow
def test_a_local_task_on_a_model_folder(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval comes with the extra `evaluation`")
    folder = make_causal_lm(tmp_path / "model", seed=2)
    tasks = tmp_path / "tasks"
    data = write_lines(tasks / "rivers.jsonl", QUESTIONS)
    (tasks / "toy_rivers.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    run = Runner(tmp_path)
    run(
        sys.executable, "-m", "nid_plugin.evaluation.harness", "--model", "hf",
        "--model_args", f"pretrained={folder},dtype=float32",
        "--tasks", "toy_rivers", "--include_path", tasks, "--device", "cpu", "--batch_size", "2",
        "--output_path", tmp_path / "out", "--log_samples", cwd=ROOT,
        env={**OFFLINE, "HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text(encoding="utf-8"))
    (samples,) = (tmp_path / "out").rglob("samples_*.jsonl")
    by_question = {sample["doc"]["question"]: sample for sample in map(json.loads, samples.open(encoding="utf-8"))}
    right = 0
    for question in QUESTIONS:
        text, choices = str(question["question"]), list(question["choices"])  # type: ignore[call-overload]
        expected = [likelihood(folder, text, choice) for choice in choices]
        said = [float(response[0][0]) for response in by_question[text]["resps"]]
        assert said == pytest.approx(expected, abs=1e-3)
        right += max(range(len(choices)), key=expected.__getitem__) == question["answer"]
    assert found["results"]["toy_rivers"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
