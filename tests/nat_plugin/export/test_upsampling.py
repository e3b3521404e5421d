"""The up-sampling of exported models is the one they were trained with."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_plugin.export.folder import PLACEMENTS, Settings
from nat_plugin.export.upsampling import Upsampler
from nat_plugin.upsampling import duplicate_tokens, insert_masks

SETTINGS = Settings(
    symbols=100, bos=0, pad=1, eos=2, unk=3, mask=99, blank=0, upsampler="mask_insertion", ratio=2.0,
    placement="uniform", positions=24,
)  # fmt: skip
ratios = st.sampled_from([1.0, 1.5, 1.7, 2.0, 2.2, 3.0, 5 / 3])
sources = st.lists(st.lists(st.integers(4, 98), max_size=SETTINGS.positions), min_size=1, max_size=5)


def upsampled(rows: list[list[int]], settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    return Upsampler(settings)([np.array(row, dtype=np.int64) for row in rows])


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.full((len(rows), max(map(len, rows))), SETTINGS.pad)
    for place, row in zip(tokens, rows, strict=True):
        place[: len(row)] = torch.tensor(row, dtype=torch.int64)
    return tokens, torch.tensor([len(row) for row in rows])


def check(found: tuple[np.ndarray, np.ndarray], wanted: tuple[torch.Tensor, torch.Tensor]) -> None:
    tokens, lengths = found
    assert (tokens[:, 0] == SETTINGS.bos).all()
    assert tokens[:, 1:].tolist() == wanted[0].tolist()
    assert (lengths - 1).tolist() == wanted[1].tolist()
    assert tokens.dtype == lengths.dtype == np.int64


@settings(max_examples=150)
@given(sources, ratios, st.sampled_from(PLACEMENTS))
def test_mask_insertion(rows: list[list[int]], ratio: float, placement: str) -> None:
    found = upsampled(rows, replace(SETTINGS, ratio=ratio, placement=placement))
    wanted = insert_masks(
        *padded(rows), ratio, mask=SETTINGS.mask, pad=SETTINGS.pad, placement=placement, max_length=SETTINGS.positions
    )
    check(found, wanted)


@settings(max_examples=100)
@given(sources, ratios)
def test_token_duplication(rows: list[list[int]], ratio: float) -> None:
    found = upsampled(rows, replace(SETTINGS, ratio=ratio, upsampler="token_duplication"))
    check(found, duplicate_tokens(*padded(rows), ratio, pad=SETTINGS.pad, max_length=SETTINGS.positions))


def test_by_hand() -> None:
    tokens, lengths = upsampled([[5, 6], [7]], SETTINGS)
    assert tokens.tolist() == [[0, 5, 99, 6, 99], [0, 7, 99, 1, 1]]
    assert lengths.tolist() == [5, 3]
