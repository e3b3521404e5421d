"""A PMLM without a pretrained model: a vocabulary learned from the corpus and a small XLM-R-shaped random model."""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nat_plugin.pmlm.corpus_pieces import Corpus, count_pieces
from nat_plugin.pmlm.needed_pieces import WORD_BOUNDARY
from nat_plugin.pmlm.prune import PMLM
from nat_plugin.pmlm.prune_tokenizer import RENAMED, RowOrder, UnusablePieces, unreachable_score
from nat_plugin.pmlm.source_model import TokenizerSettings, make_tokenizer
from plugin_common.dictionary_file import BOS, EOS, FAIRSEQ_SYMBOLS, MASK, PAD, UNK
from plugin_common.errors import UserError
from plugin_common.hf_folder import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED_LINES = 5_000_000
"""The trainer holds its lines in memory; of a larger corpus it takes a random sample of this many."""
TRAINER_THREADS = 2  # a constant: the scores' last digits depend on it
RESERVED_BY_TRAINER = "▅"  # sentencepiece skips every line with this character
POSITIONS_BEFORE_FIRST = 2  # XLM-R counts positions from pad_token_id + 1


@dataclass(frozen=True)
class Shape:
    """Size of the random model. The defaults give about 3.3 million parameters at 8,000 pieces."""

    layers: int = 4
    width: int = 192
    heads: int = 4
    ffn: int = 768
    max_positions: int = 512

    def problems(self) -> Iterator[str]:
        """What is wrong with the numbers, in terms of the command's options."""
        for option in ("layers", "width", "heads", "ffn"):
            if getattr(self, option) < 1:
                yield f"--{option} must be at least 1"
        if self.max_positions < 3:
            yield "--max-positions must be at least 3 (<s>, a piece, </s>)"
        if self.heads >= 1 and self.width % self.heads:
            yield f"--width {self.width} must be a multiple of --heads {self.heads}"


def make_pmlm(corpus: Corpus, vocab_size: int, shape: Shape, *, seed: int = 1) -> PMLM:
    """Learn a vocabulary from text and put a random model around it; the same input gives the same result.

    Args:
        corpus: text of all languages together.
        vocab_size: rows wanted, control symbols included; a small corpus may give fewer.
        shape: of the model.
        seed: of the weights, and of the sample where the corpus is very large.

    Raises:
        UserError: see :meth:`Corpus.batches`; or ``vocab_size`` is too small for its characters.
    """
    pieces = learn_pieces(corpus, vocab_size, seed=seed)
    content = tokenizer_content(pieces)
    settings = TokenizerSettings(["input_ids", "attention_mask"], shape.max_positions)
    tokenizer = make_tokenizer(content, settings)
    counted = count_pieces(tokenizer.backend_tokenizer, corpus)
    tokenizer.backend_tokenizer.encode_special_tokens = False
    symbols = [*FAIRSEQ_SYMBOLS, *(piece for piece, _ in pieces), MASK]
    rows = list(range(len(symbols)))
    return PMLM(
        model=random_model(len(symbols), shape, seed=seed),
        tokenizer=tokenizer,
        entries=[(symbols[row], int(counted.counts[row])) for row in rows[len(FAIRSEQ_SYMBOLS) :]],
        order=RowOrder(rows, symbols),
        unusable=UnusablePieces([], []),
        files=corpus.files,
        pieces=int(counted.counts.sum()),
        unknown=int(counted.counts[FAIRSEQ_SYMBOLS.index(UNK)]),
    )


def normalizer() -> Any:
    """NFKC with sentencepiece's treatment of control characters; white space of any kind becomes one space."""
    from tokenizers import Regex, normalizers

    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\x00"), ""),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )


