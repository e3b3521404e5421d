"""What is wrong with the options of ``nid answer``, told all at once before any work is done."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from nid_plugin.completion.options import TeacherSettings, teacher_settings
from nid_plugin.evaluation.answers import check_model_id
from nid_plugin.evaluation.problems import collected
from nid_plugin.evaluation.questions import Question, read_questions
from plugin_common.errors import raise_all

FOLDER_ONLY = ("adapter", "template", "precision", "device")
ENDPOINT_ONLY = (
    "requests_per_minute", "tokens_per_minute", "frequency_penalty", "presence_penalty", "teacher_seed", "extra_body",
    "price", "prices", "max_cost", "no_temperature", "tokenizer", "retry_failed",
)  # fmt: skip


def check_options(args: argparse.Namespace) -> tuple[list[Question], TeacherSettings | None]:
    """The questions, and the endpoint's settings (None for a model in a folder).

    Raises:
        UserError: see above.
    """
    problems = list(_problems(args))
    questions = collected(problems, lambda: read_questions(args.questions, args.bench))
    teacher = None
    if args.base_url:
        teacher = collected(problems, lambda: teacher_settings(args, args.model, needs_key=not args.dry_run))
    raise_all(problems)
    return questions or [], teacher


def _problems(args: argparse.Namespace) -> Iterator[str]:
    yield from check_model_id(args.model_id, "--model-id")
    if Path(args.out).exists() and not Path(args.out).is_dir():
        yield f"--out {args.out}: is a file; give a folder"
    misplaced, why = (
        (FOLDER_ONLY, "is for a model in a folder") if args.base_url else (ENDPOINT_ONLY, "needs --base-url")
    )
    for name in misplaced:
        given = getattr(args, name)
        if given is not None and given is not False:
            yield f"--{name.replace('_', '-')} {why}"
    yield from stop_problems(args)
    if args.base_url:
        if args.pair_format != "chat":
            yield "--pair-format is for a model in a folder; an endpoint of plain text has --api completions"
        if args.no_temperature and args.temperature is not None:
            yield "--no-temperature and --temperature contradict each other; give one"
        return
    if args.api != "chat":
        yield "--api completions needs --base-url; a model in a folder has --pair-format plain"
    yield from _folder_problems(args)


def stop_problems(args: argparse.Namespace) -> Iterator[str]:
    """What is wrong with ``--stop``."""
    if any(not text for text in args.stop or []):
        yield "--stop '': every answer would end before it begins; give a text"


def _folder_problems(args: argparse.Namespace) -> Iterator[str]:
    if args.batch_size < 1:
        yield f"--batch-size {args.batch_size}: at least 1 is expected"
    if args.max_tokens < 1:
        yield f"--max-tokens {args.max_tokens}: at least 1 is expected"
    if args.temperature is not None and not 0 <= args.temperature <= 2:
        yield f"--temperature {args.temperature}: 0 to 2 is expected"
    if args.top_p is not None and not 0 < args.top_p <= 1:
        yield f"--top-p {args.top_p}: above 0, at most 1 is expected"
    if bool(args.template) != (args.pair_format == "template"):
        yield "--pair-format template and --template FILE go together"
    if args.system is not None and args.pair_format != "chat":
        yield "--system: only a chat has a system prompt; leave it out"
