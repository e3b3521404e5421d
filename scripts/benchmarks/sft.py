"""Fine-tuning on completions: ``fairseq-train`` with this project's plugin against TRL's SFTTrainer at its best.

Both train the same model on the same pairs, loss on the completion alone, without gradient checkpointing, AdamW in the
weights' precision, about 2,048 tokens an update; LoRA and full, in float32 and bfloat16::

    python scripts/benchmarks/sft.py --json sft.json [--quick] [--model FOLDER --pairs FILE]

Without a model and pairs, a random model of SmolLM2-135M's shape is made, and pairs from this repository's text. First
TRL's settings are tried (how rows are packed or padded, how many at a time), and ours (tokens of a batch); then the
fastest of each train in turn, each in a process of its own, and tokens are counted that are read, without padding.
``…/tokens_per_s`` is ours ÷ TRL's (more is better), ``…/memory`` the peak resident size of the process, libraries
included, ours ÷ TRL's (less is better). ``v128k/loss_memory`` is the loss alone, ours ÷ the dense one, extra memory
over its inputs. ``padding_share`` is what part of our batches is padding; ``fill_of_max_tokens`` how full they are.
"""

import sys
from pathlib import Path

if __name__ in ("__main__", "__mp_main__"):  # see measure.py
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.benchmarks import sft_ours, sft_trl
from scripts.benchmarks.measure import machine, paired_ratio, row, run_in_turn, versions, write_report
from scripts.benchmarks.sft_options import Options
from scripts.benchmarks.sft_ours import OurSetting
from scripts.benchmarks.sft_trl import TrlSetting
from scripts.benchmarks.sft_turns import Side, Turn
from scripts.benchmarks.steps import all_cores

Setting = OurSetting | TrlSetting

OUR_SETTINGS = (OurSetting(512), OurSetting(1024), OurSetting(2048))
TRL_SETTINGS = (
    TrlSetting(1, 4, "bfd"),
    TrlSetting(2, 2, "bfd"),
    TrlSetting(4, 1, "bfd"),
    TrlSetting(1, 4, "bfd_split"),
    TrlSetting(1, 4, "wrapped"),
    TrlSetting(4, 1, "wrapped"),
    TrlSetting(1, 5, "padded"),
    TrlSetting(5, 1, "padded"),
)
TRL_NAMES = [setting.name for setting in TRL_SETTINGS]
COMBINATIONS = [Options(tuning, dtype) for dtype in ("bfloat16", "float32") for tuning in ("lora", "full")]
QUICK = [Options("lora", "bfloat16", tokens=1024), Options("full", "float32", tokens=1024)]


@dataclass
class Report:
    """What is found."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    fastest: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, turns: list[Turn]) -> None:
        """A variant's rows."""
        self.rows[f"{name}/tokens_per_s"] = row([turn.tokens_per_s for turn in turns])
        self.rows[f"{name}/tokens_per_cpu_s"] = row([turn.tokens / turn.cpu_seconds for turn in turns])
        self.rows[f"{name}/peak_mib"] = row([turn.peak_mib for turn in turns])
        self.rows[f"{name}/padding_share"] = row([1 - turn.tokens / turn.places for turn in turns])
        self.rows[f"{name}/tokens_per_update"] = row([turn.tokens for turn in turns])
        self.rows[f"{name}/loss"] = row([turn.loss for turn in turns])


def start(setting: Setting, inputs: tuple[str, str], options: Options, threads: int, updates: int) -> Side:
    """A side's process, warm."""
    train = sft_ours.train if isinstance(setting, OurSetting) else sft_trl.train
    return Side(train, *inputs, options, setting, warm_up=1, updates=updates, threads=threads)


