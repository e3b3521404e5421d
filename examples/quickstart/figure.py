"""Draw a finished quickstart: its training curve, and what the model does with one sentence.

example:
  python examples/quickstart/figure.py --run runs/quickstart-de-en --line 'Die Datei wurde gelöscht.' --output f.png
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from nat_plugin.figures.alignment import BLANK, MASK
from nat_plugin.figures.training_log import read_training_log
from plugin_common.quiet_logging import warnings_only


def training_curve(log: Path) -> tuple[list[int], list[float], list[float]]:
    """``(updates, validation BLEU, validation loss in bits a token)`` from a fairseq log."""
    statistics = read_training_log(log)
    updates, bleu = statistics.series("valid", "bleu")
    return updates, bleu, statistics.series("valid", "loss").values


def one_pass(run: Path, line: str) -> tuple[list[str], list[str], str]:
    """``(up-sampled source, label of each position, translation)`` for a line of text."""
    import fairseq.tasks  # noqa: F401
    from fairseq import checkpoint_utils

    import nat_plugin
    from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer

    nat_plugin.register()
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(run / "model.pt")], arg_overrides={"data": str(run / "data-bin")}
    )
    model.eval()
    tokenizer = PieceTokenizer.from_folder(run / "pmlm")
    dictionary = task.source_dictionary
    tokens = dictionary.encode_line(tokenizer.encode(line), add_if_not_exist=False).long()[None]
    lengths = torch.tensor([tokens.size(1)])
    with torch.inference_mode():
        labels = model.logits(model(tokens, lengths)).argmax(-1)[0].tolist()
        places, _ = model.upsampler(tokens[:, :-1], lengths - 1, model.max_upsampled)
    hypothesis = task.build_generator([model], None).generate(
        [model], {"net_input": {"src_tokens": tokens, "src_lengths": lengths}}
    )
    translation = tokenizer.decode(dictionary.string(hypothesis[0][0]["tokens"]))
    return (
        [MASK if dictionary[i] == "<mask>" else dictionary[i] for i in places[0].tolist()],
        [BLANK if i == model.blank else dictionary[i] for i in labels],
        translation,
    )


def draw(run: Path, line: str, output: Path) -> None:
    """Write the figure."""
    updates, bleu, loss = training_curve(run / "train.log")
    source, labels, translation = one_pass(run, line)
    figure, (curve, sentence) = plt.subplots(2, 1, figsize=(10, 6.4), height_ratios=[3, 2])
    curve.plot(updates, bleu, marker="o", color="tab:blue")
    curve.set(xlabel="updates", ylabel="validation BLEU (detokenised)", title="Training from random weights")
    curve.yaxis.label.set_color("tab:blue")
    other: Any = curve.twinx()
    other.plot(updates, loss, marker=".", color="tab:gray")
    other.set_ylabel("validation loss (bits a target token)", color="tab:gray")
    sentence.set_axis_off()
    sentence.set_title(
        "One pass: MASKs (M) between the pieces, one label or a blank (∅) a position, repeats and blanks dropped"
    )
    width = max(len(source), 1)
    for i, (piece, label) in enumerate(zip(source, labels, strict=True)):
        x = (i + 0.5) / width
        grey = piece == MASK
        sentence.text(
            x, 0.85, piece, ha="center", va="center", rotation=35, color="0.6" if grey else "black", fontsize=9
        )
        sentence.annotate("", (x, 0.42), (x, 0.6), arrowprops={"arrowstyle": "->", "color": "0.7"})
        sentence.text(
            x,
            0.25,
            label,
            ha="center",
            va="center",
            rotation=35,
            color="0.6" if label == BLANK else "tab:blue",
            fontsize=9,
        )
    sentence.text(0.5, -0.08, f"{line}   →   {translation}", ha="center", va="center", fontsize=11)
    figure.tight_layout()
    figure.savefig(output, dpi=110)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="output folder of run.sh")
    parser.add_argument("--line", required=True, help="a line in the source language")
    parser.add_argument("--output", type=Path, required=True, help="PNG or SVG file to write")
    args = parser.parse_args()
    with warnings_only("fairseq", "matplotlib", "PIL"):
        draw(args.run, args.line, args.output)


if __name__ == "__main__":
    main()
