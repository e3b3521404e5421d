"""From documents to scores: the stages of a reproduction."""

import sys
from collections.abc import Sequence
from pathlib import Path

from plugin_common.stages import Command, Stage, Workspace
from scripts.common.given_options import with_options
from scripts.common.spread import left_out
from scripts.nid.choices import FILTERED, SECOND_HALF, SUBSET, Benchmark, Choices
from scripts.nid.split_pairs import TRAIN, VALID
from scripts.nid.training import fine_tune, updates, validation_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA_SEED = "1"
"""Draws, holds out and subsets; the same for all models."""

_ENDPOINT = (
    "base-url", "api-key-env", "concurrency", "requests-per-minute", "tokens-per-minute", "timeout", "attempts",
    "longest-wait", "price", "prices", "max-cost",
)  # fmt: skip
_BATCHES = (
    "batch", "batch-requests", "batch-bytes", "batches-at-once", "batch-poll", "batch-wait", "no-batch-wait",
    "forget-batches",
)  # fmt: skip
_TRAINING = (
    "log-file", "log-format", "log-interval", "tensorboard-logdir", "wandb-project", "num-workers", "ddp-backend",
    "bucket-cap-mb", "max-tokens-valid", "data-buffer-size", "pair-cache",
)  # fmt: skip
_BENCHES = [f"{bench}{which}" for bench in ("mt-bench", "arena-hard") for which in ("", "-base")]
HOW = {
    "complete": (*_ENDPOINT, *_BATCHES, "retry-failed"),
    "audit": (*_ENDPOINT, "workers"),
    "train": _TRAINING,
    **{f"answer-{bench}": (*_ENDPOINT, "retry-failed", "device", "batch-size") for bench in _BENCHES},
    **{f"judge-{bench}": (*_ENDPOINT, "retry-failed") for bench in _BENCHES},
}
"""By stage: options that leave its result alone."""


def workspace(choices: Choices) -> Workspace:
    """The run's folder; neither its place nor that of the project, the base or the benchmarks matters."""
    folders = {ROOT: "PROJECT", Path(sys.executable).parent: "BIN"}
    if Path(choices.base).is_dir():
        folders[Path(choices.base)] = "BASE"
    return Workspace(choices.work, folders)


def stages(choices: Choices) -> list[Stage]:
    """All stages in order, with ``choices.extra`` added to the commands of the stages that it names."""
    made = [*_pairs(choices), *_controls(choices), *_model(choices), *_scores(choices)]
    extra = choices.extra
    return [
        with_options(stage, extra[stage.name], HOW.get(stage.name, ())) if stage.name in extra else stage
        for stage in made
    ]


def _one(*commands: Command) -> tuple[tuple[Command, ...], ...]:
    """Steps of one command each."""
    return tuple((command,) for command in commands)


def _told(line: str) -> str | None:
    return line.strip() if line.strip() and not line.startswith("$") else None


def _local(*paths: str) -> tuple[Path, ...]:
    """Those that are files or folders here; names on a hub are not."""
    return tuple(Path(path) for path in paths if Path(path).exists())


# ---- pairs -----------------------------------------------------------------------------------------------------------


def _pairs(choices: Choices) -> list[Stage]:
    """Documents, halved; the teacher's completions; what is in them."""
    data, pairs, folder = choices.recipe.data, choices.pairs, choices.completions
    halve = Command(
        ("nid", "halve", *choices.documents, "--sample", str(data.documents), "--seed", DATA_SEED,
         "--out", str(choices.halves), "--report", str(choices.halves.with_name("report.json")))
    )  # fmt: skip
    complete = Command(
        ("nid", "complete", "--halves", str(choices.halves), "--model", choices.teacher.model,
         "--max-tokens", str(data.max_tokens), "--ledger", str(folder / "ledger"), "--pairs", str(pairs)),
        choices.teacher.options,
    )  # fmt: skip
    questions = tuple(benchmark.questions for benchmark in choices.benchmarks)
    audit = Command(
        ("nid", "audit", str(pairs), "--halves", str(choices.halves), "--report", str(folder / "audit"),
         "--filter", str(folder / "filtered.jsonl"),
         *(("--decontaminate", *map(str, questions)) if questions else ()))
    )  # fmt: skip
    teacher = choices.teacher_name
    return [
        Stage(
            "documents", f"{data.documents:,} documents, drawn and halved", _one(halve),
            (choices.halves, choices.halves.with_name("report.json")), _local(*choices.documents), shown=_told,
        ),
        Stage(
            "complete", f"{choices.teacher.model} completes the first halves", _one(complete),
            (pairs, folder / "ledger"), (choices.halves,), long=True, variant=teacher, shown=_told,
        ),
        Stage(
            "audit", "look for instructions, copies and the benchmarks' questions in the pairs", _one(audit),
            (folder / "audit", folder / "filtered.jsonl"), (pairs, choices.halves, *questions), variant=teacher,
        ),
    ]  # fmt: skip


