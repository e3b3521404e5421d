"""What models make of held-out pairs: log-probabilities of the completions, and completions of their own.

python score_models.py --base model --model lora=lora/checkpoint_last.pt --held-out teacher=valid.jsonl --out scores

Each model gets a file NAME.json; one that is there already is left as it is, so that a run that was stopped goes on.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from plugin_common.atomic_file import atomic_output
from plugin_common.command_line import resumable
from plugin_common.errors import UserError, raise_all
from plugin_common.progress import progress_bar

BASE = "before"
"""The name of the model that is not fine-tuned."""
BATCH = 8
WAYS = ("greedy", "sampled")


def named(texts: Sequence[str], option: str) -> dict[str, Path]:
    """Files by name, from ``NAME=FILE`` each.

    Raises:
        UserError: lists what is not of that form, or no file.
    """
    parts = [text.partition("=") for text in texts]
    raise_all(
        f"{option} {''.join(part)}: expected NAME=FILE with a file that is there"
        for part in parts
        if not (part[0] and part[1]) or not Path(part[2]).is_file()
    )
    return {name: Path(path) for name, _, path in parts}


def load_base(folder: str, pair_format: str) -> tuple[Any, Any]:
    """Task and model as a training on ``folder`` would begin."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    words = [
        ".", "--task", "completion_sft", "--pair-format", pair_format, "--arch", "hf_causal_lm", "--model", folder,
        "--tuning", "full", "--criterion", "completion_cross_entropy", "--max-tokens", "4096", "--cpu",
    ]  # fmt: skip
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))
    task = tasks.setup_task(config.task)
    return task, task.build_model(config.model)


def load_checkpoint(path: Path) -> tuple[Any, Any]:
    """Task and model of a checkpoint."""
    from fairseq import checkpoint_utils

    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return task, models[0]


def completion_nats(task: Any, model: Any, file: Path) -> list[dict[str, float]]:
    """For each pair of a file −log p(completion | prompt) in nats, summed over its tokens (the end token is one)."""
    import torch

    from nid_plugin.completion_dataset import CompletionDataset
    from nid_plugin.criterions.completion_cross_entropy import CompletionCrossEntropy
    from nid_plugin.tokenized_pairs import tokenize_pairs

    criterion = CompletionCrossEntropy(task, label_smoothing=0.0, chunk_rows=-1)
    pairs = tokenize_pairs(str(file), task.formatter, cache=None)
    dataset = CompletionDataset([(pairs, 1.0)], limit=None, shuffle=False, name=file.stem)
    scores = []
    with torch.no_grad():
        for index in range(len(dataset)):
            loss, labels, _ = criterion(model, dataset.collater([dataset[index]]))
            scores.append({"nats": float(loss), "tokens": int(labels)})
    return scores


def completions(task: Any, model: Any, file: Path, count: int, settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Completions of the first ``count`` prompts of a file, greedily and by sampling.

    Args:
        task, model: as loaded.
        file: of pairs.
        count: see above.
        settings: ``max_tokens``, and ``temperature``, ``top_p``, ``seed`` of the sampling.

    Returns:
        for each way the texts, and under ``cut …`` whether each was cut at ``max_tokens``.
    """
    import torch

    from nid_plugin.completion_dataset import PromptDataset
    from nid_plugin.tokenized_pairs import tokenize_pairs

    pairs, longest = tokenize_pairs(str(file), task.formatter, cache=None), settings["max_tokens"]
    found: dict[str, list[Any]] = {}
    for way in WAYS:
        chosen = {"sampling": True, "temperature": settings["temperature"], "sampling_topp": settings["top_p"]}
        options = argparse.Namespace(beam=1, max_len_b=longest, **(chosen if way == "sampled" else {}))
        generator = task.build_generator([model], options)
        prompts = PromptDataset(pairs, pad=generator.pad, limit=generator.positions - longest, name=file.stem)
        torch.manual_seed(settings["seed"])
        tokens = []
        for start in range(0, min(count, len(prompts)), BATCH):
            rows = range(start, min(start + BATCH, count, len(prompts)))
            batch = prompts.collater([prompts[row] for row in rows])
            tokens += [best[0]["tokens"] for best in generator.generate([model], batch)]
        found[way] = [task.formatter.completion_text(ids.tolist()) for ids in tokens]
        found[f"cut {way}"] = [int(ids[-1]) not in generator.end_ids for ids in tokens]
    return found


def score(args: argparse.Namespace) -> None:
    """Score the base, then each model; tells their perplexities."""
    models, sets = named(args.model, "--model"), named(args.held_out, "--held-out")
    if BASE in models:
        raise UserError(f"--model {BASE}=…: is the name of the base model; give another one")
    args.out.mkdir(parents=True, exist_ok=True)
    import torch

    import nid_plugin

    nid_plugin.register()
    settings = {name: getattr(args, name) for name in ("max_tokens", "temperature", "top_p", "seed")}
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[args.precision]
    with progress_bar(total=1 + len(models), unit=" models", description="scoring") as bar:
        for name, checkpoint in {BASE: None, **models}.items():
            path = args.out / f"{name}.json"
            if not path.exists():
                task, model = load_checkpoint(checkpoint) if checkpoint else load_base(args.base, args.pair_format)
                model = model.to(dtype).eval()
                scores = {kind: completion_nats(task, model, file) for kind, file in sets.items()}
                model.causal_lm.lm.set_attn_implementation("sdpa")  # generation packs nothing
                own = completions(task, model, next(iter(sets.values())), args.generate, settings)
                with atomic_output(str(path)) as stream:
                    stream.write(
                        json.dumps({"scores": scores, "completions": own}, ensure_ascii=False, indent=1).encode()
                    )
            told = ", ".join(f"{kind} {value:.2f}" for kind, value in perplexities(path).items())
            print(f"{name}: perplexity of held-out completions: {told}", flush=True)
            bar.update(1)


def perplexities(path: Path) -> dict[str, float]:
    """exp(nats / tokens) of a model's file, by set."""
    scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
    return {kind: perplexity(pairs) for kind, pairs in scores.items()}


def perplexity(pairs: Sequence[Mapping[str, float]]) -> float:
    """exp(nats / tokens) of some pairs."""
    return math.exp(sum(pair["nats"] for pair in pairs) / sum(pair["tokens"] for pair in pairs))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, metavar="FOLDER", help="the model before fine-tuning")
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=CHECKPOINT")
    parser.add_argument(
        "--held-out", nargs="+", required=True, metavar="NAME=PAIRS", help="the first gives the prompts"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pair-format", default="chat", help="of the base (default: %(default)s)")
    parser.add_argument("--generate", type=int, default=8, metavar="N", help="prompts to go on from")
    parser.add_argument("--max-tokens", type=int, default=160, metavar="N", help="longest completion")
    parser.add_argument("--temperature", type=float, default=0.6, help="default: %(default)s")
    parser.add_argument("--top-p", type=float, default=0.9, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of sampling (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    args = make_parser().parse_args(argv)
    return resumable(lambda: score(args), name="score_models.py")


if __name__ == "__main__":
    sys.exit(main())
