"""fairseq's options of generation, checked and handed to transformers."""

from argparse import Namespace
from typing import Any

import pytest

from nid_plugin.decoding.options import GenerationOptions
from plugin_common.errors import UserError

DEFAULTS: dict[str, Any] = {
    "beam": 5, "nbest": 1, "max_len_a": 0.0, "max_len_b": 200, "min_len": 1, "lenpen": 1.0, "unnormalized": False,
    "sampling": False, "sampling_topk": -1, "sampling_topp": -1.0, "temperature": 1.0, "no_repeat_ngram_size": 0,
    "unkpen": 0.0, "diverse_beam_groups": -1, "print_alignment": None, "constraints": None,
}  # fmt: skip


def read(**given: Any) -> GenerationOptions:
    return GenerationOptions.from_fairseq(Namespace(**{**DEFAULTS, **given}))


def test_fairseqs_defaults() -> None:
    options = read()
    assert (options.beam, options.best, options.top_k, options.top_p) == (5, 1, 0, 1.0)
    config = options.config(new_tokens=7, end_ids=[2, 3], pad=2)
    assert (config.num_beams, config.do_sample, config.max_new_tokens, config.eos_token_id) == (5, False, 7, [2, 3])
    assert read(unnormalized=True).lenpen == 0.0


def test_draws() -> None:
    config = read(sampling=True, sampling_topk=4, sampling_topp=0.5, temperature=0.7, nbest=3, beam=3).config(
        new_tokens=7, end_ids=[2], pad=2
    )
    assert (config.num_beams, config.num_return_sequences, config.do_sample) == (1, 3, True)
    assert (config.top_k, config.top_p, config.temperature) == (4, 0.5, 0.7)


def test_all_that_cannot_be_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        read(beam=0, nbest=3, temperature=0.0, sampling_topk=3, sampling_topp=1.5, print_alignment="hard", unkpen=1.0)
    for option in ("--beam 0", "--nbest 3", "--temperature 0", "need --sampling", "--sampling-topp 1.5"):
        assert option in str(caught.value)
    assert "--print-alignment is not known" in str(caught.value)
    assert "--unkpen is not known" in str(caught.value)


def test_lengths_that_cannot_be() -> None:
    with pytest.raises(UserError) as caught:
        read(nbest=0, max_len_a=float("nan"), min_len=-4)
    for option in ("--nbest 0", "--max-len-a nan", "--min-len -4"):
        assert option in str(caught.value)
    with pytest.raises(UserError, match="--max-len-b 0: leaves no room for a completion"):
        read(max_len_b=0)
    assert read(max_len_a=0.5, max_len_b=0).longest(8, room=100) == 4
    assert read(max_len_a=1.0, max_len_b=-3).longest(8, room=100) == 5


def test_lengths() -> None:
    options = read(max_len_a=1.5, max_len_b=3)
    assert options.longest(10, room=100) == 18
    assert options.longest(10, room=5) == 5
    assert options.longest(0, room=0) == 1
