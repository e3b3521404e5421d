from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.registry import REGISTRIES
from torch import Tensor

from nat_plugin.models.upsamplers import UPSAMPLERS, Upsampler, build_upsampler, register_upsampler
from plugin_common.errors import UserError

PAD, MASK = 1, 9
TOKENS, LENGTHS = torch.tensor([[5, 6, 7], [8, PAD, PAD]]), torch.tensor([3, 1])


def options(**changed: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"upsampler": "mask_insertion", "upsample_ratio": 2.0, "mask_placement": "uniform"} | changed
    )


def upsampled(max_length: int = 100, **changed: Any) -> list[list[int]]:
    tokens, lengths = build_upsampler(options(**changed), mask=MASK, pad=PAD)(TOKENS, LENGTHS, max_length)
    assert bool((tokens == PAD).sum(1).eq(tokens.size(1) - lengths).all())
    return [row[:n] for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [[5, 9, 6, 9, 7, 9], [8, 9]]),
        ({"mask_placement": "right"}, [[5, 6, 7, 9, 9, 9], [8, 9]]),
        ({"mask_placement": "left"}, [[9, 9, 9, 5, 6, 7], [9, 8]]),
        ({"upsample_ratio": 1.0}, [[5, 6, 7], [8]]),
        ({"upsample_ratio": 1.5}, [[5, 9, 6, 7, 9], [8, 9]]),
        ({"upsampler": "token_duplication"}, [[5, 5, 6, 6, 7, 7], [8, 8]]),
        ({"max_length": 4}, [[5, 6, 9, 7], [8, 9]]),
    ],
)
def test_options_reach_the_maths(changed: dict[str, Any], expected: list[list[int]]) -> None:
    assert upsampled(**changed) == expected


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^--upsampler copies: unknown; registered are .*mask_insertion, .*token_dup"):
        build_upsampler(options(upsampler="copies"), mask=MASK, pad=PAD)


@pytest.mark.parametrize("ratio", [0.0, 0.99, -2.0, float("nan"), float("inf")])
def test_a_ratio_must_be_a_number_of_at_least_one(ratio: float) -> None:
    with pytest.raises(UserError, match=rf"^--upsample-ratio {ratio}: .* at least 1, got {ratio}"):
        build_upsampler(options(upsample_ratio=ratio), mask=MASK, pad=PAD)


def test_the_registry_takes_new_ones_and_adds_no_group_to_fairseqs_configuration() -> None:
    @register_upsampler("twice_the_whole")
    class TwiceTheWhole(Upsampler):
        """The sentence, then the sentence again."""

        def __call__(self, tokens: Tensor, lengths: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
            return torch.cat([tokens, tokens], dim=1), 2 * lengths

    try:
        made = build_upsampler(options(upsampler="twice_the_whole"), mask=MASK, pad=PAD)
        assert made(TOKENS[:1], LENGTHS[:1], 100)[0].tolist() == [[5, 6, 7, 5, 6, 7]]
        with pytest.raises(ValueError, match="duplicate"):
            register_upsampler("twice_the_whole")(TwiceTheWhole)
    finally:
        del UPSAMPLERS["twice_the_whole"]
    assert "upsampler" not in REGISTRIES


def test_the_base_class_up_samples_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Upsampler(options(), mask=MASK, pad=PAD)(TOKENS, LENGTHS, 100)
