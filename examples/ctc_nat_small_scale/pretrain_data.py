"""Texts as blocks of tokens for a masked LM: held-out lines, shares of the languages, order, masks drawn by seed."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError
from plugin_common.hf_folder import TOKENIZER_FILE, quiet_transformers
from plugin_common.progress import progress_bar
from plugin_common.text_lines import TextCounts, read_lines

BOS, EOS = 0, 2  # in every PMLM folder


@dataclass(frozen=True)
class Language:
    """One language's text: ``train`` and ``valid`` are blocks of token ids, int32 ``[blocks, block]``."""

    name: str
    train: np.ndarray
    valid: np.ndarray
    report: dict[str, int]


# ---- text to blocks --------------------------------------------------------------------------------------------------


def read_language(text: Path, model: Path, cache: Path, *, block: int, valid_lines: int, seed: int) -> Language:
    """A text's blocks; a line longer than a block runs on into the next.

    Args:
        text: one sentence or paragraph a line; its name without the ending is the language's.
        model: PMLM folder whose tokenizer counts.
        cache: folder that keeps the text's token ids.
        block: tokens a block, ``<s>`` included.
        valid_lines: lines to hold out.
        seed: of the held-out lines and of the others' order.

    Raises:
        UserError: the text is missing, or too short to hold out ``valid_lines`` and train on the rest.
    """
    ids = tokenised_lines(text, model, cache)
    lines = np.split(ids, np.flatnonzero(ids == EOS) + 1)[:-1]
    if len(lines) < 2 * valid_lines:
        raise UserError(f"--text {text}: {len(lines)} lines, expected at least twice --valid-lines {valid_lines}")
    digest = int.from_bytes(hashlib.sha256(text.stem.encode()).digest()[:4], "big")
    train_lines, held_out, repeated = hold_out(lines, valid_lines, np.random.default_rng([seed, digest]))
    train, left_train = blocks_of(train_lines, block)
    valid, left_valid = blocks_of(held_out, block)
    if not len(train) or not len(valid):
        raise UserError(f"--text {text}: too short for a block of {block} tokens to train and to validate on")
    report = {
        "lines": len(lines),
        "tokens": len(ids),
        "train_blocks": len(train),
        "valid_blocks": len(valid),
        "lines_repeating_validation_dropped": repeated,
        "tokens_after_last_block_dropped": left_train + left_valid,
    }
    tell(f"{text.stem}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report.items()))
    return Language(text.stem, train, valid, report)


def tokenised_lines(text: Path, model: Path, cache: Path) -> np.ndarray:
    """The text's token ids, int32 ``[tokens]``, each line that is not empty closed by ``</s>``; made once and kept.

    Raises:
        UserError: the text is missing or no UTF-8.
    """
    key = hashlib.sha256((model / TOKENIZER_FILE).read_bytes())
    try:
        with text.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                key.update(chunk)
    except OSError as error:
        raise UserError(
            f"--text {text}: {error.strerror}; give a text file, one sentence or paragraph a line"
        ) from error
    kept = cache / f"{text.stem}-{key.hexdigest()[:16]}.npy"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        ids = _tokenise(text, model)
        with atomic_output(str(kept)) as stream:
            np.save(stream, ids)
    return np.load(kept)


def _tokenise(text: Path, model: Path) -> np.ndarray:
    with quiet_transformers():
        from transformers import AutoTokenizer

        backend = AutoTokenizer.from_pretrained(str(model)).backend_tokenizer
    backend.encode_special_tokens = True  # "<mask>" in a text is text
    counts, parts = TextCounts(), []
    lines = read_lines(str(text), "space", counts)
    with progress_bar(total=None, unit=" lines", description=f"tokenising {text.name}") as bar:
        while batch := list(islice(lines, 4096)):
            for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                if encoding.ids:
                    parts.append(np.array([*encoding.ids, EOS], np.int32))
            bar.update(len(batch))
    tell(f"{text}: {counts.lines} lines, {counts.lines - len(parts)} empty ones skipped")
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def hold_out(
    lines: Sequence[np.ndarray], count: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Lines to train on in random order, ``count`` lines to validate on, and the number of lines in neither.

    Neither are those that repeat a held-out line.
    """
    order = rng.permutation(len(lines))
    valid = [lines[i] for i in order[:count]]
    seen = {line.tobytes() for line in valid}
    train = [lines[i] for i in order[count:] if lines[i].tobytes() not in seen]
    return train, valid, len(lines) - count - len(train)


def blocks_of(lines: Sequence[np.ndarray], block: int) -> tuple[np.ndarray, int]:
    """The lines one after another in blocks ``<s> …``, int32 ``[blocks, block]``; and the tokens left at the end."""
    stream = np.concatenate(lines) if len(lines) else np.zeros(0, np.int32)
    count = len(stream) // (block - 1)
    body = stream[: count * (block - 1)].reshape(count, block - 1)
    return np.concatenate([np.full((count, 1), BOS, np.int32), body], axis=1), len(stream) - body.size


# ---- the blocks of a run ---------------------------------------------------------------------------------------------


def smoothed_shares(sizes: Sequence[int], exponent: float) -> np.ndarray:
    """Shares ``q_l = p_l^α / Σ p^α`` of the languages with ``p_l`` proportional to ``sizes`` (XLM-R, section 3.1)."""
    weights = (np.array(sizes, float) / sum(sizes)) ** exponent
    return weights / weights.sum()


def draw_blocks(sizes: Sequence[int], shares: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """The ``total`` blocks of a run in order, int64 ``[total, 2]``: language, block of it.

    Every language goes through all its blocks in a new random order before it repeats one.
    """
    ends = np.round(np.cumsum(shares) * total).astype(int)
    counts = np.diff(ends, prepend=0)
    drawn = []
    for language, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        passes = [rng.permutation(size) for _ in range(-(-count // size))]
        chosen = np.concatenate(passes)[:count] if passes else np.zeros(0, int)
        drawn.append(np.stack([np.full(count, language), chosen], axis=1))
    return rng.permutation(np.concatenate(drawn))


class Blocks(torch.utils.data.Dataset):
    """The blocks of a run in order; ``position`` numbers them."""

    def __init__(self, languages: Sequence[np.ndarray], order: np.ndarray) -> None:
        self.languages, self.order = languages, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """``input_ids`` int64 ``[block]``, ``special_tokens_mask`` (1 where nothing is ever masked), ``position``."""
        language, block = self.order[position]
        ids = torch.from_numpy(self.languages[language][block].astype(np.int64))
        return {"input_ids": ids, "special_tokens_mask": (ids == BOS) | (ids == EOS), "position": position}


@dataclass
class MaskBySeed:
    """transformers' masking, drawn anew for each batch from ``seed`` and the batch's place in the run alone.

    So a resumed run masks as one that was never stopped, whatever the number of workers.
    """

    collator: Any
    seed: int

    def __call__(self, examples: Sequence[dict[str, Any]]) -> Any:
        place = examples[0]["position"]
        state = np.random.SeedSequence([self.seed, place]).generate_state(1, np.uint64)[0]
        self.collator.generator = torch.Generator().manual_seed(int(state))
        return self.collator([{k: v for k, v in e.items() if k != "position"} for e in examples])


def validation_batches(language: Language, size: int, collate: MaskBySeed) -> list[Any]:
    """The language's held-out blocks in batches of ``size``, masked once for all validations."""
    order = np.stack([np.zeros(len(language.valid), int), np.arange(len(language.valid))], axis=1)
    items = Blocks([language.valid], order)
    return [collate([items[i] for i in range(at, min(at + size, len(items)))]) for at in range(0, len(items), size)]


def tell(message: str) -> None:
    """A line on standard error."""
    print(message, file=sys.stderr, flush=True)
