"""Tiny causal LMs with random weights and real tokenizers, and pairs of toy text, made in a folder of the test's."""

import random
from pathlib import Path
from typing import Any, Literal

from nid_plugin.pairs import Pair, write_pairs

TEXT = (
    "the a river runs through our old town and its people walk along slowly every morning while small birds sing in "
    "green trees; nobody knows why they came here but everyone likes them, because music makes us happy."
)
WORDS = TEXT.split()
CHARACTERS = "äöüß é ñ – “quoted” 日本語 🙂 \n\n 0123456789"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with BOS in front."""

TokenizerKind = Literal["byte-level", "metaspace", "prepend"]
"""``byte-level``: BPE over bytes, as LLaMA-3 and SmolLM2. ``metaspace`` and ``prepend``: SentencePiece-like BPE with
byte fallback, as LLaMA-2, where a pre-tokenizer (the newer form) or a normalizer (the older) puts ``▁`` in front."""


def make_causal_lm(
    folder: str | Path,
    *,
    family: Literal["llama", "mistral"] = "llama",
    chat_template: bool = True,
    pad: bool = False,
    tied: bool = True,
    seed: int = 0,
    layers: int = 2,
    tokenizer: TokenizerKind = "byte-level",
) -> Path:
    """Save a model (32 wide, about 320 tokens, random float32 weights) and its tokenizer; the folder.

    Args:
        pad: whether the tokenizer has a pad token of its own.
        tied: whether input and output embeddings are one matrix.
    """
    from plugin_common.compat import hide_broken_torchaudio

    hide_broken_torchaudio()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    path = Path(folder)
    tokens = make_tokenizer(tokenizer, chat_template=chat_template, pad=pad)
    shape: dict[str, Any] = {
        "vocab_size": len(tokens),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
        "tie_word_embeddings": tied,
        "initializer_range": 0.1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any
        if family == "mistral":
            model = MistralForCausalLM(MistralConfig(**shape, sliding_window=None))
        else:
            model = LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(path)
    tokens.save_pretrained(path)
    return path


def make_tokenizer(kind: TokenizerKind = "byte-level", *, chat_template: bool = True, pad: bool = False) -> Any:
    """A fast tokenizer that puts BOS in front: ``<s>``, ``</s>``, ``<|im_start|>``, ``<|im_end|>`` are special."""
    from transformers import PreTrainedTokenizerFast

    backend = _byte_level() if kind == "byte-level" else _sentencepiece_like(kind)
    _put_bos_in_front(backend)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token=None if kind == "byte-level" else "<unk>",
        pad_token="<pad>" if pad else None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    if chat_template:
        made.chat_template = CHAT_TEMPLATE
    return made


def _put_bos_in_front(backend: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    backend.add_special_tokens(["<s>", "</s>"])
    ids = [("<s>", backend.token_to_id("<s>"))]
    backend.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=ids)


def _lines() -> list[str]:
    return [TEXT, CHARACTERS, *(" ".join(_words(random.Random(line), 30)) for line in range(40))]


def _byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=316,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_lines(), trainer)
    return backend


def _sentencepiece_like(kind: TokenizerKind) -> Any:
    import json

    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()  # pieces end where words do
    letters = sorted({letter for letter in TEXT if letter != " "})
    trainer = trainers.BpeTrainer(vocab_size=80, initial_alphabet=["▁", *letters], show_progress=False)
    learner.train_from_iterator([TEXT], trainer)
    learned = json.loads(learner.to_str())["model"]
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: index for index, piece in enumerate([*special, *learned["vocab"]])}
    merges = [tuple(merge) for merge in learned["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if kind == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _words(source: random.Random, count: int) -> list[str]:
    return [source.choice(WORDS) for _ in range(count)]


def toy_pairs(n: int, seed: int = 0) -> list[Pair]:
    """Pairs of 3 to 20 words a side; the completion begins with the prompt's last words, so that it can be learnt."""
    source = random.Random(seed)
    pairs = []
    for number in range(n):
        prompt = _words(source, source.randint(3, 20))
        completion = prompt[-2:] + _words(source, source.randint(1, 18))
        pairs.append(
            Pair(
                id=f"{seed:016x}{number:016x}",
                prompt=" ".join(prompt),
                completion=" ".join(completion),
                source=f"toy {number}",
                teacher="toy",
                finish_reason="stop",
            )
        )
    return pairs


def write_toy_pairs(path: str | Path, n: int, seed: int = 0) -> Path:
    """Write :func:`toy_pairs` to a file (``.jsonl``, also ``.gz`` and ``.zst``); the file."""
    write_pairs(str(path), toy_pairs(n, seed))
    return Path(path)
