"""CUDA graphs of the decoder: one for each shape of a batch, so that a pass costs one launch instead of thousands.

A graph has fixed shapes. Batches are padded to buckets, of which there are few: the number of sentences to the next
power of two, the source's columns to the next multiple of 8. The least recently used graph makes room for a new one.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

COLUMNS = 8
"""Source columns (tokens with ``</s>``) come in multiples of this."""

Pass = Callable[[Tensor, Tensor], Tensor]
"""From ``src_tokens [B, S]`` and ``src_lengths [B]`` to a result whose first axis is B, on the device throughout."""


class Bucket(NamedTuple):
    """A shape that batches are padded to."""

    sentences: int
    columns: int


def bucket_of(sentences: int, columns: int) -> Bucket:
    """The smallest bucket that holds a batch of ``sentences`` rows and ``columns`` columns (both 1 or more)."""
    return Bucket(1 << (sentences - 1).bit_length(), -(-columns // COLUMNS) * COLUMNS)


class Buffers(NamedTuple):
    """A bucket's inputs: a graph reads the same memory each time."""

    tokens: Tensor  # [sentences, columns]
    lengths: Tensor  # [sentences]

    @classmethod
    def empty(cls, bucket: Bucket, *, pad: int, device: torch.device) -> "Buffers":
        """Sentences without a token."""
        tokens = torch.full((bucket.sentences, bucket.columns), pad, dtype=torch.int64, device=device)
        return cls(tokens, torch.zeros(bucket.sentences, dtype=torch.int64, device=device))

    def fill(self, tokens: Tensor, lengths: Tensor, *, pad: int) -> None:
        """Put a batch in, and sentences without a token below it."""
        self.tokens.fill_(pad)
        self.tokens[: tokens.size(0), : tokens.size(1)].copy_(tokens)
        self.lengths.zero_()
        self.lengths[: lengths.size(0)].copy_(lengths)


class BucketedPass:
    """A pass of which each bucket's form is captured once and then replayed.

    Where capturing fails (too little memory, or a library that cannot be captured), the log says so once, and batches
    of that bucket run as they would without graphs.

    Args:
        run: the pass.
        pad: id that fills rows up.
        most: graphs that are kept; while a new one is captured there is one more. They share their working memory, so
            that it grows with the largest bucket, not with their number.
        capture: ``capture(run, buffers) -> replay``, where ``replay()`` gives the result for what the buffers hold.
    """

    def __init__(
        self,
        run: Pass,
        *,
        pad: int,
        most: int = 64,
        capture: Callable[[Pass, Buffers], Callable[[], Tensor]] | None = None,
    ) -> None:
        self.run, self.pad, self.most = run, pad, most
        self.capture = capture if capture is not None else CudaCapture()
        self.captured: OrderedDict[Bucket, tuple[Buffers, Callable[[], Tensor]]] = OrderedDict()
        self.failed: set[Bucket] = set()

    def __call__(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The result for the batch's own rows; its columns are those of the bucket, or of the batch where capturing
        failed. The next call overwrites it.
        """
        bucket = bucket_of(*tokens.shape)
        if bucket not in self.captured and bucket not in self.failed:
            self._add(bucket, tokens, lengths)
        if bucket in self.failed:
            return self.run(tokens, lengths)
        self.captured.move_to_end(bucket)
        buffers, replay = self.captured[bucket]
        buffers.fill(tokens, lengths, pad=self.pad)
        return replay()[: tokens.size(0)]

    def _add(self, bucket: Bucket, tokens: Tensor, lengths: Tensor) -> None:
        """Capture first and make room then: the graphs' shared memory goes with the last graph that uses it."""
        try:
            buffers = Buffers.empty(bucket, pad=self.pad, device=tokens.device)
            buffers.fill(tokens, lengths, pad=self.pad)  # libraries choose their kernels on a real batch
            self.captured[bucket] = buffers, self.capture(self.run, buffers)
        except RuntimeError as error:  # torch.OutOfMemoryError and CUDA's errors are such
            if not self.failed:
                reason = str(error).strip().split("\n")[0]
                logger.warning(
                    "--cuda-graphs: no graph of %d sentences by %d source tokens (%s); batches of this shape, and of "
                    "others of which this holds, run without one",
                    *bucket, reason or type(error).__name__,
                )  # fmt: skip
            self.failed.add(bucket)
        while len(self.captured) > self.most:
            self.captured.popitem(last=False)


class CudaCapture:
    """Records a pass as a CUDA graph; all graphs of one object share a memory pool while one of them lives."""

    def __init__(self) -> None:
        self.pool: Any = None
        self.graphs: WeakSet[Any] = WeakSet()

    def __call__(self, run: Pass, buffers: Buffers) -> Callable[[], Tensor]:
        """Run twice on a side stream, as torch demands (libraries set themselves up), then record.

        Raises:
            RuntimeError: of torch: too little memory, or an operation that cannot be part of a graph.
        """
        device = buffers.tokens.device
        if self.pool is None or not self.graphs:  # a pool ends with its last graph
            self.pool = torch.cuda.graph_pool_handle()
        try:
            graph, result = self._record(run, buffers, device)
        except RuntimeError:
            self.pool = None  # torch may count the failed capture as still under way in it
            raise
        self.graphs.add(graph)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    def _record(self, run: Pass, buffers: Buffers, device: torch.device) -> tuple[Any, Tensor]:
        # The present stream as a context, because torch.cuda.graph does not come back to it where capturing fails.
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    run(*buffers)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # What other threads ask of CUDA meanwhile (fairseq's pins the next batches in memory) is no fault of this.
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                result = run(*buffers)
        return graph, result