def _split(choices: Choices, name: str, pairs: Path, out: Path, suffix: str) -> Stage:
    """Some documents are kept from training, the same ones whatever the completions."""
    words: tuple[str, ...] = (
        "python", str(HERE / "split_pairs.py"), str(pairs), "--like", str(choices.pairs),
        "--valid", str(choices.recipe.data.held_out), "--seed", DATA_SEED, "--out", str(out),
    )  # fmt: skip
    inputs = (choices.pairs,) if pairs == choices.pairs else (pairs, choices.pairs)
    return Stage(
        name, "keep some documents from training", _one(Command(words)), (out,), inputs,
        variant=choices.teacher_name + suffix, shown=_told,
    )  # fmt: skip


def _controls(choices: Choices) -> list[Stage]:
    """What is trained on, split; the folder is :func:`training_data`'s."""
    folder, control = choices.completions, choices.control
    if control.kind == SECOND_HALF:
        second = folder / "second-half.jsonl"
        made_by = (
            "nid",
            "control",
            "--halves",
            str(choices.halves),
            "--like",
            str(choices.pairs),
            "--out",
            str(second),
        )
        made = Stage(
            "control", "the documents' own second halves as completions", _one(Command(made_by)), (second,),
            (choices.halves, choices.pairs), variant=choices.teacher_name, shown=_told,
        )  # fmt: skip
        return [made, _split(choices, "split", second, folder / f"split{control.suffix}", control.suffix)]
    if control.kind == FILTERED:
        return [_split(choices, "split", folder / "filtered.jsonl", folder / f"split{control.suffix}", control.suffix)]
    split = _split(choices, "split", choices.pairs, folder / "split", "")
    if control.kind != SUBSET:
        return [split]
    train, out = folder / "split" / TRAIN, folder / control.suffix.removeprefix("-")
    words = ("nid", "subset", str(train), "--sizes", str(control.pairs), "--seed", DATA_SEED, "--out", str(out))
    subset = Stage(
        "subset", f"{control.pairs:,} of the pairs", _one(Command(words)), (out,), (folder / "split",),
        variant=choices.data_name, shown=_told,
    )  # fmt: skip
    return [split, subset]


def training_data(choices: Choices) -> tuple[Path, Path]:
    """The folder with the held-out pairs, and the file of those to train on."""
    folder, control = choices.completions, choices.control
    if control.kind == SUBSET:
        return folder / "split", folder / control.suffix.removeprefix("-") / f"pairs-{control.pairs}.jsonl"
    data = folder / f"split{control.suffix}"
    return data, data / TRAIN


# ---- model -----------------------------------------------------------------------------------------------------------


def _model(choices: Choices) -> list[Stage]:
    recipe, machine, name = choices.recipe, choices.machine, choices.model_id
    data, train = training_data(choices)
    command = fine_tune(
        recipe, machine, base=choices.base, data=data, train=train, save=choices.checkpoint.parent,
        documents=choices.pairs_to_train_on, seed=choices.seed,
    )  # fmt: skip
    tuning = recipe.tuning
    unused = left_out(tuning.tokens, longest=tuning.longest, at_once=machine.gpu_tokens, gpus=machine.processes)
    base, count = _local(choices.base), updates(recipe, choices.pairs_to_train_on)
    adapter, merged = choices.model / "adapter", choices.model / "merged"
    export = [Command(("nid", "export", "--checkpoint", str(choices.checkpoint), "--output", str(adapter),
                       "--model-name", name))]  # fmt: skip
    if choices.merged:
        export.append(Command(("nid", "export", "--checkpoint", str(choices.checkpoint), "--output", str(merged),
                               "--merge", "--model-name", name)))  # fmt: skip
    return [
        Stage(
            "train", f"fine-tune {choices.base}, {count:,} updates{unused}", _one(command),
            (choices.checkpoint.parent,), (train, data / VALID, *base), {"tokens an update": tuning.tokens},
            long=True, variant=name, shown=validation_line,
        ),
        Stage(
            "export", "the fine-tuned model as a Hugging Face folder", _one(*export),
            (adapter, *((merged,) if choices.merged else ())), (choices.checkpoint.parent, *base), variant=name,
            shown=_told,
        ),
    ]  # fmt: skip


def tuned_folders(choices: Choices) -> tuple[str, Path | None]:
    """Of the fine-tuned model: its folder and its adapter's, if that is apart."""
    if choices.merged:
        return str(choices.model / "merged"), None
    return choices.base, choices.model / "adapter"


# ---- scores ----------------------------------------------------------------------------------------------------------


def _scores(choices: Choices) -> list[Stage]:
    made = [stage for benchmark in choices.benchmarks for stage in _benchmark(choices, benchmark)]
    if choices.lm_eval:
        made += [_lm_eval(choices, tuned=True), _lm_eval(choices, tuned=False)]
    return made


