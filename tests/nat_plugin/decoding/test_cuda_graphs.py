"""Everything but the recording itself, which needs a GPU: instead, a pass is run again on the buffers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nat_plugin.decoding.beam_search import BeamOptions
from nat_plugin.decoding.ctc_generator import CtcGenerator
from nat_plugin.decoding.cuda_graphs import COLUMNS, Bucket, BucketedPass, Buffers, bucket_of

PAD = 1
NewModel = Callable[..., tuple[Any, Any]]


def again(run: Callable[[Tensor, Tensor], Tensor], buffers: Buffers) -> Callable[[], Tensor]:
    """In place of a recording; its result, too, stays in one place."""
    result = run(*buffers).clone()
    return lambda: result.copy_(run(*buffers))


@given(sentences=st.integers(1, 3000), columns=st.integers(1, 600))
def test_a_bucket_holds_the_batch_and_is_not_much_larger(sentences: int, columns: int) -> None:
    bucket = bucket_of(sentences, columns)
    assert sentences <= bucket.sentences < 2 * sentences
    assert columns <= bucket.columns < columns + COLUMNS
    assert bucket_of(*bucket) == bucket


def test_a_few_buckets_by_hand() -> None:
    assert bucket_of(1, 1) == Bucket(1, 8)
    assert bucket_of(3, 8) == Bucket(4, 8)
    assert bucket_of(33, 9) == Bucket(64, 16)


def test_batches_are_padded_and_results_cut() -> None:
    seen = []

    def run(tokens: Tensor, lengths: Tensor) -> Tensor:
        seen.append((tokens.clone(), lengths.clone()))
        return tokens + lengths[:, None]

    bucketed = BucketedPass(run, pad=PAD, capture=again)
    bucketed(torch.full((4, 8), 9), torch.full((4,), 8))
    found = bucketed(torch.full((3, 5), 7), torch.tensor([5, 4, 3]))
    tokens, lengths = seen[-1]
    assert tokens[:3, :5].eq(7).all()
    assert tokens[3:].eq(PAD).all(), "nothing of the batch before is left"
    assert tokens[:, 5:].eq(PAD).all()
    assert lengths.tolist() == [5, 4, 3, 0]
    assert found.shape == (3, 8)
    assert found[0].tolist() == [12] * 5 + [6] * 3


def test_the_least_recently_used_makes_room() -> None:
    bucketed = BucketedPass(lambda tokens, lengths: tokens, pad=PAD, most=2, capture=again)
    one, two, three = (torch.ones(1, columns, dtype=torch.int64) for columns in (8, 16, 24))
    for tokens in (one, two, one, three):
        bucketed(tokens, torch.tensor([1]))
    assert list(bucketed.captured) == [Bucket(1, 8), Bucket(1, 24)]


@pytest.mark.parametrize("beam", [None, BeamOptions(beam=3)])
@pytest.mark.parametrize("with_scores", [True, False])
def test_buckets_change_no_translation(
    new_model: NewModel, monkeypatch: pytest.MonkeyPatch, beam: BeamOptions | None, with_scores: bool
) -> None:
    monkeypatch.setattr("nat_plugin.decoding.cuda_graphs.CudaCapture", lambda: again)
    model, task = new_model()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    plain = CtcGenerator(task.tgt_dict, with_scores=with_scores, beam=beam)
    bucketed = CtcGenerator(task.tgt_dict, with_scores=with_scores, beam=beam, cuda_graphs=True)
    for lengths in ([5, 3, 9], [4], [9, 9, 1], [0, 2]):
        tokens = torch.full((len(lengths), max(lengths) + 1), PAD)
        for row, length in zip(tokens, lengths, strict=True):
            row[:length], row[length] = torch.randint(4, 60, (length,)), 2
        sample = {"net_input": {"src_tokens": tokens, "src_lengths": torch.tensor(lengths) + 1}}
        for (one,), (other,) in zip(plain.generate([model], sample), bucketed.generate([model], sample), strict=True):
            assert one["tokens"].tolist() == other["tokens"].tolist()
            torch.testing.assert_close(one["positional_scores"], other["positional_scores"], rtol=0, atol=1e-5)
            torch.testing.assert_close(one["score"], other["score"], rtol=0, atol=1e-5)
    assert bucketed._captured is not None
    assert len(bucketed._captured[1].captured) == 3
