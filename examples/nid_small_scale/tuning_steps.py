"""The stages of the second half: the model that writes the pairs is fine-tuned on them, and on its controls."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.nid_small_scale.serve import MODEL, missing_packages, model_file
from examples.nid_small_scale.sizes import Size
from plugin_common.stages import Command, Stage
from scripts.nid.training import validation_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLUGIN = ROOT / "nid_plugin"
DATA_SEED = 1
PAIRS = {"teacher": "pairs.jsonl", "second-half": "control-same-length.jsonl"}
"""What is trained on, and evaluated on: completions of equal length, of the same prompts."""
RATES = {"lora": 1e-3, "full": 1e-4}
UPDATE_TOKENS, AT_ONCE = 2048, 1024
"""Tokens of an update, and of each of the batches of which it is accumulated."""


@dataclass(frozen=True)
class Run:
    """One fine-tuning."""

    tuning: str
    data: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.tuning}-{self.data}-{self.seed}"


def runs(size: Size) -> list[Run]:
    """All trainings, those of the first seed first."""
    return [Run(tuning, data, seed) for seed in size.seeds for tuning in RATES for data in PAIRS]


def held_out(data: Path) -> dict[str, Path]:
    """Held-out pairs by kind, in the folder of the split pairs."""
    return {kind: data / f"valid_{kind}.jsonl" for kind in PAIRS}


def gguf_file() -> Path:
    """The model's file in its package; where it is not installed, its name."""
    return Path("SmolLM2-135M-Instruct.Q4_1.gguf") if missing_packages() else model_file()


def tuning_stages(size: Size, work: Path) -> list[Stage]:
    """All stages in order; they read the pairs of the first half."""
    return [
        model_stage(work),
        split_stage(size, work),
        *(training_stage(run, size, work) for run in runs(size)),
        scoring_stage(size, work),
    ]


def model_stage(work: Path) -> Stage:
    """The teacher's own weights, unpacked."""
    command = Command(("nid", "import-gguf", str(gguf_file()), "--output", str(work / "model")))
    return Stage("model", f"{MODEL} as a folder that can be fine-tuned", ((command,),), outputs=(work / "model",))


def split_stage(size: Size, work: Path) -> Stage:
    """The same documents are held out of both kinds of pairs."""
    data = work / "tuning" / "data"
    return Stage(
        "split",
        f"{size.held_out} documents are kept from training",
        tuple((command,) for command in _split_commands(size, work, data)),
        outputs=(data, *(work / "tuning" / f"split-{kind}" for kind in PAIRS)),
        inputs=tuple(work / file for file in PAIRS.values()),
    )


def _split_commands(size: Size, work: Path, data: Path) -> Iterator[Command]:
    like = ("--like", str(work / PAIRS["teacher"]), "--valid", str(size.held_out), "--seed", str(DATA_SEED))
    program = str(ROOT / "scripts" / "nid" / "split_pairs.py")
    for kind, file in PAIRS.items():
        folder = work / "tuning" / f"split-{kind}"
        yield Command(("python", program, str(work / file), *like, "--out", str(folder)))
        for part in ("train", "valid"):
            yield Command(("cat", str(folder / f"{part}.jsonl")), output=data / f"{part}_{kind}.jsonl")


def training_stage(run: Run, size: Size, work: Path) -> Stage:
    """LoRA or all weights, on one kind of pairs; validated on both."""
    data, save = work / "tuning" / "data", work / "tuning" / run.name
    every = str(max(1, size.updates // size.validations))
    words = (
        "fairseq-train", str(data), "--user-dir", str(PLUGIN), "--task", "completion_sft", "--pair-format", "chat",
        "--train-pairs", str(data / f"train_{run.data}.jsonl"),
        "--valid-subset", ",".join(path.stem for path in held_out(data).values()),
        "--arch", "hf_causal_lm", "--model", str(work / "model"), "--tuning", run.tuning,
        "--criterion", "completion_cross_entropy", "--optimizer", "fused_adamw", "--clip-norm", "1",
        "--lr", f"{RATES[run.tuning]:g}", "--lr-scheduler", "cosine",
        "--warmup-updates", str(size.updates // 10), "--max-update", str(size.updates),
        "--max-tokens", str(AT_ONCE), "--update-freq", str(UPDATE_TOKENS // AT_ONCE), "--bf16", "--seed", str(run.seed),
        "--validate-interval", "1000000", "--validate-interval-updates", every, "--save-interval-updates", every,
        "--keep-interval-updates", "1", "--no-epoch-checkpoints", "--update-epoch-batch-itr", "True",
        "--save-dir", str(save / "checkpoints"),
    )  # fmt: skip
    how = ("--log-format", "simple", "--log-interval", "4", "--num-workers", "0", "--cpu")
    return Stage(
        run.name,
        f"{run.tuning} on {run.data} pairs, seed {run.seed}",
        ((Command(words, how),), (_keep_the_last(save / "checkpoints"),)),
        outputs=(save,),
        inputs=(data, work / "model"),
        long=True,
        shown=_shown,
    )


def _keep_the_last(checkpoints: Path) -> Command:
    """Delete the other ones: with the optimizer's state each of a full training takes 2 GB."""
    others = ("-name", "checkpoint*.pt", "!", "-name", "checkpoint_last.pt", "-delete")
    return Command(("find", str(checkpoints), *others))


def _shown(line: str) -> str | None:
    return validation_line(line.replace("'valid_teacher' subset", "'valid' subset"))


def checkpoint(run: Run, work: Path) -> Path:
    """The last one of a training."""
    return work / "tuning" / run.name / "checkpoints" / "checkpoint_last.pt"


def scoring_stage(size: Size, work: Path) -> Stage:
    """All models on both kinds of held-out pairs, and some completions of each."""
    every, out = runs(size), work / "tuning" / "scores"
    sets = held_out(work / "tuning" / "data")
    words = (
        "python", str(HERE / "score_models.py"), "--base", str(work / "model"),
        "--model", *(f"{run.name}={checkpoint(run, work)}" for run in every),
        "--held-out", *(f"{kind}={path}" for kind, path in sets.items()),
        "--generate", str(size.generated), "--max-tokens", str(size.max_tokens), "--out", str(out),
    )  # fmt: skip
    return Stage(
        "scores",
        f"{1 + len(every)} models on held-out pairs",
        ((Command(words),),),
        outputs=(out,),
        inputs=(work / "model", *sets.values(), *(checkpoint(run, work) for run in every)),
        long=True,
        shown=lambda line: line.strip() if "perplexity of held-out" in line else None,
    )