def find_fastest(
    settings: tuple[Setting, ...], inputs: tuple[str, str], options: Options, args: argparse.Namespace, report: Report
) -> Setting:
    """Try each by itself; those that fail are left out."""
    speeds: dict[Setting, float] = {}
    for setting in settings if len(settings) > 1 else ():
        name = f"{options.name}/tried/{setting.name}"
        try:
            with start(setting, inputs, options, args.threads, 1) as side:
                turns = [side() for _ in range(args.tries)]
        except RuntimeError as error:
            report.left_out[name] = str(error)[-500:]
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        print(f"{name}: {turns}", file=sys.stderr)
        report.add(name, turns)
        speeds[setting] = statistics.median(turn.tokens_per_s for turn in turns)
    if len(settings) > 1 and not speeds:
        raise RuntimeError(f"no setting of {', '.join(s.name for s in settings)} runs; see above")
    return max(speeds, key=lambda setting: speeds[setting]) if speeds else settings[0]


def compare(inputs: tuple[str, str], options: Options, args: argparse.Namespace, report: Report) -> None:
    """The fastest of both sides in turn."""
    ours = find_fastest(args.our_settings, inputs, options, args, report)
    theirs = find_fastest(args.trl_settings, inputs, options, args, report)
    report.fastest[options.name] = {"ours": ours.name, "trl": theirs.name}
    with ExitStack() as stack:
        started = {
            name: start(setting, inputs, options, args.threads, args.updates)
            for name, setting in (("ours", ours), ("trl", theirs))
        }
        sides = {name: stack.enter_context(side) for name, side in started.items()}
        results: dict[str, list[Turn]] = run_in_turn(sides, args.repeats)
    for name, turns in results.items():
        report.add(f"{options.name}/{name}", turns)
    mine, peer = results["ours"], results["trl"]
    report.ratios[f"{options.name}/tokens_per_s"] = paired_ratio(
        [turn.tokens_per_s for turn in mine], [turn.tokens_per_s for turn in peer]
    )
    report.ratios[f"{options.name}/memory"] = paired_ratio(
        [turn.peak_mib for turn in mine[-1:]], [turn.peak_mib for turn in peer[-1:]]
    )
    padding = 1 - sum(turn.tokens for turn in mine) / sum(turn.places for turn in mine)
    report.ratios["padding_share"] = max(padding, report.ratios.get("padding_share", 0.0))


def add_loss(args: argparse.Namespace, report: Report) -> None:
    """The loss alone, at a vocabulary of 128k."""
    from scripts.benchmarks.sft_loss import DENSE, OURS, LossShape, measure

    shape = LossShape(positions=args.loss_positions)
    for dtype, short in (("float32", ""), ("bfloat16", "_bf16")):
        for trains, kind in ((True, ""), (False, "_frozen")):
            results = measure(shape, dtype, trains, args.repeats, args.threads)
            for name, steps in results.items():
                report.rows[f"v128k{short}{kind}/{name}/peak_mib"] = row([step.peak_mib for step in steps])
                report.rows[f"v128k{short}{kind}/{name}/seconds"] = row([step.seconds for step in steps])
            for what in ("memory", "time"):
                values = {
                    name: [step.peak_mib if what == "memory" else step.seconds for step in steps]
                    for name, steps in results.items()
                }
                report.ratios[f"v128k{short}{kind}/loss_{what}"] = paired_ratio(values[OURS], values[DENSE])


def add_fill(inputs: tuple[str, str], args: argparse.Namespace, report: Report) -> None:
    """How full our batches are, over an epoch."""
    import numpy as np

    from nid_plugin.causal_lm.source import load_tokenizer
    from nid_plugin.formatting import Formatter, PairFormat
    from nid_plugin.packing import pack
    from nid_plugin.pairs import read_pairs

    folder, file = inputs
    pairs = list(read_pairs(file))
    made = Formatter(load_tokenizer(Path(folder)), PairFormat(), folder).pair_ids(
        [pair.prompt for pair in pairs], [pair.completion for pair in pairs]
    )
    longest = COMBINATIONS[0].max_length
    lengths = np.minimum([len(pair.prompt) + len(pair.completion) for pair in made], longest)
    report.rows["tokens_per_pair"] = row(lengths.tolist())
    order = np.random.default_rng(0).permutation(len(lengths))
    for setting in args.our_settings:
        batches = pack(lengths, order, max_tokens=setting.max_tokens, max_sentences=None)
        share = float(lengths.sum()) / (len(batches) * setting.max_tokens)
        report.ratios[f"fill_of_max_tokens/{setting.max_tokens}"] = share


