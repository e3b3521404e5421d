"""The fast form of an n-gram language model: numpy arrays in one ``.npz`` file, made for one dictionary."""

import zipfile
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nat_plugin.decoding.ngram_lm import NgramLm
from plugin_common.errors import UserError

_FORMAT = 1
_ARRAYS = {
    "words": np.int32,
    "keys": np.int64,
    "log_probs": np.float32,
    "next_states": np.int32,
    "backoffs": np.float32,
    "suffixes": np.int32,
}
_AGAIN = "make it again with `nat ngram-lm --from MODEL.arpa --dict dict.txt --output MODEL.npz`"


def write_arrays(stream: BinaryIO, lm: NgramLm) -> None:
    """Write a model, not compressed; nothing in the file is executed when it is read."""
    symbols = np.frombuffer("\n".join(lm.symbols).encode(), dtype=np.uint8)
    head = np.array([_FORMAT, lm.order], dtype=np.int64)
    np.savez(stream, head=head, symbols=symbols, **{name: getattr(lm, name) for name in _ARRAYS})


def read_arrays(path: str, symbols: Sequence[str]) -> NgramLm:
    """Read what :func:`write_arrays` wrote.

    Raises:
        UserError: the file is missing, damaged, of another format, made for another dictionary, or holds no
            probabilities.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            head, own_symbols = archive["head"], bytes(archive["symbols"]).decode().split("\n")
            arrays = {name: archive[name] for name in _ARRAYS}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {_AGAIN}") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise UserError(f"{path}: damaged, or no model of `nat ngram-lm` ({error}); {_AGAIN}") from error
    if head.shape != (2,) or head[0] != _FORMAT:
        raise UserError(f"{path}: of another format ({head.tolist()}, expected {_FORMAT}); {_AGAIN}")
    _check_dictionary(path, own_symbols, symbols)
    lm = NgramLm(order=int(head[1]), symbols=own_symbols, **arrays)
    _check_arrays(path, lm)
    return lm


def _check_dictionary(path: str, own: Sequence[str], symbols: Sequence[str]) -> None:
    if len(own) == len(symbols) and all(a == b for a, b in zip(own, symbols, strict=True)):
        return
    differing = next((i for i, (a, b) in enumerate(zip(own, symbols, strict=False)) if a != b), None)
    where = f"symbol {differing} is {own[differing]!r}, not {symbols[differing]!r}" if differing is not None else ""
    raise UserError(
        f"{path}: was made for another dictionary ({len(own):,} symbols, this one has {len(symbols):,}"
        f"{'; ' + where if where else ''}); {_AGAIN}, with this dictionary"
    )


def _check_arrays(path: str, lm: NgramLm) -> None:
    """Every number that leads to a place leads to one that is there."""
    nodes, contexts = len(lm.log_probs), len(lm.backoffs)
    holds = [
        *(getattr(lm, name).dtype == kind and getattr(lm, name).ndim == 1 for name, kind in _ARRAYS.items()),
        len(lm.words) == len(lm.symbols) and _within(lm.words, len(lm.symbols)),
        len(lm.keys) == nodes - 1 >= len(lm.symbols) and bool((lm.keys[1:] > lm.keys[:-1]).all()),
        len(lm.next_states) == nodes and _within(lm.next_states, contexts),
        len(lm.suffixes) == contexts and _within(lm.suffixes, contexts),
        bool((lm.keys[: len(lm.symbols)] == np.arange(len(lm.symbols))).all()),
        bool((lm.suffixes[1:] < np.arange(1, contexts)).all()),  # so that every chain of suffixes ends
        bool(np.isfinite(lm.log_probs).all() and np.isfinite(lm.backoffs).all()),
    ]
    if not all(holds):
        raise UserError(f"{path}: its arrays do not fit each other; {_AGAIN}")
    positive = np.flatnonzero(lm.log_probs > 0)
    if len(positive):
        raise UserError(
            f"{path}: {len(positive):,} log-probabilities are positive, the first {lm.log_probs[positive[0]]:g}; "
            f"expected logarithms of probabilities; {_AGAIN}"
        )


def _within(array: NDArray[np.integer], size: int) -> bool:
    return not len(array) or bool(array.min() >= 0 and array.max() < size)
