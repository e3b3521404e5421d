"""Markdown in which shown texts stay text."""

import re

from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.markdown import code_block, code_span, listed, plain, table

TEXT = st.text(st.sampled_from("`a |\\\n<*_"), min_size=1, max_size=12)


@given(TEXT)
def test_nothing_ends_a_code_span_before_its_end(text: str) -> None:
    span = code_span(text)
    ticks = re.match("`+", span)
    assert ticks is not None
    inner = span[len(ticks[0]) : -len(ticks[0])]
    assert span.endswith(ticks[0]) and "\n" not in span
    assert ticks[0] not in re.findall("`+", inner)
    assert inner.strip() == " ".join(text.split())


@given(TEXT)
def test_nothing_ends_a_code_block_before_its_end(text: str) -> None:
    first, *lines, last = code_block(text)
    assert first == f"{last}text" and set(last) == {"`"} and len(last) >= 3
    assert "\n".join(lines) == text and last not in text


@given(TEXT, TEXT)
def test_a_cell_stays_a_cell(one: str, other: str) -> None:
    lines = table(("", "A"), [(plain(one), 1), (code_span(other), 2)]).split("\n")
    assert lines[1] == "|---|---:|"
    assert [re.sub(r"\\.", "", line).count("|") for line in lines] == [3, 3, 3, 3]


def test_by_hand() -> None:
    assert code_span("a```b") == "```` a```b ````"
    assert plain("<b>|x_1\n") == r"\<b\>\|x\_1"
    assert table(("", "A"), [("x|y", 1)]) == "|  | A |\n|---|---:|\n| x\\|y | 1 |"
    assert listed({"stop": 1200, "length": 3}) == "stop 1,200, length 3"
