"""``nid answer``: a model's answers to the questions of MT-Bench or Arena-Hard."""

import argparse
import sys
from pathlib import Path
from typing import Any

from nid_plugin.completion.options import add_teacher_options
from nid_plugin.evaluation.options import add_questions, add_run_options
from nid_plugin.evaluation.questions import ANSWER_TOKENS

SUMMARY = "Answer MT-Bench or Arena-Hard with a model folder or an endpoint, in the files that their judges read."
EXAMPLE = (
    "nid answer --bench mt-bench --questions mt_bench/question.jsonl --model-id my-model \\\n"
    "      --out mt_bench/model_answer --model exported/\n"
    "  nid answer --bench arena-hard --questions arena-hard-v2.0/question.jsonl --model-id my-model \\\n"
    "      --out arena-hard-v2.0/model_answer --base-url http://localhost:8000/v1 --model my-model"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    what = parser.add_argument_group("what to do")
    add_questions(what)
    what.add_argument("--model-id", required=True, metavar="NAME", help="the model's name on the benchmark")
    what.add_argument("--out", required=True, metavar="FOLDER", help="gets NAME.jsonl; other models' files stay")
    what.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a folder (or hub name); with --base-url: as the endpoint names it",
    )
    add_run_options(what, kept="answer", default="NAME.ledger in --out")
    _configure_folder(parser.add_argument_group("a model in a folder"))
    add_teacher_options(parser, max_tokens=None, max_tokens_default=_default_tokens())
    parser.add_argument_group("endpoint only").add_argument(
        "--no-temperature",
        action="store_true",
        help="send no temperature (some models refuse it) in place of MT-Bench's by category and Arena-Hard's 0",
    )
    parser.add_argument_group("endpoint only").add_argument(
        "--tokenizer", metavar="FOLDER", help="counts Arena-Hard's token_len (default: words and punctuation marks)"
    )


def _default_tokens() -> str:
    return ", ".join(f"{tokens} for {bench}" for bench, tokens in ANSWER_TOKENS.items())


def _configure_folder(group: Any) -> None:
    from nid_plugin.evaluation.formats import PAIR_FORMATS, PRECISIONS

    group.add_argument("--adapter", metavar="FOLDER", help="peft's adapter over the model")
    group.add_argument(
        "--pair-format",
        choices=PAIR_FORMATS,
        default="chat",
        help="how a prompt is written; plain and template join turns by blank lines (default: %(default)s)",
    )
    group.add_argument("--template", metavar="FILE", help="of --pair-format template")
    group.add_argument("--precision", choices=PRECISIONS, help="of the weights (default: bf16 on a GPU, else fp32)")
    group.add_argument("--device", metavar="NAME", help="cuda, cuda:1, cpu, … (default: a GPU where there is one)")
    group.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="questions at once (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of sampling (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Answer what is not answered yet, and write the answer file."""
    from nid_plugin.evaluation.answer_checks import check_options
    from nid_plugin.evaluation.answer_run import AnswerRun

    args.max_tokens = ANSWER_TOKENS[args.bench] if args.max_tokens is None else args.max_tokens
    answering = AnswerRun(args, check_options(args))
    if args.dry_run:
        for line in answering.estimate():
            print(line)
        return
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for line in answering.run():
        print(line, file=sys.stderr)
