"""``nid judge``: let a judge model compare or rate answers to MT-Bench or Arena-Hard, and compute the scores."""

import argparse
import sys
from typing import Any

from nid_plugin.completion.options import add_teacher_options
from nid_plugin.evaluation.options import add_questions, add_run_options

SUMMARY = "Judge answers to MT-Bench or Arena-Hard with the published prompts, and compute scores with intervals."
EXAMPLE = (
    "nid judge --bench mt-bench --questions mt_bench/question.jsonl --answers mt_bench/model_answer \\\n"
    "      --judge-prompts judge_prompts.jsonl --references mt_bench/reference_answer/gpt-4.jsonl \\\n"
    "      --judge-model gpt-4-turbo --out mt_bench/model_judgment --max-cost 20\n"
    "  nid judge --bench arena-hard --questions arena-hard-v0.1/question.jsonl \\\n"
    "      --answers arena-hard-v0.1/model_answer --judge-prompts config/arena-hard-v0.1.yaml utils/judge_utils.py \\\n"
    "      --judge-model gpt-4-turbo --out arena-hard-v0.1/model_judgment --max-cost 50"
)
JUDGE_TOKENS = {"mt-bench": 2048, "arena-hard": 4096}
MODES = ("single", "pairwise")
STYLES = ("equal", "published")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    what = parser.add_argument_group("what to do")
    add_questions(what)
    what.add_argument("--answers", metavar="FOLDER", help="of MODEL.jsonl files, as `nid answer` writes them")
    what.add_argument(
        "--models", nargs="+", metavar="NAME", help="to judge (default: all in --answers but the baseline)"
    )
    what.add_argument(
        "--mode", choices=MODES, help="rate each answer, or compare with --baseline's (default: single for MT-Bench)"
    )
    what.add_argument(
        "--baseline", metavar="NAME", help="model to compare with (Arena-Hard's default: the one that its files name)"
    )
    what.add_argument(
        "--judge-prompts",
        nargs="+",
        metavar="FILE",
        help="FastChat's judge_prompts.jsonl, or arena-hard-auto's YAML configuration and judge_utils.py",
    )
    what.add_argument(
        "--references",
        metavar="FILE",
        help="FastChat's reference_answer/gpt-4.jsonl, for math, reasoning and coding (default: the questions' own)",
    )
    what.add_argument("--judge-model", required=True, metavar="NAME", help="the judge, as the endpoint names it")
    what.add_argument("--out", required=True, metavar="FOLDER", help="gets judgments and scores")
    add_run_options(what, kept="judgment", default="a folder in --out")
    _configure_scores(parser.add_argument_group("scores"))
    most = ", ".join(f"{tokens} for {bench}" for bench, tokens in JUDGE_TOKENS.items())
    add_teacher_options(parser, max_tokens=None, max_tokens_default=f"{most}, unless its configuration says more")
    request = parser.add_argument_group("request")
    request.add_argument(
        "--no-temperature", action="store_true", help="send no temperature (default: 0, or the configuration's)"
    )
    request.add_argument(
        "--no-system-role",
        action="store_true",
        help="put the prompts' system text in front of the user's message, for judges that take no system prompt",
    )


def _configure_scores(group: Any) -> None:
    group.add_argument(
        "--scores-only", action="store_true", help="compute scores from the judgments in --out; ask nobody"
    )
    group.add_argument(
        "--style-control",
        choices=STYLES,
        help="Arena-Hard: control for length and Markdown; `published` centres differences as arena-hard-auto does, "
        "`equal` gives the score at equal style (default: no control)",
    )
    group.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="counts the length of all answers for style control (default: words and punctuation marks)",
    )
    group.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="rounds (default: %(default)s)")
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of the bootstrap (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Judge what is not judged yet, write the judgments, then the scores."""
    from nid_plugin.evaluation.judge_checks import check
    from nid_plugin.evaluation.judge_run import estimate, judge
    from nid_plugin.evaluation.judge_scores import write_scores

    task = check(args)
    if args.dry_run:
        for line in estimate(task):
            print(line)
        return
    unfinished = None if args.scores_only else judge(task)
    for line in write_scores(task):
        print(line)
    if unfinished is not None:
        print("the scores are of what is judged so far", file=sys.stderr)
        unfinished()
