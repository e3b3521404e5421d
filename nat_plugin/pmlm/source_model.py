"""Open a Hugging Face masked LM together with its tokenizer, as the source of a PMLM folder."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nat_plugin.pmlm.needed_pieces import check_model_type
from nat_plugin.pmlm.prune_tokenizer import ControlSymbols
from plugin_common.dictionary_file import BOS, EOS, MASK, PAD, UNK
from plugin_common.errors import UserError
from plugin_common.hf_folder import explain_source_error, load_with_missing, quiet_transformers
from plugin_common.masked_lm_families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

TOKENIZER_FILES = "tokenizer.json, vocab.txt, vocab.json with merges.txt, or sentencepiece.bpe.model"


@dataclass(frozen=True)
class TokenizerSettings:
    """What ``AutoTokenizer`` needs beside tokenizer.json."""

    model_input_names: list[str]
    model_max_length: int
    padding_side: str = "right"
    clean_up_tokenization_spaces: bool = False


@dataclass(frozen=True)
class SourceModel:
    """A masked LM and its tokenizer."""

    name: str
    model: "PreTrainedModel"
    tokenizer: Mapping[str, Any]
    """Content of its tokenizer.json."""
    ids: Mapping[str, int]
    """Embedding row by piece."""
    control: ControlSymbols
    settings: TokenizerSettings

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return int(self.model.get_input_embeddings().num_embeddings)


def open_source(folder_or_name: str, *, init_missing_head: bool = False, seed: int = 1) -> SourceModel:
    """Load a masked LM in float32 and its fast tokenizer; a slow one is converted by transformers.

    Args:
        folder_or_name: a local folder, or a model name of the hub.
        init_missing_head: whether a model without masked-LM head gets one with random weights.
        seed: of these random weights.

    Raises:
        UserError: nothing there, a foreign architecture or tokenizer, or weights that are missing.
    """
    import torch

    torch.manual_seed(seed)
    model, missing = load_with_missing(folder_or_name)
    _check_missing(folder_or_name, model, missing, init_missing_head)
    tokenizer = _load_tokenizer(folder_or_name)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    check_model_type(content, folder_or_name)
    ids = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    rows = int(model.get_input_embeddings().num_embeddings)
    if max(ids.values()) >= rows:
        raise UserError(
            f"{folder_or_name}: its tokenizer has ids up to {max(ids.values())}, its embedding {rows} rows; tokenizer "
            f"and weights must belong together"
        )
    control = _control_symbols(folder_or_name, tokenizer)
    _warn_of_other_padding(model, ids, control)
    settings = TokenizerSettings(
        model_input_names=list(tokenizer.model_input_names),
        model_max_length=min(tokenizer.model_max_length, usable_positions(model)),
        padding_side=tokenizer.padding_side,
        clean_up_tokenization_spaces=bool(tokenizer.clean_up_tokenization_spaces),
    )
    return SourceModel(folder_or_name, model, content, ids, control, settings)


def usable_positions(model: "PreTrainedModel") -> int:
    """The longest input, in tokens."""
    config = model.config
    reserved = config.pad_token_id + 1 if family_of(config, "model").positions_after_padding else 0
    return int(config.max_position_embeddings) - reserved


def _check_missing(name: str, model: "PreTrainedModel", missing: list[str], init_missing_head: bool) -> None:
    head = family_of(model.config, name).head_prefixes
    body = [tensor for tensor in missing if not tensor.startswith(head)]
    if body:
        raise UserError(f"{name}: its weights lack {', '.join(body)}; give a complete masked LM")
    if not missing:
        return
    if not init_missing_head:
        raise UserError(
            f"{name}: has no masked-LM head: its weights lack {', '.join(missing)}; give a model with this head, or "
            f"add --init-missing-head to begin with a random one (only its output projection is known: the embedding)"
        )
    logger.warning("%s: %d tensors of the masked-LM head are random: %s", name, len(missing), ", ".join(missing))


def _load_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """The tokenizer that transformers takes for the model; for a bare vocab.txt, which names no class, BERT's."""
    local = Path(name).is_dir()
    with quiet_transformers():
        from transformers import AutoTokenizer, BertTokenizerFast

        problem: Exception | None = None
        for loader in (AutoTokenizer, BertTokenizerFast):
            try:
                tokenizer = loader.from_pretrained(name, local_files_only=local, trust_remote_code=False)
            except Exception as error:
                problem = problem or error
                continue
            if getattr(tokenizer, "backend_tokenizer", None) and len(tokenizer) > len(tokenizer.all_special_ids):
                return tokenizer
    if problem is not None and "tiktoken" in str(problem):  # what transformers falls back to without protobuf
        raise UserError(
            f"{name}: its sentencepiece model can be read only with the package protobuf; pip install protobuf"
        )
    if not local and problem is not None:
        raise explain_source_error(name, problem)
    raise UserError(
        f"{name}: no tokenizer can be loaded from it{f' ({problem})' if problem else ''}; expected {TOKENIZER_FILES}"
    )


def _control_symbols(name: str, tokenizer: "PreTrainedTokenizerFast") -> ControlSymbols:
    found = {
        "bos (or cls)": tokenizer.cls_token or tokenizer.bos_token,
        "pad": tokenizer.pad_token,
        "eos (or sep)": tokenizer.sep_token or tokenizer.eos_token,
        "unk": tokenizer.unk_token,
        "mask": tokenizer.mask_token,
    }
    absent = [symbol for symbol, token in found.items() if token is None]
    if absent:
        raise UserError(f"{name}: its tokenizer has no {', '.join(absent)} token; a masked LM's tokenizer has all five")
    control = ControlSymbols(*(str(token) for token in found.values()))
    if len(set(control.names())) < 5:
        raise UserError(f"{name}: its tokenizer uses one token for two of {', '.join(found)}: {control}")
    return control


def _warn_of_other_padding(model: "PreTrainedModel", ids: Mapping[str, int], control: ControlSymbols) -> None:
    """RoBERTa gives no position to ``config.pad_token_id``, which in some models is a piece of text by mistake."""
    pad = model.config.pad_token_id
    if family_of(model.config, "model").positions_after_padding and pad != ids[control.pad]:
        logger.warning(
            "config.json says pad_token_id %s, which is %r to the tokenizer; it pads with %d, %r, and so does the PMLM "
            "folder: with %r in a sentence, its positions and logits are not the source's",
            pad,
            piece := next((piece for piece, row in ids.items() if row == pad), None),
            ids[control.pad],
            control.pad,
            piece,
        )


def make_tokenizer(content: Mapping[str, Any], settings: TokenizerSettings) -> "PreTrainedTokenizerFast":
    """A tokenizer that can be saved, from the content of a tokenizer.json in fairseq order."""
    from tokenizers import Tokenizer

    with quiet_transformers():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(content)),
            bos_token=BOS,
            cls_token=BOS,
            pad_token=PAD,
            eos_token=EOS,
            sep_token=EOS,
            unk_token=UNK,
            mask_token=MASK,
            model_input_names=settings.model_input_names,
            model_max_length=settings.model_max_length,
            padding_side=settings.padding_side,
            clean_up_tokenization_spaces=settings.clean_up_tokenization_spaces,
        )
