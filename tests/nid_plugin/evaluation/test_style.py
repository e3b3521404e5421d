"""Arena-Hard's metadata: by hand, and against the published definition written out line by line."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.evaluation.style import count_words, style_metadata, style_vector

TEXT = """# Rivers
Some **bold** and __also bold__ and **two words**.

## The Danube
1. first
2. second
   - inner
* star
+ plus
#no heading
```python
# not a heading
- not an item **nor bold**
```
###### Deep
"""


def test_by_hand() -> None:
    found = style_metadata(TEXT, len)
    assert list(found) == ["token_len", "header_count", "list_count", "bold_count"]
    assert found["token_len"] == len(TEXT)
    assert found["header_count"] == {"h1": 1, "h2": 1, "h3": 0, "h4": 0, "h5": 0, "h6": 1}
    assert found["list_count"] == {"ordered": 2, "unordered": 3}
    assert found["bold_count"] == {"**": 2, "__": 1}
    assert style_vector(found) == (len(TEXT), 3, 5, 3)


def by_lines(text: str) -> tuple[int, int, int]:
    """Headings, ordered and unordered items: a line (or what follows blank ones) that begins so."""
    lines = re.sub("```[^`]*```", "``````", text).split("\n")
    heading = ordered = unordered = 0
    for place, line in enumerate(lines):
        after = line + ("\n" if place + 1 < len(lines) else "")
        heading += any(after.startswith("#" * level) and after[level:][:1].isspace() for level in range(1, 7))
        bare = after.lstrip()
        digits = re.match(r"\d*", bare).group()  # type: ignore[union-attr]
        ordered += bool(digits) and bare[len(digits) :][:1] == "." and bare[len(digits) + 1 :][:1].isspace()
        unordered += bare[:1] in ("-", "*", "+") and bare[1:2].isspace()
    return heading, ordered, unordered


@given(st.text(alphabet="#-*+ 1.\na`\t_", max_size=40))
def test_counts_are_those_of_the_lines(text: str) -> None:
    found = style_metadata(text)
    counted = (sum(found["header_count"].values()), found["list_count"]["ordered"], found["list_count"]["unordered"])
    assert counted == by_lines(text)


@given(st.text(alphabet="*_ab \n", max_size=30))
def test_bold_text_is_what_the_published_patterns_match(text: str) -> None:
    found = style_metadata(text)["bold_count"]
    assert found == {"**": len(re.findall(r"\*\*[^*\n]+\*\*", text)), "__": len(re.findall(r"__[^_\n]+__", text))}


@pytest.mark.parametrize("piece", ["\n", " \n", "1", "**a ", "__a", "# ", "```", "- "])
def test_no_text_takes_long(piece: str) -> None:
    begun = time.process_time()
    style_metadata(piece * 20_000)
    assert time.process_time() - begun < 1


def test_words_stand_for_tokens() -> None:
    assert count_words("Don't stop, river!") == 7
    assert count_words("  \n") == 0
