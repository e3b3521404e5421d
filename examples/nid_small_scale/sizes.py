"""How much of everything: a size for the tests, one for minutes, one for hours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """All numbers of a run.

    Attributes:
        source: of the documents, see ``documents.py``.
        words: least and most words of a document.
        pairs: documents that are drawn, halved and completed.
        text_pairs: of these, how many are completed a second time, without the form of a chat.
        max_tokens: longest completion.
        subsets: sizes of the nested subsets.
        held_out: documents that are kept from training.
        updates: of each training, of 2,048 tokens each.
        validations: during each training.
        seeds: of the trainings; each tuning and kind of pairs is trained once with each.
        generated: held-out prompts from which every model goes on.
    """

    name: str
    purpose: str
    source: str
    words: tuple[int, int]
    pairs: int
    text_pairs: int
    max_tokens: int
    subsets: tuple[int, ...]
    held_out: int
    updates: int
    validations: int
    seeds: tuple[int, ...]
    generated: int


SIZES = {
    size.name: size
    for size in (
        Size(
            "tiny", "some minutes, the text of this repository", "repository", (60, 250), 12, 6, 32, (3, 6),
            held_out=3, updates=2, validations=2, seeds=(1,), generated=2,
        ),
        Size(
            "small", "two hours on two cores", "debian", (150, 500), 320, 100, 160, (50, 100, 200),
            held_out=40, updates=32, validations=2, seeds=(1, 2), generated=8,
        ),
        Size(
            "full", "a day on two cores", "debian", (150, 1500), 3000, 1000, 512, (250, 500, 1000, 2000),
            held_out=200, updates=1600, validations=8, seeds=(1, 2), generated=32,
        ),
    )
}  # fmt: skip
