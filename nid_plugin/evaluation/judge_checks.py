"""What ``nid judge`` works on, and what is wrong with it: told all at once, before anything is asked."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nid_plugin.completion.options import TeacherSettings, teacher_settings
from nid_plugin.evaluation.answer_checks import stop_problems
from nid_plugin.evaluation.answers import missing_answers, models_in, read_answers
from nid_plugin.evaluation.games import Answers, References
from nid_plugin.evaluation.judge_command import JUDGE_TOKENS
from nid_plugin.evaluation.judge_prompts import (
    ArenaPrompts,
    Mode,
    MtBenchPrompts,
    read_arena_prompts,
    read_mt_bench_prompts,
)
from nid_plugin.evaluation.judgment_files import Kind, is_by, read_judgments
from nid_plugin.evaluation.problems import collected
from nid_plugin.evaluation.questions import ARENA_HARD, MT_BENCH, WITH_REFERENCE, Bench, Question, read_questions
from plugin_common.errors import UserError, raise_all


@dataclass(frozen=True)
class JudgeTask:
    """What to judge.

    Attributes:
        args: the command's options.
        bench, mode: see there.
        questions, answers: of all models, baselines included; no answers with ``--scores-only``.
        models: to be judged.
        baselines: category → model to compare with; empty where answers are rated by themselves.
        teacher: the judge's endpoint; None with ``--scores-only``.
        prompts: None with ``--scores-only``.
        references: MT-Bench's reference answers.
    """

    args: argparse.Namespace
    bench: Bench
    mode: Mode
    questions: list[Question]
    answers: Answers = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    baselines: Mapping[str, str] = field(default_factory=dict)
    teacher: TeacherSettings | None = None
    prompts: MtBenchPrompts | ArenaPrompts | None = None
    references: References | None = None

    @property
    def kind(self) -> Kind:
        """Of the judgment files."""
        return "arena" if self.bench == ARENA_HARD else self.mode

    @property
    def judge_file(self) -> str:
        """The judge's name as part of a file's name."""
        return str(self.args.judge_model).replace("/", "_")

    @property
    def ledger_folder(self) -> str:
        """Where the judge's answers are kept."""
        return str(self.args.ledger or Path(self.args.out) / f"{self.judge_file}_{self.mode}.ledger")

    def judgment_file(self, model: str) -> Path:
        """Where the judgments about a model go."""
        out = Path(self.args.out)
        if self.bench == ARENA_HARD:
            return out / self.judge_file / f"{model}.jsonl"
        return out / f"{self.judge_file}_{'single' if self.mode == 'single' else 'pair'}.jsonl"


def check(args: argparse.Namespace) -> JudgeTask:
    """The task that the options describe.

    Raises:
        UserError: lists all that is wrong with options, questions, answers, prompts and references.
    """
    problems = list(_option_problems(args))
    mode: Mode = args.mode or ("pairwise" if args.bench == ARENA_HARD else "single")
    questions = collected(problems, lambda: read_questions(args.questions, args.bench)) or []
    prompts = collected(problems, lambda: _prompts(args, mode)) if args.judge_prompts and not args.scores_only else None
    task = JudgeTask(args, args.bench, mode, questions)
    if args.scores_only:
        models = args.models or (collected(problems, lambda: judged_models(task)) if questions else None)
        raise_all(problems)
        return replace(task, models=models or [])
    baselines = _baselines(args, mode, questions, prompts, problems)
    models = _models(args, set(baselines.values()), problems)
    answers = _answers(args, [*models, *dict.fromkeys(baselines.values())], questions, problems)
    references = _references(args, questions, problems) if args.bench == MT_BENCH else {}
    configured = _with_defaults(args, prompts)
    teacher = collected(problems, lambda: teacher_settings(configured, args.judge_model, needs_key=not args.dry_run))
    raise_all(problems)
    return replace(
        task,
        answers=answers,
        models=models,
        baselines=baselines,
        teacher=teacher,
        prompts=prompts,
        references=references,
    )


def judged_models(task: JudgeTask) -> list[str]:
    """The models that the judgments of a task's folder are about, sorted.

    Raises:
        UserError: there are none.
    """
    if task.bench == ARENA_HARD:
        found = sorted(path.stem for path in task.judgment_file("").parent.glob("*.jsonl"))
    else:
        records = [r for r in read_judgments(task.judgment_file(""), task.kind) if is_by(r, task.args.judge_model)]
        if task.mode == "single":
            found = sorted({r["model"] for r in records})
        else:
            found = sorted({r["model_1"] for r in records if r["model_2"] == task.args.baseline})
    if not found:
        raise UserError(
            f"--out {task.args.out}: holds no judgments of {task.args.judge_model} on {task.bench}, {task.mode}; "
            "leave --scores-only out to make them"
        )
    return found


