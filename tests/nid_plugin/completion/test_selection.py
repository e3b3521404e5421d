"""The documents of a ledger, and what a run on them will cost."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nid_plugin.completion.estimate import estimate, tokens_of_bytes
from nid_plugin.completion.prices import Price
from nid_plugin.completion.selection import Selection, read_selection, select
from nid_plugin.completion.settings import Connection, RequestSettings
from nid_plugin.halving import Half
from plugin_common.errors import UserError


def half(number: int) -> Half:
    return Half(f"{number:016x}".ljust(32, "0"), f"first {number}", f" sécond {number}", f"f:{number}")


def reader(*numbers: int) -> Callable[[], Iterator[Half]]:
    return lambda: (half(number) for number in numbers)


def chosen(folder: Path, settings: dict[str, object], *numbers: int, anew: bool = False) -> Selection:
    return select(folder, settings, reader(*numbers), lambda: [f"{len(numbers)} read"], anew=anew)


def test_documents_are_kept_once_and_read_once(tmp_path: Path) -> None:
    first = chosen(tmp_path, {"seed": 1}, 1, 2, 1, 3, 2)
    assert list(first.halves()) == [half(1), half(2), half(3)]
    assert (first.size.documents, first.size.repeated) == (3, 2)
    assert (first.size.prompt_bytes, first.size.second_half_bytes) == (3 * 7, 3 * 10)

    def unread() -> Iterator[Half]:
        raise AssertionError("the documents were read again")

    again = select(tmp_path, {"seed": 1}, unread, list)
    assert (again.size, again.report, list(again.halves())) == (
        first.size,
        ["5 read", "2 further copies of a document left out"],
        list(first.halves()),
    )


def test_halves_of_other_makers(tmp_path: Path) -> None:
    """Whatever names their documents; first halves of white space are no question to a teacher."""
    names = ["doc-1", "", "-5", "0000000000000000001", "0000000000000000002", "doc-1", "blank"]
    given = [Half(name, " \n" if name == "blank" else "a", "b", "") for name in names]
    found = select(tmp_path, {}, lambda: iter(given), list)
    assert [half.document for half in found.halves()] == names[:5]
    assert (found.size.repeated, found.size.blank) == (1, 1)
    assert "1 documents left out whose first half holds white space alone" in found.report


def test_a_file_name_that_is_no_utf_8(tmp_path: Path) -> None:
    settings: dict[str, object] = {"inputs": ["a\udcff.txt"]}
    assert chosen(tmp_path, settings, 1).size.documents == 1
    assert chosen(tmp_path, settings).size.documents == 1, "taken for the same"


def test_reading_that_failed_half_way_is_no_selection(tmp_path: Path) -> None:
    def broken() -> Iterator[Half]:
        yield half(1)
        raise UserError("a.jsonl, line 2: broken")

    with pytest.raises(UserError, match="line 2"):
        select(tmp_path, {"seed": 1}, broken, list)
    assert read_selection(tmp_path) is None
    assert chosen(tmp_path, {"seed": 1}, 1).size.documents == 1


def test_other_documents_only_when_asked_for(tmp_path: Path) -> None:
    chosen(tmp_path, {"seed": 1}, 1)
    assert chosen(tmp_path, {"seed": 2}, 2).size.documents == 1, "nothing was asked yet"
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"seed: was 2, is 3(.|\n)*--new-selection"):
        chosen(tmp_path, {"seed": 3}, 3)
    assert list(chosen(tmp_path, {"seed": 3}, 3, 4, anew=True).halves()) == [half(3), half(4)]


def test_no_documents(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no document is left(.|\n)*0 read"):
        chosen(tmp_path, {})


def test_a_damaged_selection(tmp_path: Path) -> None:
    (tmp_path / "selection.json").write_text("{")
    with pytest.raises(UserError, match=r"selection\.json: cannot be read"):
        read_selection(tmp_path)


def test_the_cost_of_eighty_thousand_completions() -> None:
    """Half of a document of 1,100 tokens each, answers as long as the second halves, at 10 and 30 dollars a million."""
    settings = RequestSettings(model="gpt-4-turbo", max_tokens=1024)
    found = estimate(((550, 550) for _ in range(80_000)), settings)
    assert (found.requests, found.prompt_tokens, found.answer_tokens) == (80_000, 44_000_000, 44_000_000)
    assert found.most_answer_tokens == 81_920_000
    connection = Connection(requests_per_minute=500, tokens_per_minute=600_000)
    lines = list(found.lines(Price(10, 30, 0.5), connection))
    assert "cost: about 1,760.00 dollars, at most 2,897.60" in lines[2]
    assert lines[3:] == [
        "time: at least 160 minutes at 500 requests a minute",
        "time: at least 210 minutes at 600,000 tokens a minute",
    ]
    lines = list(found.lines(Price(10, 30, 0.5), connection, batch=True))
    assert "cost: about 880.00 dollars, at most 1,448.80" in lines[2] and len(lines) == 3
    assert "cost: unknown" in list(found.lines(None, Connection()))[2]


def test_answers_are_no_longer_than_their_limit() -> None:
    settings = RequestSettings(model="m", max_tokens=10, continue_length=2)
    found = estimate(iter([(5, 8), (5, 100)]), settings)
    assert (found.answer_tokens, found.most_answer_tokens) == (38, 60)
    # each of three parts sends the prompt, the second 10 and the third 20 tokens of answer, too
    assert (found.prompt_tokens, found.most_prompt_tokens) == (5 + 3 * 5 + 30, 2 * (3 * 5 + 30))


def test_tokens_of_bytes() -> None:
    assert [tokens_of_bytes(text) for text in ("", "abcd", "é" * 8, "x" * 4000)] == [1, 1, 4, 1000]
