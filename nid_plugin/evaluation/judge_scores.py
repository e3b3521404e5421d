"""Compute scores from judgment files, write them as JSON and as a table."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nid_plugin.evaluation.answers import missing_answers, read_answers
from nid_plugin.evaluation.judge_checks import JudgeTask
from nid_plugin.evaluation.judgment_files import Record, chosen, read_judgments
from nid_plugin.evaluation.questions import ARENA_HARD
from nid_plugin.evaluation.score_tables import as_markdown
from nid_plugin.evaluation.scores import Bootstrap, StyleControl, arena_scores, pair_scores, single_scores
from nid_plugin.evaluation.style import COUNTED_BY_WORDS, TokenCounter, count_words, style_metadata, style_vector
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import raise_all


def write_scores(task: JudgeTask) -> Iterator[str]:
    """Compute the scores of a task's models, write ``….scores.json`` and ``….scores.md``; the table's lines."""
    report = scores_report(task)
    style = f"_style_{task.args.style_control}" if task.args.style_control else ""
    kind = "pair" if task.mode == "pairwise" else "single"
    stem = Path(task.args.out) / f"{task.judge_file}_{kind}{style}"
    text = as_markdown(report)
    for suffix, data in (
        (".scores.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n"),
        (".scores.md", text),
    ):
        with atomic_output(f"{stem}{suffix}") as stream:
            stream.write(data.encode("utf-8", "replace"))
    yield from text.rstrip("\n").split("\n")
    yield f"{stem}.scores.json, {stem.name}.scores.md"


def scores_report(task: JudgeTask) -> dict[str, Any]:
    """The scores with all that they depend on.

    Raises:
        UserError: a judgment file is missing or of another kind, or models are compared with several baselines.
    """
    bootstrap = Bootstrap(task.args.bootstrap, task.args.seed)
    report: dict[str, Any] = {
        "bench": task.bench,
        "mode": task.mode,
        "judge": task.args.judge_model,
        "questions": len(task.questions),
        "bootstrap": {"rounds": bootstrap.rounds, "seed": bootstrap.seed, "interval": "95 %, over questions"},
    }
    left_out: Counter[str] = Counter()
    scores: dict[str, Any]
    if task.bench == ARENA_HARD:
        style, counted = _style(task)
        report |= {"style_control": task.args.style_control, "style_tokens": counted}
        records = {model: _chosen(task, model, left_out) for model in task.models}
        scores = arena_scores(records, task.questions, bootstrap, style)
    elif task.mode == "single":
        scores = single_scores(_chosen(task, "", left_out), task.questions, task.models, bootstrap)
    else:
        report["baseline"] = str(task.args.baseline)
        found = _chosen(task, "", left_out)
        scores = pair_scores(found, task.questions, task.models, report["baseline"], bootstrap)
    return report | {"left_out": dict(left_out), "scores": scores}


def _chosen(task: JudgeTask, model: str, left_out: Counter[str]) -> list[Record]:
    """The judgments of a model's file (MT-Bench: of all models); ``left_out`` counts what is not taken from it."""
    records, counts = chosen(
        read_judgments(task.judgment_file(model), task.kind),
        task.kind,
        judge=task.args.judge_model,
        models=[model] if model else task.models,
        questions={question.id for question in task.questions},
        baseline=task.args.baseline,
    )
    left_out.update(counts)
    return records


def _style(task: JudgeTask) -> tuple[StyleControl | None, str | None]:
    """Style is counted anew in all answers: files of different makers count tokens in different ways."""
    if not task.args.style_control:
        return None, None
    count: TokenCounter = count_words
    how = COUNTED_BY_WORDS
    if task.args.tokenizer:
        from nid_plugin.evaluation.answer_run import tokenizer_counter

        count, how = tokenizer_counter(task.args.tokenizer), f"the tokens of {task.args.tokenizer}"
    found: dict[str, dict[Any, tuple[float, float, float, float]]] = {}

    def counts(model: str, question: Any) -> tuple[float, float, float, float]:
        if model not in found:
            answers = read_answers(task.args.answers, model, task.bench)
            raise_all(missing_answers(model, answers, task.questions))
            found[model] = {
                name: style_vector(style_metadata(answer.turns[0], count)) for name, answer in answers.items()
            }
        return found[model][question]

    return StyleControl(counts, centred=task.args.style_control == "published"), how
