"""Make a PMLM out of a masked LM: choose pieces, gather their rows, rewrite the tokenizer."""

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nat_plugin.pmlm.corpus_pieces import Corpus, CorpusFile, PieceCounts, count_pieces
from nat_plugin.pmlm.needed_pieces import needed_pieces
from nat_plugin.pmlm.prune_tokenizer import (
    RowOrder,
    UnusablePieces,
    find_unusable,
    order_rows,
    post_processor_symbols,
    prune_tokenizer,
)
from nat_plugin.pmlm.source_model import SourceModel, make_tokenizer
from plugin_common.dictionary_file import BOS, EOS, FAIRSEQ_SYMBOLS, PAD
from plugin_common.masked_lm_families import family_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PMLM:
    """What a PMLM folder holds."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    entries: list[tuple[str, int]]
    """``dict.txt``: symbol and count of rows 4, 5, …; a count is 0 where no corpus was read."""
    order: RowOrder
    unusable: UnusablePieces
    files: tuple[CorpusFile, ...]
    pieces: int
    """Length of the corpus in pieces, as the source (from scratch: the new tokenizer) segments it."""
    unknown: int
    """How many of these are ``<unk>``."""


def prune(
    source: SourceModel, corpus: Corpus | None, *, min_count: int = 1, keep: Sequence[str] = (), keep_all: bool = False
) -> PMLM:
    """A PMLM with the pieces that a corpus needs.

    Args:
        source: where rows and pieces come from.
        corpus: text to prune to; None only where ``keep_all`` is set.
        min_count: pieces that occur less often go (single characters stay).
        keep: pieces to keep in any case.
        keep_all: whether every piece stays.

    Raises:
        UserError: see :func:`nat_plugin.pmlm.corpus_pieces.count_pieces`.
    """
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(json.dumps(source.tokenizer))
    counted = count_pieces(backend, corpus) if corpus is not None else None
    counts = np.zeros(source.rows, dtype=np.int64)
    if counted is not None:
        counts[: len(counted.counts)] = counted.counts
    unusable = find_unusable(source.ids, source.control)
    if keep_all:
        kept = set(source.ids)
    else:
        assert counted is not None, "a corpus is needed to prune"
        kept = _needed(source, backend, counted, min_count) | set(keep)
        kept |= post_processor_symbols(source.tokenizer.get("post_processor"))
    kept -= {*unusable.with_white_space, *unusable.named_like_control_symbols}
    order = order_rows(source.ids, kept, source.control)
    return PMLM(
        model=gather_rows(source.model, order.old_ids),
        tokenizer=make_tokenizer(prune_tokenizer(source.tokenizer, order, source.control), source.settings),
        entries=[
            (symbol, int(counts[old]))
            for symbol, old in list(zip(order.symbols, order.old_ids, strict=True))[len(FAIRSEQ_SYMBOLS) :]
        ],
        order=order,
        unusable=unusable,
        files=corpus.files if corpus is not None else (),
        pieces=int(counts.sum()),
        unknown=int(counts[source.ids[source.control.unk]]),
    )


def _needed(source: SourceModel, backend: "Tokenizer", counted: PieceCounts, min_count: int) -> set[str]:
    often = {piece: int(counted.counts[row]) for piece, row in source.ids.items()}
    control = set(source.control.names())
    normalize = backend.normalizer.normalize_str if backend.normalizer is not None else str
    occurring = [piece for piece, count in often.items() if count > 0 and piece not in control]
    return needed_pieces(
        source.tokenizer,
        source.ids.keys(),
        occurring=occurring,
        frequent=[piece for piece in occurring if often[piece] >= min_count],
        characters={c for raw in counted.characters for c in normalize(raw)},
    )


def gather_rows(model: "PreTrainedModel", rows: Sequence[int]) -> "PreTrainedModel":
    """A model whose embedding row and output logit k are those of ``rows[k]``; all other weights are the same.

    In the RoBERTa family, positions are counted from ``pad_token_id + 1``. If that was not 2, the position embedding
    is moved so that every position keeps its vector.

    Args:
        model: masked LM of a supported family; stays as it is.
        rows: old row by new row; new rows 0, 1, 2 are bos, pad, eos.
    """
    import torch

    family = family_of(model.config, type(model).__name__)
    config = copy.deepcopy(model.config)
    config.vocab_size = len(rows)
    config.bos_token_id, config.pad_token_id, config.eos_token_id = (FAIRSEQ_SYMBOLS.index(s) for s in (BOS, PAD, EOS))
    config.architectures = [type(model).__name__]
    index = torch.tensor(rows, dtype=torch.long)
    state = model.state_dict()
    for name in (family.embedding, *family.output_tensors):
        if name in state:
            state[name] = state[name].index_select(0, index)
    if family.positions_after_padding is not None:
        positions = _move_positions(state[family.positions_after_padding], model.config.pad_token_id)
        state[family.positions_after_padding] = positions
        config.max_position_embeddings = len(positions)
    gathered = type(model)(config)
    gathered.load_state_dict(state)
    return gathered.eval()


def _move_positions(weight: Any, old_padding: int) -> Any:
    """Let the first used row be 2, whatever ``old_padding + 1`` was; rows 0 and 1 belong to no position."""
    if old_padding == 1:
        return weight
    import torch

    unused = torch.zeros(2, weight.shape[1], dtype=weight.dtype)
    return torch.cat([unused, weight[old_padding + 1 :]])


def largest_logit_difference(source: "PreTrainedModel", pruned: "PreTrainedModel", rows: Sequence[int]) -> float:
    """The largest difference between the two models' logits on kept pieces, relative to the largest logit.

    Four sequences of random kept pieces, between bos and eos, as long as positions allow but at most 64.
    """
    import torch

    draw = torch.Generator().manual_seed(0)
    old_ids = torch.tensor(rows)
    length = min(64, pruned.config.max_position_embeddings - 2)
    candidates = [new for new, old in enumerate(rows) if new != 1 and old != source.config.pad_token_id]
    chosen = torch.tensor(candidates)[torch.randint(len(candidates), (4, length), generator=draw)]
    with torch.inference_mode():
        expected = source(input_ids=old_ids[chosen]).logits[..., old_ids]
        found = pruned(input_ids=chosen).logits
    return float((found - expected).abs().max() / expected.abs().max())
