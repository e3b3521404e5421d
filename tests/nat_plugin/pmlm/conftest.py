"""Tiny masked LMs of every supported kind, random but complete, each saved as a hub folder would be."""

import functools
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nat_plugin.pmlm.corpus_pieces import Corpus
from nat_plugin.pmlm.prune import PMLM, prune
from nat_plugin.pmlm.source_model import SourceModel, open_source
from plugin_common import compat
from plugin_common.hf_folder import save_pmlm

compat.hide_broken_torchaudio()

TRAINING_TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "der schnelle braune Fuchs springt über den faulen Hund",
    "Änderungen können nicht rückgängig gemacht werden.",
    "changes cannot be undone, and files can't be restored!",
    "vulpea brună și rapidă sare peste câinele leneș",
    "<b>Fett</b> & <s>durchgestrichen</s>: 100 % (20–30 €)",
    "日本語 の 文字 と 한국어 글자",
    "open the file, close the file; opening, closed, reopened",
    "Datei öffnen, Datei schließen; geöffnet, geschlossen, wieder geöffnet",
]
"""What the tiny tokenizers are trained on."""

SMALL_CORPUS = TRAINING_TEXT[1:3] + TRAINING_TEXT[5:8]
"""What they are pruned to: some of their pieces occur, many do not."""


@dataclass(frozen=True)
class TinySource:
    """A source folder, as the library opens it, pruned to ``SMALL_CORPUS``, and saved."""

    folder: Path
    source: SourceModel
    pmlm: PMLM
    output: Path


@pytest.fixture(scope="session")
def training_text() -> str:
    """What the tiny tokenizers were trained on."""
    return "\n".join(TRAINING_TEXT)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the text that the tiny sources are pruned to."""
    path = tmp_path_factory.mktemp("corpus") / "small.txt"
    path.write_text("".join(f"{line}\n" for line in SMALL_CORPUS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path) -> Callable[[str], TinySource]:
    """``tiny(kind)``: a source of that kind and the PMLM made of it, once in a test run."""

    @functools.cache
    def make(kind: str) -> TinySource:
        folder = tmp_path_factory.mktemp(kind)
        rows = _TOKENIZERS[kind](folder)
        changes = {"pad_token_id": 0} if kind == "roberta-word-end-bpe" else {}
        save_model(folder, _ARCHITECTURES.get(kind, "roberta"), rows, **changes)
        source = open_source(str(folder))
        pmlm = prune(source, Corpus([small_corpus]))
        output = folder.with_name(f"{folder.name}-pmlm")
        save_pmlm(pmlm.model, pmlm.tokenizer, pmlm.entries, output)
        return TinySource(folder, source, pmlm, output)

    return make


@pytest.fixture(scope="session")
def save_tiny_model() -> Callable[..., None]:
    """``save_tiny_model(folder, architecture, rows, **config)``, for sources made in a test."""
    return save_model


_ARCHITECTURES = {"xlm-roberta": "xlm-roberta", "bert": "bert", "distilbert": "distilbert"}


def save_model(path: Path, architecture: str, rows: int, *, tied: bool = True, **changes: object) -> None:
    """A random masked LM whose weights (biases too) are large enough for logits to differ clearly."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    sizes = {"vocab_size": rows, "tie_word_embeddings": tied, "max_position_embeddings": 66}
    if architecture == "distilbert":
        sizes |= {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
    else:
        sizes |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(architecture, **{**sizes, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    model.save_pretrained(path)


def _train(tokenizer: object, trainer: object) -> dict:
    tokenizer.train_from_iterator(TRAINING_TEXT * 3, trainer)
    return json.loads(tokenizer.to_str())["model"]


def _unigram(path: Path) -> int:
    """XLM-R's layout: control symbols first, ``<mask>`` last. Scores are coarse, so that segmentations tie."""
    from transformers import XLMRobertaTokenizer

    draw = random.Random(5)
    words = sorted({"▁" + word for line in TRAINING_TEXT for word in line.split()})
    spans = {word[i : i + n] for word in words for n in range(1, 6) for i in range(len(word) - n + 1)}
    pieces = [(piece, -draw.randint(4, 20) / 2 - (len(piece) == 1) * 4) for piece in sorted(spans)]
    control = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*control, *pieces, ("<mask>", 0.0)]
    XLMRobertaTokenizer(vocab=vocabulary).save_pretrained(path)
    return len(vocabulary)


def _wordpiece_vocabulary(*, lowercase: bool) -> list[str]:
    """Every character where it stands in a word, and a choice of longer spans. (A trainer breaks ties at random.)"""
    from tokenizers import normalizers, pre_tokenizers

    draw = random.Random(6)
    normalize = normalizers.BertNormalizer(lowercase=lowercase).normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = sorted({word for line in TRAINING_TEXT for word, _ in split(normalize(line))})
    spans = sorted({(i > 0, word[i : i + n]) for word in words for n in range(1, 9) for i in range(len(word) - n + 1)})
    chosen = [("##" if inside else "") + span for inside, span in spans if len(span) == 1 or draw.random() < 0.4]
    return ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *chosen]


def _bert(path: Path) -> int:
    """BERT's layout; it also has pieces that fairseq cannot have: ``<s>``, one with white space, a surplus row."""
    from transformers import BertTokenizer

    vocabulary = [*_wordpiece_vocabulary(lowercase=False), "<s>", "a\u2028b"]
    BertTokenizer(vocab={piece: row for row, piece in enumerate(vocabulary)}, do_lower_case=False).save_pretrained(path)
    return len(vocabulary) + 1


def _distilbert(path: Path) -> int:
    """Uncased; its tokenizer.json truncates and pads, as those of sentence encoders do."""
    from transformers import DistilBertTokenizer

    vocabulary = _wordpiece_vocabulary(lowercase=True)
    tokenizer = DistilBertTokenizer(vocab={p: row for row, p in enumerate(vocabulary)}, do_lower_case=True)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=4)
    tokenizer.save_pretrained(path)
    return len(vocabulary)


