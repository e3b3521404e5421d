"""Everything but the recording itself, which needs a GPU: instead, a pass is run again on the buffers."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nat_plugin.decoding.beam_search import BeamOptions
from nat_plugin.decoding.ctc_generator import CtcGenerator
from nat_plugin.decoding.cuda_graphs import COLUMNS, Bucket, BucketedPass, Buffers, CudaCapture, bucket_of

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


def test_a_graph_goes_only_when_the_next_is_there() -> None:
    kept = []

    def capture(run: Callable[[Tensor, Tensor], Tensor], buffers: Buffers) -> Callable[[], Tensor]:
        kept.append(len(bucketed.captured))
        return again(run, buffers)

    bucketed = BucketedPass(lambda tokens, lengths: tokens, pad=PAD, most=1, capture=capture)
    for columns in (8, 16, 24):
        bucketed(torch.ones(1, columns, dtype=torch.int64), torch.tensor([1]))
    assert kept == [0, 1, 1]
    assert list(bucketed.captured) == [Bucket(1, 24)]


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted\nmore"), torch.OutOfMemoryError("too much")])
def test_a_bucket_that_cannot_be_captured_runs_without(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def capture(run: Callable[[Tensor, Tensor], Tensor], buffers: Buffers) -> Callable[[], Tensor]:
        tried.append(tuple(buffers.tokens.shape))
        if buffers.tokens.size(1) > 8:
            raise error
        return again(run, buffers)

    bucketed = BucketedPass(lambda tokens, lengths: tokens + lengths[:, None], pad=PAD, capture=capture)
    with caplog.at_level(logging.WARNING):
        for columns in (9, 3, 10, 17, 3):
            found = bucketed(torch.full((1, columns), 7), torch.tensor([columns]))
            assert found[0, :columns].tolist() == [7 + columns] * columns
    assert tried == [(1, 16), (1, 8), (1, 24)], "each shape is tried once"
    (record,) = caplog.records
    reason = str(error).split("\n")[0]
    assert record.getMessage().startswith(f"--cuda-graphs: no graph of 1 sentences by 16 source tokens ({reason});")


# ---- the recording, without a GPU: what is asked of torch -----------------------------------------------------------


class Recorded:
    """In place of ``torch.cuda.CUDAGraph``."""

    def replay(self) -> None:
        """Nothing: the result is there."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """``torch.cuda.graph``'s named arguments, one for each capture."""
    captures: list[dict[str, Any]] = []

    @contextmanager
    def graph(recorded: Recorded, **named: Any) -> Iterator[None]:
        captures.append(named)
        yield

    class Stream:
        def wait_stream(self, other: Any) -> None:
            """Nothing to wait for."""

    pools = iter(range(100))
    for name, stand_in in {
        "graph": graph, "CUDAGraph": Recorded, "graph_pool_handle": lambda: next(pools), "Stream": Stream,
        "current_stream": lambda device=None: Stream(), "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return captures


def buffers() -> Buffers:
    return Buffers.empty(Bucket(1, 8), pad=PAD, device=torch.device("cpu"))


def plain(tokens: Tensor, lengths: Tensor) -> Tensor:
    return tokens + 1


def test_other_threads_may_use_the_gpu_during_a_capture(asked: list[dict[str, Any]]) -> None:
    assert CudaCapture()(plain, buffers())().eq(PAD + 1).all()
    assert asked == [{"pool": 0, "capture_error_mode": "thread_local"}]


def test_graphs_share_a_pool_while_one_of_them_lives(asked: list[dict[str, Any]]) -> None:
    capture = CudaCapture()
    kept = [capture(plain, buffers()), capture(plain, buffers())]
    assert [named["pool"] for named in asked] == [0, 0]
    kept.clear()
    gc.collect()
    kept.append(capture(plain, buffers()))
    assert asked[-1]["pool"] == 1, "the first went with its graphs"


def test_a_pool_in_which_a_capture_failed_is_left(asked: list[dict[str, Any]]) -> None:
    def fail_when_captured(tokens: Tensor, lengths: Tensor) -> Tensor:
        if len(asked) == 2:
            raise RuntimeError("not in a graph")
        return tokens

    capture = CudaCapture()
    kept = [capture(plain, buffers())]
    with pytest.raises(RuntimeError, match="not in a graph"):
        capture(fail_when_captured, buffers())
    kept.append(capture(plain, buffers()))
    assert [named["pool"] for named in asked] == [0, 0, 1]


def fails(run: Callable[[Tensor, Tensor], Tensor], buffers: Buffers) -> Callable[[], Tensor]:
    raise torch.OutOfMemoryError("too much")


@pytest.mark.parametrize("beam", [None, BeamOptions(beam=3)])
@pytest.mark.parametrize("with_scores", [True, False])
@pytest.mark.parametrize("capture", [again, fails])
def test_buckets_change_no_translation(
    new_model: NewModel, monkeypatch: pytest.MonkeyPatch, beam: BeamOptions | None, with_scores: bool, capture: Any
) -> None:
    monkeypatch.setattr("nat_plugin.decoding.cuda_graphs.CudaCapture", lambda: capture)
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
    buckets = bucketed._captured[1]
    assert (len(buckets.captured), len(buckets.failed)) == ((3, 0) if capture is again else (0, 3))
