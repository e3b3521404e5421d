"""``nid import-gguf``: a GGUF file made into a Hugging Face folder."""

import argparse

SUMMARY = "Make a Hugging Face folder of a GGUF file, to fine-tune it; quantised weights are unpacked."
EXAMPLE = "nid import-gguf SmolLM2-135M-Instruct.Q4_1.gguf --output smollm2"
DTYPES = ("float32", "bfloat16", "float16")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid import-gguf``."""
    parser.add_argument("file", metavar="FILE", help="GGUF file of LLaMA, Mistral, Qwen or another known architecture")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the weights written; float32 keeps each unpacked value, the others round it (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Convert; tells what was written."""
    from nid_plugin.causal_lm.gguf import convert_gguf

    folder = convert_gguf(args.file, args.output, dtype=args.dtype)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:,.1f} MB, from {args.file}")