def _byte_level_bpe(path: Path) -> int:
    """RoBERTa's layout: bytes, merges, ``<mask>`` last."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=460,
        show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    model = _train(tokenizer, trainer)
    vocabulary = {**model["vocab"], "<mask>": len(model["vocab"])}
    RobertaTokenizer(vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]]).save_pretrained(path)
    return len(vocabulary)


def _bare_vocabulary_file(path: Path) -> int:
    """BiBERT's layout: RoBERTa weights, and of the tokenizer only BERT's vocab.txt; config and tokenizer pad apart."""
    vocabulary = _wordpiece_vocabulary(lowercase=True)
    (path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    return len(vocabulary)


def _word_end_bpe(path: Path) -> int:
    """BPE on characters whose last piece of a word ends in ``</w>``; control symbols have names of their own."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    words = [word for line in TRAINING_TEXT for word, _ in split.pre_tokenize_str(line)]
    pieces, merges = _learn_merges([(*word[:-1], f"{word[-1]}</w>") for word in words], steps=110)
    vocabulary = {piece: row for row, piece in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "[MASK]", *pieces])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    names = {
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(path)
    return len(vocabulary)


def _learn_merges(words: list[tuple[str, ...]], steps: int) -> tuple[list[str], list[tuple[str, str]]]:
    """BPE as in the textbook; of equally frequent pairs the last in the alphabet, where a trainer takes any."""
    pieces = sorted({piece for word in words for piece in word})
    merges: list[tuple[str, str]] = []
    for _ in range(steps):
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        pair = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(pair)
        words = [_merged(word, pair) for word in words]
    return list(dict.fromkeys([*pieces, *map("".join, merges)])), merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


_TOKENIZERS = {
    "xlm-roberta": _unigram,
    "bert": _bert,
    "distilbert": _distilbert,
    "roberta": _byte_level_bpe,
    "bibert": _bare_vocabulary_file,
    "roberta-word-end-bpe": _word_end_bpe,
}
