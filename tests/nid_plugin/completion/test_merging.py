"""Joining ledgers that overlap, with failures and with what was spent."""

from pathlib import Path

import pytest

from nid_plugin.completion.ledger import open_ledger, read_ledger
from nid_plugin.completion.merging import merge
from nid_plugin.completion.results import Failure, Result
from nid_plugin.completion.selection import read_selection, select
from nid_plugin.completion.settings import RequestIds, RequestSettings
from nid_plugin.completion.spending import Spending
from nid_plugin.halving import Half
from nid_plugin.pairs import read_pairs
from plugin_common.errors import UserError

SETTINGS = RequestSettings(model="m")
IDS = RequestIds(SETTINGS)


def half(number: int) -> Half:
    return Half(f"{number:032x}", f"first {number}", f" second {number}", f"f:{number}")


def request_id(number: int) -> str:
    return IDS(half(number).document, half(number).prompt)


def make(folder: Path, documents: list[int], answered: list[int], failed: list[int]) -> str:
    """A ledger; its answers name its folder, each cost 0.25 dollars, and one request was never heard of again."""
    with open_ledger(str(folder), {"request": SETTINGS.as_dict()}) as ledger:
        select(folder, {"of": folder.name}, lambda: map(half, documents), list)
        results = [Result(request_id(n), "done", f"{folder.name} {n}", "stop", cost=0.25) for n in answered]
        ledger.append(results, [Failure(request_id(n), "http 400", "long", True) for n in failed])
    spending = Spending(folder / "spending.log")
    for _ in answered:
        spending.settle(spending.reserve_now(1.0), 0.25)
    spending.reserve_now(0.5)
    spending.close()
    return str(folder)


def test_overlapping_ledgers(tmp_path: Path) -> None:
    a = make(tmp_path / "a", [1, 2, 3, 4], answered=[1, 3], failed=[2, 4])
    b = make(tmp_path / "b", [5, 3, 2, 6], answered=[5, 3, 2], failed=[])
    said = "\n".join(merge([a, b], str(tmp_path / "c"), str(tmp_path / "pairs.jsonl")))
    pairs = list(read_pairs(str(tmp_path / "pairs.jsonl")))
    assert [(pair.prompt, pair.completion) for pair in pairs] == [
        ("first 1", "a 1"),
        ("first 2", "b 2"),
        ("first 3", "a 3"),
        ("first 5", "b 5"),
    ]
    selection = read_selection(tmp_path / "c")
    assert selection is not None and list(selection.halves()) == [half(n) for n in (1, 2, 3, 4, 5, 6)]
    assert "2 documents were in several ledgers" in said
    assert "done: 4;" in said and "failed: 1 for good" in said and "left: 1" in said
    assert "spent: 1.25 dollars, and at most 1.00 for requests whose answer never came" in said
    with read_ledger(str(tmp_path / "c")) as ledger:
        assert [failure.id for failure in ledger.failed()] == [request_id(4)]


def test_a_ledger_of_another_command(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "judge"), {"judge": "x"}):
        select(tmp_path / "judge", {}, lambda: iter([half(1)]), list)
    with pytest.raises(UserError, match="is no ledger of `nid complete`"):
        merge([str(tmp_path / "judge")], str(tmp_path / "c"))