def _benchmark(choices: Choices, benchmark: Benchmark) -> list[Stage]:
    """Answers and judgments of the base model, then of the fine-tuned one."""
    answers, made = choices.answers(benchmark), []
    if benchmark.baseline is not None:
        there = answers / benchmark.baseline.name
        copy = Command(("cat", str(benchmark.baseline)), output=there)
        made.append(Stage(f"baseline-{benchmark.name}", "the answers that others are compared with", _one(copy),
                          (there,), (benchmark.baseline,)))  # fmt: skip
    for tuned in (False, True):
        made += [_answer(choices, benchmark, tuned=tuned), _judge(choices, benchmark, tuned=tuned)]
    return made


def _which(choices: Choices, tuned: bool) -> tuple[str, str]:
    """A model's name, and what follows the name of a stage."""
    return (choices.model_id, "") if tuned else (choices.recipe.base_id, "-base")


def _model_inputs(choices: Choices, tuned: bool) -> tuple[Path, ...]:
    if not tuned:
        return _local(choices.base)
    folder, adapter = tuned_folders(choices)
    return (Path(folder),) if adapter is None else (adapter, *_local(folder))


def _answer(choices: Choices, benchmark: Benchmark, *, tuned: bool) -> Stage:
    name, suffix = _which(choices, tuned)
    answers = choices.answers(benchmark)
    words: Sequence[str] = (
        "nid", "answer", "--bench", benchmark.name, "--questions", str(benchmark.questions), "--model-id", name,
        "--out", str(answers), "--max-tokens", str(choices.recipe.answer_limit(benchmark.name)),
    )  # fmt: skip
    how: tuple[str, ...] = ()
    if choices.answers_url:
        api = "chat" if choices.recipe.pair_format == "chat" else "completions"
        words, how = (*words, "--model", name, "--api", api), ("--base-url", choices.answers_url)
    else:
        folder, adapter = tuned_folders(choices) if tuned else (choices.base, None)
        words = (
            *words, "--model", folder, *(("--adapter", str(adapter)) if adapter else ()),
            "--pair-format", choices.recipe.pair_format, "--precision", choices.machine.precision,
        )  # fmt: skip
    return Stage(
        f"answer-{benchmark.name}{suffix}", f"{name} answers the questions", _one(Command(tuple(words), how)),
        (answers / f"{name}.jsonl", answers / f"{name}.ledger"),
        (benchmark.questions, *_model_inputs(choices, tuned)), long=True, variant=name, shown=_told,
    )  # fmt: skip


def _judge(choices: Choices, benchmark: Benchmark, *, tuned: bool) -> Stage:
    name, suffix = _which(choices, tuned)
    answers, out = choices.answers(benchmark), choices.judgments(benchmark, name)
    references = ("--references", str(benchmark.references)) if benchmark.references else ()
    baseline = ("--baseline", benchmark.baseline.stem) if benchmark.baseline else ()
    words = (
        "nid", "judge", "--bench", benchmark.name, "--questions", str(benchmark.questions), "--answers", str(answers),
        "--models", name, "--judge-prompts", *map(str, benchmark.prompts), *references, *baseline,
        "--judge-model", benchmark.judge.model, "--out", str(out),
    )  # fmt: skip
    inputs = [benchmark.questions, answers / f"{name}.jsonl", *benchmark.prompts]
    inputs += [benchmark.references] if benchmark.references else []
    inputs += [answers / benchmark.baseline.name] if benchmark.baseline else []
    return Stage(
        f"judge-{benchmark.name}{suffix}", f"{benchmark.judge.model} judges {name}",
        _one(Command(words, benchmark.judge.options)), (out,), tuple(inputs), long=True, variant=name, shown=_told,
    )  # fmt: skip


def _lm_eval(choices: Choices, *, tuned: bool) -> Stage:
    """lm-evaluation-harness; it fetches the tasks' data itself."""
    name, suffix = _which(choices, tuned)
    folder, adapter = tuned_folders(choices) if tuned else (choices.base, None)
    dtype = "bfloat16" if choices.machine.precision == "bf16" else "float32"
    arguments = [f"pretrained={folder}", *([f"peft={adapter}"] if adapter else []), f"dtype={dtype}"]
    if choices.machine.holding != "bf16" and choices.machine.gpus > 1:
        arguments.append("parallelize=True")
    out = choices.work / "lm-eval" / name
    words = (
        "lm_eval", "--model", "hf", "--model_args", ",".join(arguments), "--tasks", choices.lm_eval,
        "--output_path", str(out),
    )  # fmt: skip
    how = ("--batch_size", "auto") if choices.machine.gpus else ("--batch_size", "8", "--device", "cpu")
    return Stage(
        f"lm-eval{suffix}", f"{name} on {choices.lm_eval}", _one(Command(words, how)), (out,),
        _model_inputs(choices, tuned), variant=name,
    )  # fmt: skip
