"""What sft.py trains on where no model and no pairs are given: both are made from this repository alone."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from nid_plugin.pairs import Pair, write_pairs
from plugin_common.hf_folder import quiet_transformers

ROOT = Path(__file__).resolve().parents[2]

SHAPE = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
"""That of SmolLM2-135M, which has 30 layers."""


def texts() -> Iterator[str]:
    """Paragraphs of the documentation and of the code."""
    for pattern in ("docs/**/*.md", "*.md", "*_plugin/**/*.py", "plugin_common/*.py", "scripts/**/*.py"):
        for file in sorted(ROOT.glob(pattern)):
            yield from re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))


def make_pairs(path: Path, count: int, seed: int = 0) -> None:
    """Neighbouring paragraphs as prompt and completion: 40 to 2,000 characters in all, of many lengths."""
    rng = random.Random(seed)
    paragraphs = [text for text in texts() if text.strip()]

    def pair(number: int) -> Pair:
        start, wanted, chosen = rng.randrange(len(paragraphs)), rng.randrange(40, 2000), ""
        while len(chosen) < wanted:
            chosen += paragraphs[start % len(paragraphs)] + "\n\n"
            start += 1
        middle = rng.randrange(len(chosen) // 4, 3 * len(chosen) // 4)
        prompt, completion = chosen[:middle], chosen[middle : wanted + 40]
        return Pair(
            f"{number:032x}", prompt or "x", (completion.strip() and completion) or "x", "", "document", "document"
        )

    write_pairs(str(path), (pair(number) for number in range(count)))


def make_model(folder: Path, layers: int) -> None:
    """A random model of ``SHAPE`` with a byte-level tokenizer trained on this repository."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    with quiet_transformers():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, bos_token_id=0, eos_token_id=0, pad_token_id=None)
    with quiet_transformers():
        LlamaForCausalLM(config).save_pretrained(folder)