def learn_pieces(corpus: Corpus, vocab_size: int, *, seed: int = 1) -> list[tuple[str, float]]:
    """Unigram pieces with their log-probabilities, at most ``vocab_size`` with the five control symbols.

    Every character of the normalised corpus is a piece of its own, and so are the characters of ``<s>``, ``<mask>`` and
    their like, so that these can be spelled in text without becoming control symbols.
    """
    normalize = normalizer().normalize_str
    characters: set[str] = set()
    lines = 0
    for line in corpus.lines("collecting characters"):
        characters.update(normalize(line))
        lines += 1
    if not characters:
        raise UserError(
            f"--corpus {', '.join(map(str, corpus.paths))}: nothing is left of its text after normalisation"
        )
    required = (characters - {" "}) | {WORD_BOUNDARY} | set("".join(RENAMED))
    needed = len(required) + len(RENAMED)
    if vocab_size < needed:
        raise UserError(
            f"--vocab-size {vocab_size} is too small: the corpus has {len(characters - {' '})} distinct characters, "
            f"each of which needs a piece; with the control symbols that makes at least {needed}"
        )
    unseen = required - characters - {WORD_BOUNDARY} | (required & {RESERVED_BY_TRAINER})
    text = (
        line.replace(RESERVED_BY_TRAINER, " ")
        for line in map(normalize, corpus.lines(f"learning up to {vocab_size} pieces"))
    )
    size = vocab_size - len(RENAMED) - len(unseen)
    learned: list[tuple[str, float]] = []
    if characters - {" ", RESERVED_BY_TRAINER}:
        learned = _train(filter(None, map(str.strip, text)), size, sampled=lines > SAMPLED_LINES, seed=seed)
    return _with_characters(learned, required)


def _train(lines: Iterable[str], size: int, *, sampled: bool, seed: int) -> list[tuple[str, float]]:
    """``size`` pieces (fewer from little text), learned by sentencepiece."""
    import sentencepiece

    sentencepiece.set_random_generator_seed(seed)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="unigram",
        vocab_size=size + 1,  # the trainer counts its <unk>
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        input_sentence_size=SAMPLED_LINES if sampled else 0,
        shuffle_input_sentence=sampled,
        max_sentence_length=2**30,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=TRAINER_THREADS,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return [(model.id_to_piece(i), model.get_score(i)) for i in range(1, model.get_piece_size())]


def _with_characters(pieces: list[tuple[str, float]], required: Collection[str]) -> list[tuple[str, float]]:
    """The pieces, and behind them the required characters that the trainer has not met, as rare as its rarest piece."""
    ordinary = [(piece, score) for piece, score in pieces if piece not in RENAMED]
    known = {piece for piece, _ in ordinary}
    rarest = min((score for _, score in ordinary), default=0.0)
    return ordinary + [(character, rarest) for character in sorted(set(required) - known)]


def tokenizer_content(pieces: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """tokenizer.json of a Unigram model whose ids are ``<s> <pad> </s> <unk>``, the pieces in order, ``<mask>``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    scores = dict(pieces)
    control = {symbol: unreachable_score(symbol, scores) for symbol in RENAMED}
    vocabulary = [*((s, control[s]) for s in FAIRSEQ_SYMBOLS), *pieces, (MASK, control[MASK])]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=FAIRSEQ_SYMBOLS.index(UNK), byte_fallback=False))
    tokenizer.normalizer = normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_BOUNDARY, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_BOUNDARY, prepend_scheme="always")
    bos, eos = (BOS, FAIRSEQ_SYMBOLS.index(BOS)), (EOS, FAIRSEQ_SYMBOLS.index(EOS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[BOS, "$A", EOS], pair=[BOS, "$A", EOS, EOS, "$B", EOS], special_tokens=[bos, eos]
    )
    tokenizer.add_special_tokens([AddedToken(symbol, lstrip=symbol == MASK, normalized=False) for symbol in RENAMED])
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def random_model(rows: int, shape: Shape, *, seed: int) -> "PreTrainedModel":
    """An XLM-R-shaped masked LM with random weights."""
    with quiet_transformers():
        import torch
        from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

        torch.manual_seed(seed)
        config = XLMRobertaConfig(
            vocab_size=rows,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.ffn,
            max_position_embeddings=shape.max_positions + POSITIONS_BEFORE_FIRST,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=FAIRSEQ_SYMBOLS.index(BOS),
            pad_token_id=FAIRSEQ_SYMBOLS.index(PAD),
            eos_token_id=FAIRSEQ_SYMBOLS.index(EOS),
            architectures=["XLMRobertaForMaskedLM"],
        )
        return XLMRobertaForMaskedLM(config).eval()