def make_inputs(folder: Path, args: argparse.Namespace) -> tuple[str, str]:
    """The folder of the model and the file of pairs: those given, or made."""
    from scripts.benchmarks.sft_inputs import make_model, make_pairs

    model, pairs = args.model or folder / "model", args.pairs or folder / "pairs.jsonl"
    if not args.model:
        make_model(model, layers=args.layers)
    if not args.pairs:
        make_pairs(pairs, args.made_pairs)
    return str(model), str(pairs)


def parse_args() -> argparse.Namespace:
    """The options; ``--quick`` changes what is not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="report to write")
    parser.add_argument("--quick", action="store_true", help="4 layers, two of the four, one setting a side, one turn")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="causal LM (default: one is made)")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="pairs (default: made from this repository's text)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of lora_bf16 full_bf16 lora_fp32 full_fp32")
    parser.add_argument("--repeats", type=int, help="turns of each side (default: 7; quick 1)")
    parser.add_argument("--updates", type=int, help="updates of a turn (default: 2; quick 1)")
    parser.add_argument("--tries", type=int, default=2, help="updates of each setting that is tried (default: 2)")
    parser.add_argument("--threads", type=int, default=all_cores(), help="default: all cores, %(default)s")
    parser.add_argument("--our-tokens", type=int, nargs="+", metavar="N", help="--max-tokens to try on our side")
    parser.add_argument(
        "--trl", nargs="+", metavar="NAME", help=f"settings of TRL to try (default: all: {' '.join(TRL_NAMES)})"
    )
    parser.add_argument("--no-loss", action="store_true", help="leave the loss alone out")
    args = parser.parse_args()
    for option, given, names in (
        ("--only", args.only, [options.name for options in COMBINATIONS]),
        ("--trl", args.trl, TRL_NAMES),
    ):
        unknown = sorted(set(given or ()) - set(names))
        if unknown:
            parser.error(f"{option} {' '.join(unknown)}: expected some of {' '.join(names)}")
    args.repeats = args.repeats or (1 if args.quick else 7)
    args.updates = args.updates or (1 if args.quick else 2)
    args.layers, args.made_pairs, args.loss_positions = (4, 60, 256) if args.quick else (30, 320, 2048)
    args.our_settings = tuple(map(OurSetting, args.our_tokens)) if args.our_tokens else OUR_SETTINGS
    args.trl_settings = tuple(setting for setting in TRL_SETTINGS if not args.trl or setting.name in args.trl)
    if args.quick:
        args.our_settings, args.trl_settings = args.our_settings[:1], (TrlSetting(1, 2, "bfd"),)
    return args


def main() -> None:
    """Measure, show and write."""
    args = parse_args()
    about_machine = machine()
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        inputs = make_inputs(Path(scratch), args)
        for options in QUICK if args.quick else COMBINATIONS:
            if not args.only or options.name in args.only:
                compare(inputs, options, args, report)
        add_fill(inputs, args, report)
    if not args.no_loss:
        add_loss(args, report)
    hidden = {"our_settings", "trl_settings", "json"}
    settings: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in hidden
    }
    write_report(
        args.json,
        {
            "machine": about_machine,
            "versions": versions("torch", "transformers", "trl", "peft", "accelerate", "ve-fairseq"),
            "settings": settings | {"options": asdict(COMBINATIONS[0]) | {"tuning": "each", "dtype": "each"}},
            "fastest": report.fastest,
            "left_out": report.left_out,
            "rows": report.rows,
            "ratios": report.ratios,
        },
    )
    for name, figures in report.rows.items():
        print(f"{name:44} min {figures['min']:10.1f}  median {figures['median']:10.1f}  max {figures['max']:10.1f}")
    for name, ratio in report.ratios.items():
        print(f"{name:44} {ratio:.3f}")


if __name__ == "__main__":
    main()
