"""``nid export``: a checkpoint of fine-tuning as a Hugging Face folder."""

import argparse
from pathlib import Path

from plugin_common.errors import UserError, raise_all
from plugin_common.progress import progress_bar

SUMMARY = "Make a Hugging Face folder of a fine-tuned checkpoint: the adapter, or a whole model."
EXAMPLE = (
    "nid export --checkpoint checkpoints/checkpoint_best.pt --output adapter\n"
    "  nid export --checkpoint checkpoints/checkpoint_best.pt --merge --dtype bfloat16 --output model"
)
DTYPES = ("float32", "bfloat16", "float16")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid export``."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="checkpoint of fairseq-train")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--merge", action="store_true", help="add the adapters to the base's weights: a whole model that needs no peft"
    )
    parser.add_argument("--base", metavar="FOLDER-OR-NAME", help="the base model (default: the one trained on)")
    parser.add_argument(
        "--base-as", metavar="NAME", help="what the adapter calls its base (default: its name on the hub, or its path)"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights of a whole model (default: the base's own)")
    parser.add_argument("--model-name", metavar="NAME", help="for the model card (default: the name of DIR)")
    parser.add_argument("--about", metavar="FILE", help="text for the model card: training data, licence, purpose")


def run(args: argparse.Namespace) -> None:
    """Export; tells what was written."""
    from nid_plugin.causal_lm.source import base_of_checkpoint
    from nid_plugin.export.checkpoint import read_trained
    from nid_plugin.export.folder import check_output

    output = Path(args.output)
    check_output(output)
    about = _read(args.about)
    trained = read_trained(args.checkpoint)
    whole = trained.adapters is None or args.merge
    raise_all(
        f"{option}: is for {kind}; leave it out"
        for option, given, kind in (
            ("--merge", args.merge and trained.adapters is None, "adapters, and the checkpoint holds all weights"),
            ("--dtype", args.dtype and not whole, "whole models; an adapter keeps the precision of its training"),
            ("--base-as", args.base_as and whole, "adapters, and a whole model is asked for"),
        )
        if given
    )
    fingerprint = trained.fingerprint if trained.adapters is not None else None
    base = base_of_checkpoint(args.base or trained.base, fingerprint, hint="name it with --base FOLDER")
    _write(args, trained, base, output, about)
    size = sum(file.stat().st_size for file in output.iterdir())
    kind = "whole model" if whole else f"adapter of {base}"
    print(f"{output}: {kind}, {size / 1e6:,.1f} MB, from {args.checkpoint} ({trained.updates:,} updates)")


def _write(args: argparse.Namespace, trained: "object", base: Path, output: Path, about: str | None) -> None:
    import torch

    from nid_plugin.export import folder
    from nid_plugin.export.checkpoint import Trained

    assert isinstance(trained, Trained)
    name = args.model_name or output.resolve().name
    dtype = getattr(torch, args.dtype) if args.dtype else None
    if trained.adapters is None:
        folder.write_full(trained, base, output, dtype=dtype, name=name, about=about)
    elif args.merge:
        with progress_bar(total=None, unit=" tensors", description="merge") as bar:
            folder.write_merged(
                trained, base, output, dtype=dtype, name=name, about=about, on_tensor=lambda: bar.update(1)
            )
    else:
        folder.write_adapter(trained, base, output, base_as=args.base_as, name=name, about=about)


def _read(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--about {path}: cannot be read as text ({error})") from error
