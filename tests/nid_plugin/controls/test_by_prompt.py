"""Records found by their prompt."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.controls.by_prompt import by_prompt, prompt_key
from nid_plugin.halving import Half
from nid_plugin.pairs import Pair

TEXT = st.text(st.characters(), min_size=1, max_size=12)  # lone surrogates, too: JSON files may hold them


@given(prompts=st.lists(TEXT, max_size=12), asked=st.lists(st.integers(0, 11), max_size=12))
def test_each_record_is_taken_once_and_in_order(prompts: list[str], asked: list[int]) -> None:
    pairs = [Pair(str(n), prompt, f"{n}\n", "s", "t", "stop", {"prompt_tokens": n}) for n, prompt in enumerate(prompts)]
    waiting = list(pairs)
    with by_prompt(pairs, Pair, Path("/tmp")) as found:
        for number in asked:
            prompt = prompts[number] if number < len(prompts) else "never there, as it is longer than the others"
            expected = next((pair for pair in waiting if pair.prompt == prompt), None)
            assert found.take(prompt) == expected
            if expected is not None:
                waiting.remove(expected)
            assert len(found) == len(waiting)


def test_halves(tmp_path: Path) -> None:
    half = Half("ab" * 16, "one ", "two\u2028three", "file:1")
    with by_prompt([half], Half, tmp_path) as found:
        assert found.take("one") is None
        assert found.take("one ") == half
        assert found.take("one ") is None
    assert not list(tmp_path.iterdir())


def test_the_last_record_can_be_found_again(tmp_path: Path) -> None:
    records = [Half(str(number), "same", str(number), "s") for number in range(2)]
    with by_prompt(records, Half, tmp_path) as found:
        assert [found.find("same") for _ in range(3)] == [records[0], records[1], records[1]]
        assert found.find("other") is None
        assert (found.take("same"), found.take("same")) == (records[1], None)


def test_the_key_is_the_same_on_every_machine_and_in_every_run() -> None:
    assert prompt_key("a") == 0x40F89E395B66422F
    assert prompt_key("a", 1) != prompt_key("a", 2) != prompt_key("a")
