"""What fine-tuning needs of a GPU: computed from the model's shape, not measured.

Bytes on each GPU, for LoRA with bf16 computation and gradient checkpointing:

* weights: 2 a parameter; ``4bit``: 4.127 bits for those of the blocks' linear layers (NF4 has a byte of scale for 64
  weights, and for 256 of these a float32), 2 bytes for the others and for the largest layer, which is unpacked when it
  computes; ``sharded``: 2 a parameter, shared out over the GPUs, and whole two blocks, the one that computes and the
  one that is fetched, and the output projection;
* adapters: 22 a parameter: bf16 weight and gradient (4), DDP's bucket of gradients (2), fairseq's float32 copies of
  both (8), Adam's two means (8); ``sharded`` shares them out, too;
* activations: what gradient checkpointing keeps, each block's input, 2 a value; and one block with its gradients:
  2 · 2 a value for all that its layers give, 4 for what its two norms compute in float32;
* loss: logits in bf16 of half of the tokens (the completions'), at most 2 GiB, as the loss works in blocks beyond that;
* 2 GiB for CUDA and what the allocator cannot use (assumed).
"""

from dataclasses import dataclass

from scripts.nid.recipes import Recipe, Shape

GIB = 2**30
HOLDINGS = ("bf16", "4bit", "sharded")
"""How the base's weights are held: whole in 16 bits, whole in 4 bits, or in 16 bits shared out over all GPUs."""
CARDS = (24, 40, 48, 80, 141)
"""Memory of common GPUs, GB as vendors count them: 10^9 bytes, taken as usable."""
MOST_GPUS = 64

_NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
_ADAPTER_BYTES = 22
_LOSS_LIMIT = 2 * GIB
_FIXED = 2 * GIB


@dataclass(frozen=True)
class Need:
    """Bytes on each GPU."""

    weights: float
    adapters: float
    activations: float
    loss: float
    fixed: float = _FIXED

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.adapters + self.activations + self.loss + self.fixed

    def line(self) -> str:
        """For a reader, in GB."""
        parts = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in vars(self).items())
        return f"{self.total / 1e9:.0f} GB ({parts})"


def need(shape: Shape, holding: str, *, rank: int, tokens: int, gpus: int) -> Need:
    """What one of ``gpus`` GPUs holds while it trains on ``tokens`` tokens at once.

    Args:
        shape: of the base model.
        holding: see :data:`HOLDINGS`.
        rank: of LoRA.
        tokens: of a batch on one GPU.
        gpus: over which sharded weights are shared out.
    """
    shared = gpus if holding == "sharded" else 1
    if holding == "4bit":
        unpacked = max(inputs * outputs for inputs, outputs in shape.projections)
        weights = shape.linear_weights * _NF4_BITS / 8 + 2 * (shape.other_weights + unpacked)
    else:
        whole = 2 * shape.block_weights + shape.vocabulary * shape.hidden if shared > 1 else 0
        weights = 2 * (shape.weights / shared + whole)
    outputs = sum(outputs for _, outputs in shape.projections) + shape.hidden + shape.ffn  # attention's, and gate · up
    block = tokens * (2 * 2 * outputs + 2 * 4 * shape.hidden)
    kept = 2 * tokens * shape.layers * shape.hidden
    loss = min(2 * (tokens / 2) * shape.vocabulary, _LOSS_LIMIT)
    return Need(weights, _ADAPTER_BYTES * shape.adapter_weights(rank) / shared, kept + block, loss)


def fewest_gpus(recipe: Recipe, holding: str, card: int, tokens: int) -> int | None:
    """How many GPUs of ``card`` GB it takes; None where not even ``MOST_GPUS`` do."""
    counts = range(1, MOST_GPUS + 1) if holding == "sharded" else (1,)
    fitting = (
        count
        for count in counts
        if need(recipe.shape, holding, rank=recipe.tuning.rank, tokens=tokens, gpus=count).total <= card * 1e9
    )
    return next(fitting, None)


def operations(recipe: Recipe, tokens: float) -> float:
    """Floating-point operations of training on so many tokens: 6 a parameter and token.

    Two for the pass forward, two for it again under gradient checkpointing, two for the gradients of the states; the
    base's weights get none. Without attention's, which is little at such lengths.
    """
    return 6.0 * recipe.shape.weights * tokens