def _option_problems(args: argparse.Namespace) -> Iterator[str]:
    if args.bench == ARENA_HARD and args.mode == "single":
        yield "--mode single: Arena-Hard compares with a baseline; leave --mode out"
    if args.bench == ARENA_HARD and args.references:
        yield "--references are for MT-Bench; leave them out"
    if args.bench == MT_BENCH and args.mode == "pairwise" and not args.baseline:
        yield "--mode pairwise needs --baseline NAME, a model in --answers"
    if args.bench == MT_BENCH and args.mode != "pairwise" and args.baseline:
        yield "--baseline needs --mode pairwise"
    if args.bench == MT_BENCH and args.style_control:
        yield "--style-control is for Arena-Hard; leave it out"
    if args.tokenizer and not args.style_control:
        yield "--tokenizer needs --style-control"
    if not args.answers and (not args.scores_only or args.style_control):
        yield "--answers FOLDER is missing: of MODEL.jsonl files, as `nid answer` writes them"
    if args.bootstrap < 1:
        yield f"--bootstrap {args.bootstrap}: at least 1 is expected"
    if args.scores_only and args.dry_run:
        yield "--scores-only asks nobody; leave --dry-run out"
    if not args.scores_only and not args.judge_prompts:
        yield "--judge-prompts FILE is missing: the published prompts, from the benchmark's own project"
    if args.api != "chat":
        yield "--api completions: a judge is asked by chat; leave it out"
    if args.system is not None:
        yield "--system: the judge's prompts have system prompts of their own; leave it out"
    yield from stop_problems(args)
    if args.no_temperature and args.temperature is not None:
        yield "--no-temperature and --temperature contradict each other; give one"
    if Path(args.out).exists() and not Path(args.out).is_dir():
        yield f"--out {args.out}: is a file; give a folder"


def _prompts(args: argparse.Namespace, mode: Mode) -> MtBenchPrompts | ArenaPrompts:
    if args.bench == ARENA_HARD:
        return read_arena_prompts(args.judge_prompts)
    return read_mt_bench_prompts(args.judge_prompts, mode)


def _with_defaults(args: argparse.Namespace, prompts: MtBenchPrompts | ArenaPrompts | None) -> argparse.Namespace:
    """The options, with the longest answer that the benchmark's configuration asks for."""
    configured = argparse.Namespace(**vars(args))
    if configured.max_tokens is None:
        own = prompts.max_tokens if isinstance(prompts, ArenaPrompts) else None
        configured.max_tokens = own or JUDGE_TOKENS[args.bench]
    return configured


def judge_temperature(task: JudgeTask) -> float | None:
    """What is sent with each request where ``--temperature`` says nothing; None for nothing."""
    if task.args.no_temperature or task.args.temperature is not None:
        return None
    own = task.prompts.temperature if isinstance(task.prompts, ArenaPrompts) else None
    return 0.0 if own is None else float(own)


def _baselines(
    args: argparse.Namespace,
    mode: Mode,
    questions: Sequence[Question],
    prompts: MtBenchPrompts | ArenaPrompts | None,
    problems: list[str],
) -> dict[str, str]:
    """Category → baseline; what is missing goes to ``problems``."""
    categories = list(dict.fromkeys(question.category for question in questions))
    if mode == "single" or (args.baseline is None and not isinstance(prompts, ArenaPrompts)):
        return {}
    found: dict[str, str] = {}
    for category in categories:
        if isinstance(prompts, ArenaPrompts) and prompts.of(category) is None:
            known = ", ".join(prompts.systems)
            problems.append(
                f"--judge-prompts: no system prompt for the category {category} of the questions (has {known})"
            )
        name = args.baseline or (prompts.baseline(category) if isinstance(prompts, ArenaPrompts) else None)
        if name is None:
            problems.append(f"--baseline NAME is missing: the files name none for the category {category}")
        else:
            found[category] = name
    return found


def _models(args: argparse.Namespace, baselines: set[str], problems: list[str]) -> list[str]:
    there = collected(problems, lambda: models_in(args.answers)) if args.answers else []
    if there is None or not args.answers:
        return []
    if args.models:
        if twice := sorted({name for name in args.models if name in baselines}):
            problems.append(f"--models {' '.join(twice)}: is the baseline; leave it out")
        return list(dict.fromkeys(args.models))
    models = [name for name in there if name not in baselines]
    if not models:
        problems.append(f"--answers {args.answers}: holds no model but the baseline; `nid answer` writes answers")
    return models


def _answers(
    args: argparse.Namespace, models: Sequence[str], questions: Sequence[Question], problems: list[str]
) -> Answers:
    """The answers of these models; what is missing goes to ``problems``."""
    if not args.answers or not Path(args.answers).is_dir():
        return {}
    found = {}
    for model in models:
        answers = collected(problems, lambda model=model: read_answers(args.answers, model, args.bench))  # type: ignore[misc]
        if answers is not None:
            found[model] = answers
            problems += missing_answers(model, answers, questions)
    return found


def _references(args: argparse.Namespace, questions: Sequence[Question], problems: list[str]) -> References:
    needing = [question for question in questions if question.category in WITH_REFERENCE]
    if args.references is None:
        lacking = [str(question.id) for question in needing if len(question.reference) < 2]
        if lacking:
            problems.append(
                f"{len(lacking)} questions on {', '.join(sorted(WITH_REFERENCE))} have no reference answers "
                f"({', '.join(lacking[:5])}{' …' if len(lacking) > 5 else ''}); give --references, FastChat's "
                "data/mt_bench/reference_answer/gpt-4.jsonl"
            )
        return {question.id: question.reference for question in needing}
    path = Path(args.references)
    if path.suffix != ".jsonl" or not path.is_file():
        problems.append(f"--references {path}: no such .jsonl file; expected FastChat's reference_answer/gpt-4.jsonl")
        return {}
    answers = collected(problems, lambda: read_answers(path.parent, path.stem, MT_BENCH))
    if answers is None:
        return {}
    lacking = [str(question.id) for question in needing if question.id not in answers]
    if lacking:
        problems.append(f"--references {path}: lacks answers to questions {', '.join(lacking[:5])}")
    return {question: answer.turns for question, answer in answers.items()}
