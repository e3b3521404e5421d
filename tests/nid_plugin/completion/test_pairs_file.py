"""Where pairs may be written: never over a ledger's own files or what is read."""

from pathlib import Path

import pytest

from nid_plugin.completion.pairs_file import pairs_problems


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ("ledger/results.jsonl", "the ledger's own files"),
        ("ledger/../ledger/halves.jsonl", "the ledger's own files"),
        ("ledger", "is a folder"),
        ("none/pairs.jsonl", "is not there"),
        ("documents.jsonl", "is what the documents are read from"),
        ("link.jsonl", "is what the documents are read from"),
        ("ledger/pairs.jsonl", None),
        ("ledger/pairs.jsonl.gz", None),
        ("new/pairs.jsonl", None),  # the ledger is made later
        ("p.jsonl", None),
        ("-", None),
        (None, None),
    ],
)
def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: str | None, problem: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ledger").mkdir()
    Path("documents.jsonl").touch()
    Path("link.jsonl").symlink_to("documents.jsonl")
    found = list(pairs_problems(pairs, ["ledger", "new"], ["documents.jsonl"]))
    assert found == [] if problem is None else problem in found[0]
