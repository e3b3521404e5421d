"""The options of the reproductions: read, and checked all at once."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from plugin_common.errors import raise_all
from scripts.common.request_options import (
    SCALES,
    Request,
    add_stage_options,
    check_work,
    extra_options,
    gpus_to_use,
    looks_like_missing_folder,
    new_parser,
    selected_stages,
    unknown_values,
    whole_number,
)
from scripts.nid.choices import CONTROLS, Asking, Benchmark, Choices, Control
from scripts.nid.memory import HOLDINGS
from scripts.nid.pipeline import ROOT, stages
from scripts.nid.recipes import RECIPES, Recipe, tiny
from scripts.nid.training import LAUNCHERS, Machine

PRECISIONS = ("bf16", "fp32")
OPENWEBTEXT = "Skylion007/openwebtext"
JUDGES = {"mt-bench": "gpt-4", "arena-hard": "gpt-4-1106-preview"}
ARENA_BENCH, ARENA_BASELINE = "arena-hard-v0.1", "gpt-4-0314"


def parser() -> argparse.ArgumentParser:
    """The command line. Values are checked by :func:`request`, so that all that is wrong is told at once."""
    made = new_parser(
        "From documents to scores: halve them, let a teacher complete the first halves, audit, fine-tune with LoRA, "
        "export, answer MT-Bench and Arena-Hard, let them be judged.",
        "  scripts/nid/mistral_7b.sh --dry-run --gpus 8\n  scripts/nid/mistral_7b.sh --gpus 8 --max-cost 2000 "
        "--mt-bench FastChat/fastchat/llm_judge/data --judge-max-cost 20",
        RECIPES,
    )
    made.add_argument(
        "--work", metavar="DIR", help="where everything goes; all reproductions may share it (default: runs/nid)"
    )
    made.add_argument("--scale", default="full", help="full, or tiny: the same commands in minutes (default: full)")
    _add_data(made.add_argument_group("data"))
    _add_training(made.add_argument_group("fine-tuning"))
    _add_scores(made.add_argument_group("scores"))
    add_stage_options(made, setting="train.lr=5e-5")
    return made


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--documents",
        nargs="+",
        default=[OPENWEBTEXT],
        metavar="INPUT",
        help="as nid halve reads them (default: OpenWebText from the hub)",
    )
    group.add_argument("--teacher", default="gpt-4-turbo", metavar="NAME", help="model (default: %(default)s)")
    group.add_argument("--teacher-url", metavar="URL", help="of its OpenAI-compatible endpoint (default: OpenAI's)")
    group.add_argument("--batch", action="store_true", help="through the Batch API: half the price")
    group.add_argument("--max-cost", metavar="DOLLARS", help="of the teacher; stop before it is passed")
    group.add_argument(
        "--control",
        default=CONTROLS[0],
        metavar="KIND",
        help="train on this instead of all of the teacher's pairs: second-half (the documents' own second halves), "
        "filtered (pairs without findings of the audit), subset-N (N of the pairs); default: none",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--base", metavar="FOLDER-OR-NAME", help="the base model (default: the published name)")
    group.add_argument("--gpus", metavar="N", help="of a machine; 0 is the CPU (default: all that are there)")
    group.add_argument("--nodes", default="1", metavar="N", help="machines, with --launch slurm (default: 1)")
    group.add_argument(
        "--launch", default="fairseq", metavar="HOW", help=f"{' | '.join(LAUNCHERS)}: starts the processes of several "
        "GPUs (default: fairseq, by itself)",
    )  # fmt: skip
    group.add_argument(
        "--weights",
        metavar="HOW",
        help=f"{' | '.join(HOLDINGS)}: whole on each GPU in 16 or 4 bits, or in 16 bits shared out over all (default: "
        "bf16; 4bit for 70B)",
    )
    group.add_argument(
        "--gpu-tokens",
        metavar="N",
        help="most tokens at once on a GPU; larger batches are accumulated (default: 8192; 4096 for 70B)",
    )
    group.add_argument("--precision", default="bf16", help=f"{' | '.join(PRECISIONS)} (default: bf16)")
    group.add_argument("--seed", default="1", metavar="N", help="of the training (default: %(default)s)")
    group.add_argument("--merged", action="store_true", help="export a whole model, too, and score that")


def _add_scores(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mt-bench",
        metavar="DIR",
        help="fastchat/llm_judge/data in your clone of FastChat: mt_bench/question.jsonl, judge_prompts.jsonl",
    )
    group.add_argument(
        "--arena-hard",
        metavar="DIR",
        help="your clone of arena-hard-auto: data/BENCH/question.jsonl, config/, utils/judge_utils.py",
    )
    group.add_argument("--arena-bench", default=ARENA_BENCH, metavar="BENCH", help="default: %(default)s, the paper's")
    group.add_argument(
        "--arena-baseline",
        metavar="FILE",
        help="answers of the model to compare with; their file has its name (default: "
        f"data/BENCH/model_answer/{ARENA_BASELINE}.jsonl in the clone)",
    )
    group.add_argument("--judge", metavar="NAME", help="model (default: the benchmarks' own, gpt-4 of two versions)")
    group.add_argument("--judge-url", metavar="URL", help="of its endpoint (default: OpenAI's)")
    group.add_argument("--judge-max-cost", metavar="DOLLARS", help="of each judgment of a model on a benchmark")
    group.add_argument(
        "--answers-url",
        metavar="URL",
        help="endpoint that serves fine-tuned and base model under their ids (default: their folders, on this machine)",
    )
    group.add_argument("--lm-eval", default="", metavar="TASKS", help="such as openllm; runs lm-evaluation-harness")


def request(argv: Sequence[str]) -> Request[Choices]:
    """What a command line asks for.

    Raises:
        UserError: everything that is wrong with it.
    """
    args, unknown = parser().parse_known_args(argv)
    problems = [f"{word}: no such option; --help lists them" for word in unknown]
    problems += _unknown_words(args)
    recipe = RECIPES.get(args.reproduction, next(iter(RECIPES.values())))
    recipe = tiny(recipe) if args.scale == "tiny" else recipe
    control = Control.from_text(args.control) or Control()
    if control.pairs > recipe.data.documents - recipe.data.held_out:
        most = recipe.data.documents - recipe.data.held_out
        problems.append(f"--control {args.control}: there are {most:,} pairs to train on; give at most so many")
    work = Path(args.work).resolve() if args.work else ROOT / "runs" / "nid"
    check_work(work, problems)
    base = args.base or recipe.base
    if looks_like_missing_folder(base):
        problems.append(f"--base {base}: no such folder; give a causal LM's folder or its name on the hub")
    choices = Choices(
        recipe=recipe,
        work=work,
        machine=_machine(args, recipe, problems),
        base=_absolute(base),
        documents=tuple(map(_absolute, args.documents)),
        teacher=_teacher(args, problems),
        control=control,
        seed=whole_number("--seed", args.seed, 0, problems),
        benchmarks=tuple(_benchmarks(args, problems)),
        answers_url=args.answers_url or "",
        merged=args.merged,
        lm_eval=args.lm_eval,
        extra=extra_options(args.set, problems),
    )
    names = [stage.name for stage in stages(choices)]
    selected = selected_stages(args, names, choices.extra, problems)
    raise_all(problems)
    return Request(choices, args.scale, selected, tuple(args.redo), args.dry_run)


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def _unknown_words(args: argparse.Namespace) -> Iterator[str]:
    yield from unknown_values(
        [
            ("reproduction", args.reproduction, RECIPES),
            ("--scale", args.scale, SCALES),
            ("--launch", args.launch, LAUNCHERS),
            ("--weights", args.weights or HOLDINGS[0], HOLDINGS),
            ("--precision", args.precision, PRECISIONS),
        ]
    )
    if Control.from_text(args.control) is None:
        yield f"--control {args.control}: expected one of {', '.join(CONTROLS)} (N: a number of pairs)"
    for option, url in (("teacher", args.teacher_url), ("judge", args.judge_url), ("answers", args.answers_url)):
        if url and "://" not in url:
            yield f"--{option}-url {url}: expected http://HOST:PORT/v1 or https://…"


def _machine(args: argparse.Namespace, recipe: Recipe, problems: list[str]) -> Machine:
    nodes = whole_number("--nodes", args.nodes, 1, problems)
    # A plan, and what SLURM starts elsewhere, may be about GPUs that this machine lacks.
    gpus = gpus_to_use(args.gpus, problems, plan_only=args.dry_run or args.launch == "slurm")
    least = 2 * recipe.tuning.longest
    room = f": twice the longest pair's, so that it fits into any share of an update ({least // 2:,} tokens)"
    text = args.gpu_tokens or str(recipe.gpu_tokens)
    tokens = whole_number("--gpu-tokens", text, least, problems, instead=least, why=room)
    holding = args.weights if args.weights in HOLDINGS else recipe.holding
    if nodes > 1 and args.launch != "slurm":
        problems.append(
            f"--nodes {nodes}: only --launch slurm starts processes on several machines; for torchrun take the "
            "training's command of --dry-run to each of them"
        )
    if gpus == 0 and args.launch != "fairseq":
        problems.append(f"--launch {args.launch}: is for GPUs, and there are none; give --gpus, or leave it out")
    if gpus == 0 and holding == "4bit" and args.weights:
        problems.append("--weights 4bit: is for GPUs; on the CPU give bf16")
    return Machine(gpus, nodes, args.launch, tokens, args.precision, holding)


def _dollars(option: str, text: str | None, problems: list[str]) -> tuple[str, ...]:
    if text is None:
        return ()
    try:
        good = 0 < float(text) < float("inf")
    except ValueError:
        good = False
    if not good:
        problems.append(f"{option} {text}: expected dollars, more than 0")
    return ("--max-cost", text)


def _endpoint(url: str | None) -> tuple[str, ...]:
    return ("--base-url", url) if url else ()


def _teacher(args: argparse.Namespace, problems: list[str]) -> Asking:
    cost = _dollars("--max-cost", args.max_cost, problems)
    return Asking(args.teacher, (*_endpoint(args.teacher_url), *(("--batch",) if args.batch else ()), *cost))


def _judge(args: argparse.Namespace, bench: str, cost: tuple[str, ...]) -> Asking:
    return Asking(args.judge or JUDGES[bench], (*_endpoint(args.judge_url), *cost))


def _benchmarks(args: argparse.Namespace, problems: list[str]) -> Iterator[Benchmark]:
    cost = _dollars("--judge-max-cost", args.judge_max_cost, problems)
    if args.mt_bench:
        folder = Path(args.mt_bench).resolve()
        references = folder / "mt_bench" / "reference_answer" / "gpt-4.jsonl"
        found = Benchmark(
            "mt-bench",
            folder / "mt_bench" / "question.jsonl",
            (folder / "judge_prompts.jsonl",),
            _judge(args, "mt-bench", cost),
            references=references if references.exists() else None,
        )
        problems += _missing("--mt-bench", folder, [found.questions, *found.prompts])
        yield found
    if args.arena_hard:
        folder = Path(args.arena_hard).resolve()
        data = folder / "data" / args.arena_bench
        baseline = Path(args.arena_baseline or data / "model_answer" / f"{ARENA_BASELINE}.jsonl").resolve()
        found = Benchmark(
            "arena-hard",
            data / "question.jsonl",
            _arena_prompts(folder, args.arena_bench),
            _judge(args, "arena-hard", cost),
            baseline=baseline,
        )
        problems += _missing("--arena-hard", folder, [found.questions, *found.prompts])
        if not baseline.is_file():
            problems.append(
                f"--arena-baseline {baseline}: no such file; expected answers as arena-hard-auto keeps them"
            )
        yield found


def _arena_prompts(clone: Path, bench: str) -> tuple[Path, ...]:
    """The older clones keep all in one file."""
    older = clone / "config" / "judge_config.yaml"
    return (older,) if older.is_file() else (clone / "config" / f"{bench}.yaml", clone / "utils" / "judge_utils.py")


def _missing(option: str, folder: Path, files: Sequence[Path]) -> list[str]:
    return [
        f"{option} {folder}: has no {file.relative_to(folder)}; --help says which folder is meant"
        for file in files
        if not file.is_file()
    ]
