"""Where ``nid complete`` and ``nid merge`` may write the pairs."""

from collections.abc import Iterable, Iterator
from pathlib import Path

PAIRS = "pairs.jsonl"


def pairs_problems(pairs: str | None, ledgers: Iterable[str], inputs: Iterable[str] = ()) -> Iterator[str]:
    """What is wrong with the file of ``--pairs``; told before anything is paid.

    Args:
        pairs: as the option gives it; None and ``-`` (standard output) are always right.
        ledgers: folders of ledgers; of their files only ``pairs.jsonl`` may be written.
        inputs: what is read.
    """
    if pairs is None or pairs == "-":
        return
    path = Path(pairs).resolve()
    if path.is_dir():
        yield f"--pairs {pairs}: is a folder; give a file"
    elif not path.parent.is_dir() and not any(path.parent == Path(folder).resolve() for folder in ledgers):
        yield f"--pairs {pairs}: the folder {path.parent} is not there; make it first"
    elif any(path == Path(name).resolve() for name in inputs):
        yield f"--pairs {pairs}: is what the documents are read from; give another file"
    elif not path.name.startswith(PAIRS) and any(path.parent == Path(folder).resolve() for folder in ledgers):
        yield f"--pairs {pairs}: would be among the ledger's own files; give one outside it"
