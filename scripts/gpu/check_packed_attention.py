"""Whether a model computes the same for packed documents as for each by itself, with every attention that runs here."""

import argparse
import sys
from pathlib import Path

from plugin_common.compat import hide_broken_torchaudio

hide_broken_torchaudio()
import torch  # noqa: E402

from nid_plugin.causal_lm import packed_attention, source  # noqa: E402
from nid_plugin.causal_lm.lm import CausalLm, LmOutput  # noqa: E402
from nid_plugin.formatting import Formatter, PairFormat  # noqa: E402
from nid_plugin.pairs import read_pairs  # noqa: E402
from plugin_common.errors import UserError  # noqa: E402

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Of states, relative to their root mean square: sums are taken in another order, in bfloat16
rounded after each layer; documents that see each other differ by 1 and more."""


def documents(folder: Path, pairs: str, count: int, limit: int) -> list[torch.Tensor]:
    """Token ids of the first pairs."""
    formatter = Formatter(source.load_tokenizer(folder), PairFormat(), str(folder))
    found = [pair for pair, _ in zip(read_pairs(pairs), range(count), strict=False)]
    made = formatter.pair_ids([pair.prompt for pair in found], [pair.completion for pair in found])
    return [torch.tensor((one.prompt + one.completion)[:limit]) for one in made]


def states(model: CausalLm, texts: list[torch.Tensor]) -> torch.Tensor:
    """``[N, D]`` of documents in one pass."""
    tokens = torch.cat(texts)
    places = torch.cat([torch.arange(len(text), device=tokens.device) for text in texts])
    with torch.no_grad():
        output: LmOutput = model(tokens, places, [len(text) for text in texts], torch.arange(len(tokens)).to(tokens))
    return output.hidden.float()


def difference(folder: Path, texts: list[torch.Tensor], attention: str, dtype: torch.dtype) -> float:
    """The largest of a state between packed and alone, over the states' root mean square."""
    name = packed_attention.name_in_transformers(attention)
    lm = source.load_weights(folder, source.read_config(folder), dtype=dtype, attention=name).to(texts[0].device)
    model = CausalLm(lm, attention)
    alone = torch.cat([states(model, [text]) for text in texts])
    return float((states(model, texts) - alone).abs().max() / alone.square().mean().sqrt())


def main() -> int:
    """0 if all that runs agrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pairs", required=True, metavar="FILE")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    texts = [text.to(args.device) for text in documents(args.model, args.pairs, 8, 512)]
    wrong = 0
    for dtype, tolerance in TOLERANCE.items():
        for attention in packed_attention.IMPLEMENTATIONS:
            if attention == "flash_attention_2" and dtype == torch.float32:
                continue
            try:
                found = difference(args.model, texts, attention, dtype)
            except UserError as error:
                print(f"{attention} {dtype}: not here: {error}")
                continue
            print(f"{attention} {dtype}: largest difference {found:.2g}, allowed {tolerance:g}")
            wrong += found > tolerance
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
