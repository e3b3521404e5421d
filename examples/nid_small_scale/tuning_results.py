"""What the second half came to: perplexities before and after, what the models write, curves; numbers, page, figure."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.nid_small_scale.score_models import BASE, WAYS, perplexity
from examples.nid_small_scale.sizes import Size
from examples.nid_small_scale.tuning_steps import PAIRS, RATES, Run, held_out, runs
from nid_plugin.audit.detectors import DETECTORS
from nid_plugin.documents.words import words
from nid_plugin.markdown import table
from nid_plugin.pairs import read_pairs

ROUNDS = 2000
KINDS = {"teacher": "the teacher's completions", "second-half": "the documents' second halves"}
_VALIDATED = re.compile(r"valid on 'valid_([a-z-]+)' subset.*?\| nll_loss (\S+).*?\| num_updates (\d+)")
_TALK = [one for one in DETECTORS if one.group in ("assistant", "instruction") and "completion" in one.sides]

Scores = dict[str, list[dict[str, float]]]


def gathered(size: Size, work: Path) -> dict[str, Any]:
    """All numbers of the second half; see the keys of ``tuning.json``."""
    files = {name: work / "tuning" / "scores" / f"{name}.json" for name in (BASE, *(run.name for run in runs(size)))}
    read = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}
    scores: dict[str, Scores] = {name: one["scores"] for name, one in read.items()}
    texts = {kind: [pair.completion for pair in read_pairs(str(path))] for kind, path in _sets(work).items()}
    prompts = [pair.prompt for pair in read_pairs(str(next(iter(_sets(work).values()))))]
    return {
        "pairs": {kind: {"train": _count(work, kind), "held_out": len(own)} for kind, own in texts.items()},
        "tokens": {kind: sum(int(pair["tokens"]) for pair in scores[BASE][kind]) for kind in PAIRS},
        "rates": RATES,
        "updates": size.updates,
        "perplexity": {name: {kind: perplexity(own[kind]) for kind in PAIRS} for name, own in scores.items()},
        "change": {
            f"{tuning} on {data}": {kind: change(scores, _names(size, tuning, data), kind) for kind in PAIRS}
            for tuning in RATES
            for data in PAIRS
        },
        "curves": {run.name: curve(work / "logs" / f"{run.name}.log") for run in runs(size)},
        "writing": {
            **{name: {way: written(one["completions"], way) for way in WAYS} for name, one in read.items()},
            **{f"held-out: {KINDS[kind]}": {"as they are": measured(own, None)} for kind, own in texts.items()},
        },
        "prompts": prompts[: size.generated],
        "completions": {name: one["completions"] for name, one in read.items()},
    }


def _sets(work: Path) -> dict[str, Path]:
    return held_out(work / "tuning" / "data")


def _count(work: Path, kind: str) -> int:
    return sum(1 for _ in read_pairs(str(work / "tuning" / "data" / f"train_{kind}.jsonl")))


def _names(size: Size, tuning: str, data: str) -> list[str]:
    """Runs of all seeds."""
    return [Run(tuning, data, seed).name for seed in size.seeds]


def change(scores: Mapping[str, Scores], after: Sequence[str], kind: str) -> dict[str, float]:
    """Nats a token after fine-tuning less those before, with a 95 % interval of a bootstrap over held-out documents.

    Args:
        scores: of all models.
        after: models of several seeds; their nats are averaged.
        kind: of held-out completions.

    Returns:
        ``nats`` (negative: more probable than before), ``low``, ``high``.
    """
    tokens = np.array([pair["tokens"] for pair in scores[BASE][kind]])
    before = np.array([pair["nats"] for pair in scores[BASE][kind]])
    means = np.mean([[pair["nats"] for pair in scores[name][kind]] for name in after], axis=0)
    drawn = np.random.default_rng(1).integers(len(tokens), size=(ROUNDS, len(tokens)))
    resampled = (means - before)[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"nats": float((means - before).sum() / tokens.sum()), "low": float(low), "high": float(high)}


def curve(log: Path) -> dict[str, list[tuple[int, float]]]:
    """Updates and perplexities of held-out completions during a training, by their kind."""
    found: dict[str, dict[int, float]] = {kind: {} for kind in PAIRS}
    for line in log.read_text(encoding="utf-8").splitlines():
        if match := _VALIDATED.search(line):
            found[match[1]][int(match[3])] = 2 ** float(match[2])
    return {kind: sorted(points.items()) for kind, points in found.items()}


def written(completions: Mapping[str, list[Any]], way: str) -> dict[str, float]:
    """See :func:`measured`, of what a model wrote."""
    return measured(completions[way], completions[f"cut {way}"])


def measured(texts: Sequence[str], cut: Sequence[bool] | None) -> dict[str, float]:
    """Of some completions: their number, words, how many were cut, and how many hold an assistant's talk or a request.

    Args:
        texts: see above.
        cut: whether each was stopped by the limit; None where there was none.
    """
    return {
        "texts": len(texts),
        "words": sum(len(words(text)) for text in texts) / len(texts),
        "cut": sum(cut) if cut is not None else 0,
        "talk": sum(any(detector.find(text) for detector in _TALK) for text in texts),
    }


# ---- page ------------------------------------------------------------------------------------------------------------


def as_markdown(size: Size, found: Mapping[str, Any], shown: Sequence[int]) -> str:
    """The page.

    Args:
        size: of the run.
        found: see :func:`gathered`.
        shown: which held-out prompts may be shown.
    """
    pairs, tokens = found["pairs"]["teacher"], found["tokens"]
    blocks = [
        "# The teacher, fine-tuned on what it wrote",
        "The only causal LM at hand is SmolLM2-135M-**Instruct**, and it is the teacher, too: it is fine-tuned, in the "
        "form of a chat, on continuations that it sampled itself (temperature 0.6, top-p 0.9). So this is no "
        "reproduction of the paper, whose students are other and larger models, mostly without instruction tuning. It "
        "shows that the way works from documents to a fine-tuned model, and what such data does to the probabilities "
        "of held-out text. The control is trained on the documents' own second halves, cut to the teacher's lengths.",
        f"{pairs['train']:,} pairs to train on, {pairs['held_out']} held out (the same documents for both kinds); "
        f"{found['updates']:,} updates of 2,048 tokens with bf16 on the CPU; "
        f"{', '.join(f'{name}: rate {rate:g}' for name, rate in found['rates'].items())}; seeds "
        f"{', '.join(map(str, size.seeds))}. Rates and updates were not tuned.",
        "## Perplexity of held-out completions",
        f"exp(nats a token) of {tokens['teacher']:,} and {tokens['second-half']:,} tokens; the mean of the seeds, and "
        "each of them.",
        *(block for tuning in RATES for block in (f"**{tuning}**", _perplexities(size, found, tuning))),
        "![perplexity by updates](tuning.png)",
        "## What is learnt, and what is not",
        "Nats a token after less before, with a 95 % interval (bootstrap over held-out documents, seeds averaged).",
        _changes(found),
        "\n".join(f"- {line}" for line in findings(found)),
        "## What the models write",
        f"From the first {len(found['prompts'])} held-out prompts. *talk*: completions in which the audit's detectors "
        "find what an assistant says, or a request; *cut*: stopped by the longest length.",
        _writing(found),
        "## Side by side",
        *_side_by_side(size, found, shown),
    ]
    return "\n\n".join(blocks) + "\n"


def _perplexities(size: Size, found: Mapping[str, Any], tuning: str) -> str:
    values = found["perplexity"]
    rows = [("nothing (before)", *(f"{values[BASE][kind]:.2f}" for kind in PAIRS))]
    for data in PAIRS:
        cells = []
        for kind in PAIRS:
            each = [values[name][kind] for name in _names(size, tuning, data)]
            mean = math.exp(sum(map(math.log, each)) / len(each))
            cells.append(f"{mean:.2f} ({', '.join(f'{value:.2f}' for value in each)})")
        rows.append((KINDS[data], *cells))
    return table(("trained on ↓, evaluated on →", *KINDS.values()), rows)


def _changes(found: Mapping[str, Any]) -> str:
    rows = [
        (name, *(f"{one[kind]['nats']:+.3f} ({one[kind]['low']:+.3f} to {one[kind]['high']:+.3f})" for kind in PAIRS))
        for name, one in found["change"].items()
    ]
    return table(("trained", *KINDS.values()), rows)


def findings(found: Mapping[str, Any]) -> list[str]:
    """The changes in words."""
    lines = []
    for name, changes in found["change"].items():
        told = "; ".join(f"{KINDS[kind]} {in_words(one)}" for kind, one in changes.items())
        lines.append(f"{name}: {told}.")
    return lines


def in_words(change: Mapping[str, float]) -> str:
    """What a change says."""
    if change["low"] <= 0 <= change["high"]:
        return "show no change that chance could not make"
    direction = "more" if change["nats"] < 0 else "less"
    return f"become {direction} probable (perplexity × {math.exp(change['nats']):.2f})"


def _writing(found: Mapping[str, Any]) -> str:
    rows = [
        (name, way, one["texts"], f"{one['words']:.1f}", one["cut"], one["talk"])
        for name, ways in found["writing"].items()
        for way, one in ways.items()
    ]
    return table(("model", "", "texts", "words", "cut", "talk"), rows)


def _side_by_side(size: Size, found: Mapping[str, Any], shown: Sequence[int]) -> list[str]:
    names = [BASE, *(Run(tuning, data, size.seeds[0]).name for tuning in RATES for data in PAIRS)]
    blocks = []
    for number in [n for n in shown if n < len(found["prompts"])]:
        blocks.append(f"### Prompt {number + 1}\n\n> … {_line(found['prompts'][number][-300:])}")
        for way in WAYS:
            lines = [f"- **{name}**: {_line(found['completions'][name][way][number])}" for name in names]
            blocks.append("\n".join([f"{way}:", "", *lines]))
    return blocks or ["No prompt's licence allows to show it."]


def _line(text: str) -> str:
    return " ".join(text.split()).replace("<", "\\<").replace("`", "\\`").replace("*", "\\*")


# ---- figure ----------------------------------------------------------------------------------------------------------


def draw(size: Size, found: Mapping[str, Any], path: Path) -> None:
    """Perplexity of both kinds of held-out completions by updates: a line for each training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, len(PAIRS))
    colours = dict(zip(PAIRS, ("tab:blue", "tab:orange"), strict=True))
    styles = dict(zip(RATES, ("-", "--"), strict=True))
    for axis, kind in zip(axes, PAIRS, strict=True):
        before = found["perplexity"][BASE][kind]
        for run in runs(size):
            points = [(0, before), *found["curves"][run.name][kind]]
            label = f"{run.tuning}, on {KINDS[run.data]}" if run.seed == size.seeds[0] else None
            axis.plot(*zip(*points, strict=True), styles[run.tuning], color=colours[run.data], marker=".", label=label)
        axis.axhline(before, color="grey", linewidth=0.8)
        axis.set(title=f"held out: {KINDS[kind]}", xlabel="updates", ylabel="perplexity")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
