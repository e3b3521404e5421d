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
    """

    name: str
    purpose: str
    source: str
    words: tuple[int, int]
    pairs: int
    text_pairs: int
    max_tokens: int
    subsets: tuple[int, ...]


SIZES = {
    size.name: size
    for size in (
        Size("tiny", "under a minute, the text of this repository", "repository", (60, 250), 12, 6, 32, (3, 6)),
        Size("small", "half an hour on two cores", "debian", (150, 500), 320, 100, 160, (50, 100, 200)),
        Size("full", "hours on two cores", "debian", (150, 1500), 3000, 1000, 512, (250, 500, 1000, 2000)),
    )
}
