"""The five reproductions as data: which model is trained on what, with which settings, and where each comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nid_plugin.evaluation.questions import ANSWER_TOKENS

PAPER = "arXiv 2409.00096"
INFERRED = "inferred here: it fits the size of the adapters that the paper's authors published"
HERE = "chosen here: the paper does not say"
DOCUMENT_TOKENS = 1130
"""Of an average OpenWebText document in GPT-2's vocabulary: 9.04 billion tokens, 8.01 million documents."""


@dataclass(frozen=True)
class Shape:
    """What decides a model's size; LLaMA and Mistral alike.

    Attributes:
        layers: transformer blocks.
        hidden: width of the states.
        ffn: width inside the gated feed-forward layers.
        heads, kv_heads: of attention; each ``hidden / heads`` wide.
        vocabulary: rows of the input embeddings, and of the output projection, which is not tied to them.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def kv_width(self) -> int:
        """Width of keys, and of values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the seven linear layers of a block: q, k, v, o, gate, up, down."""
        h, kv, f = self.hidden, self.kv_width, self.ffn
        return ((h, h), (h, kv), (h, kv), (h, h), (h, f), (h, f), (f, h))

    @property
    def block_weights(self) -> int:
        """Parameters of a block's linear layers."""
        return sum(inputs * outputs for inputs, outputs in self.projections)

    @property
    def linear_weights(self) -> int:
        """Parameters of the blocks' linear layers, which LoRA adapts and 4-bit quantisation packs."""
        return self.layers * self.block_weights

    @property
    def other_weights(self) -> int:
        """Parameters of embeddings, output projection and norms."""
        return 2 * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def weights(self) -> int:
        """All parameters."""
        return self.linear_weights + self.other_weights

    def adapter_weights(self, rank: int) -> int:
        """Parameters of LoRA on the seven linear layers of each block."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.projections)


@dataclass(frozen=True)
class Tuning:
    """How a model is fine-tuned.

    Attributes:
        rank: of LoRA, on the linear layers of all blocks.
        alpha: adapters count alpha / rank times.
        lr: peak learning rate, reached after ``warmup`` of the updates, then falling to 0 with the cosine.
        epochs: how many times the documents are gone through.
        tokens: of an update, over all GPUs and ``--update-freq`` together, prompts included.
        longest: tokens of a pair; longer ones are cut.
        clip: largest norm of a gradient.
        weight_decay: of the adapters.
        validations: how many times the loss on held-out documents is taken.
        sources: where each setting comes from, by its name.
    """

    rank: int = 8
    alpha: float = 16.0
    lr: float = 1e-4
    warmup: float = 0.03
    epochs: float = 3.0
    tokens: int = 65_536
    longest: int = 2048
    clip: float = 1.0
    weight_decay: float = 0.0
    validations: int = 10
    sources: Mapping[str, str] = field(
        default_factory=lambda: {
            "rank": INFERRED,
            **dict.fromkeys(
                ("alpha", "lr", "warmup", "epochs", "tokens", "longest", "clip", "weight_decay", "validations"), HERE
            ),
        }
    )


@dataclass(frozen=True)
class Data:
    """How much data, and how long completions may be.

    Attributes:
        documents: that are drawn, halved and completed.
        held_out: of these, so many are kept from training.
        max_tokens: longest completion.
        sources: where each setting comes from, by its name.
    """

    documents: int = 80_000
    held_out: int = 500
    max_tokens: int = 1024
    sources: Mapping[str, str] = field(
        default_factory=lambda: {
            "documents": f"{PAPER}, as public summaries of it give the number",
            "held_out": HERE,
            "max_tokens": HERE,
        }
    )


@dataclass(frozen=True)
class Recipe:
    """One reproduction.

    Attributes:
        name: of the script.
        base: name of the base model on the hub.
        shape: of it.
        pair_format: ``plain`` or ``chat``: how prompt and completion become a text, in training and in the answers.
        holding: how the base's weights are held in training, see ``memory.HOLDINGS``.
        gpu_tokens: most tokens at once on a GPU.
        positions: tokens that the base model can read at once; an answer to a benchmark has half of them at most.
        answer_tokens: longest answer to a benchmark, if not the benchmark's own figure.
    """

    name: str
    base: str
    shape: Shape
    pair_format: str = "plain"
    holding: str = "bf16"
    gpu_tokens: int = 8192
    positions: int = 8192
    answer_tokens: int | None = None
    tuning: Tuning = Tuning()
    data: Data = Data()

    def answer_limit(self, benchmark: str) -> int:
        """Tokens of the longest answer."""
        return min(self.answer_tokens or ANSWER_TOKENS[benchmark], self.positions // 2)  # type: ignore[index]

    @property
    def base_id(self) -> str:
        """The base model's name on the benchmarks."""
        return f"{self.name}-base"


_LLAMA3_70B = Shape(layers=80, hidden=8192, ffn=28_672, heads=64, kv_heads=8, vocabulary=128_256)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("llama2_7b", "meta-llama/Llama-2-7b-hf", Shape(32, 4096, 11_008, 32, 32, 32_000), positions=4096),
        Recipe("llama3_8b", "meta-llama/Meta-Llama-3-8B", Shape(32, 4096, 14_336, 32, 8, 128_256)),
        Recipe("llama3_70b", "meta-llama/Meta-Llama-3-70B", _LLAMA3_70B, holding="4bit", gpu_tokens=4096),
        Recipe("mistral_7b", "mistralai/Mistral-7B-v0.1", Shape(32, 4096, 14_336, 32, 8, 32_000), positions=32_768),
        Recipe(
            "llama3_70b_instruct", "meta-llama/Meta-Llama-3-70B-Instruct", _LLAMA3_70B,
            pair_format="chat", holding="4bit", gpu_tokens=4096,
        ),
    )
}  # fmt: skip


def tiny(recipe: Recipe) -> Recipe:
    """The same commands on few documents with few updates: for tests, and to see in minutes that everything works."""
    return replace(
        recipe,
        holding="bf16",
        gpu_tokens=512,
        positions=256,
        answer_tokens=16,
        tuning=replace(recipe.tuning, lr=1e-2, epochs=2.0, tokens=1024, longest=256, validations=2),
        data=replace(recipe.data, documents=12, held_out=3, max_tokens=64),
    )
