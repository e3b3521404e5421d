"""Overlap with evaluation sets."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from nid_plugin.audit.decontamination import EvaluationIndex, Hit, Item, evaluation_index, read_items
from nid_plugin.controls.text_measures import normalised_words
from plugin_common.errors import UserError

LONG = (
    "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences"  # 15 words
)
SHORT = "Draft a professional email seeking your supervisor's feedback now"  # 9 words


def index_of(*texts: str, shortest: int = 8) -> EvaluationIndex:
    index = EvaluationIndex(13)
    for number, text in enumerate(texts):
        index.add(Item(f"item {number}", text), shortest)
    return index


def words(text: str) -> list[str]:
    return text.lower().replace(",", "").split()


def test_a_run_of_thirteen_words_is_a_hit_and_twelve_are_none() -> None:
    index = index_of(LONG)
    thirteen, twelve = words(LONG)[1:14], words(LONG)[1:13]
    assert index.hits(["so", *thirteen, "then"], []) == [Hit("item 0", " ".join(thirteen), "prompt")]
    assert index.hits(["so", *twelve, "then"], []) == []


def test_sides() -> None:
    index, run = index_of(LONG), words(LONG)
    assert [hit.side for hit in index.hits(["x"], run)] == ["completion"]
    assert [hit.side for hit in index.hits(run[:5], run[5:13])] == ["both"]
    assert [hit.side for hit in index.hits(run[:13], run[:2])] == ["prompt"]


def test_short_items_are_looked_for_as_a_whole() -> None:
    index = index_of(SHORT)
    whole = words(SHORT)
    assert [hit.item for hit in index.hits(["please", *whole], [])] == ["item 0"]
    assert index.hits(whole[:-1], []) == []


def test_items_too_short_are_counted_and_not_looked_for() -> None:
    index = index_of("Who wrote Hamlet?", LONG)
    assert (index.items, index.too_short) == (1, 1)
    assert index.hits(["who", "wrote", "hamlet"], []) == []
    assert index_of("Who wrote Hamlet?", shortest=3).hits(["who", "wrote", "hamlet"], [])


def test_case_and_punctuation_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text(LONG.upper().replace(" ", " – ") + "\n\n", encoding="utf-8")
    index = evaluation_index([str(tmp_path / "set.txt")], None)
    assert index.items == 1
    assert index.hits(words(LONG), [])[0].item.endswith("set.txt:1")


def test_each_item_is_one_hit_and_equal_items_are_all_named() -> None:
    index = index_of(LONG, LONG, LONG, LONG)
    assert [hit.item for hit in index.hits(words(LONG), words(LONG))] == ["item 0", "item 1", "item 2"]


ROWS: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": [LONG, SHORT]},
    {"uid": "ab12", "prompt": LONG},
    {"id": 7, "messages": "x", "question": [{"role": "user", "content": SHORT}]},
    {"id": "p", "question": [{"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "image"}]}]},
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_formats_of_judges_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "question.jsonl", ROWS)
    assert [(item.name.removeprefix(path), item.text) for item in read_items(path, None)] == [
        (":1 (81) turns[1]", LONG),
        (":1 (81) turns[2]", SHORT),
        (":2 (ab12) prompt", LONG),
        (":3 (7) question", SHORT),
        (":4 (p) question", LONG),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_one_json_array_is_read_like_lines(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"set{suffix}").write_text("\ufeff \n" + json.dumps(ROWS, indent=1), encoding="utf-8")
    lines = [item.text for item in read_items(write(tmp_path / "lines.jsonl", ROWS), None)]
    assert [item.text for item in read_items(str(tmp_path / f"set{suffix}"), None)] == lines
    (tmp_path / "bad.json").write_text('[{"prompt": "x"}, 5]')
    with pytest.raises(UserError, match="item 2: a JSON object is expected, found int"):
        list(read_items(str(tmp_path / "bad.json"), None))
    (tmp_path / "cut.json").write_text('[{"prompt": "x"}')
    with pytest.raises(UserError, match="neither JSON Lines nor one JSON array"):
        list(read_items(str(tmp_path / "cut.json"), None))


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    empty = [{"prompt": 5}, {"prompt": ""}, {"turns": []}, {"turns": [{"content": None}], "prompt": " "}]
    index = evaluation_index([write(tmp_path / "some.jsonl", [*empty, {"prompt": LONG, "input": ""}])], None)
    assert (index.items, index.without_text) == (1, 4)
    with pytest.raises(UserError, match="holds no item: there is no text in prompt of its 2 rows"):
        evaluation_index([write(tmp_path / "none.jsonl", empty[:2])], None)


@pytest.mark.parametrize("pack", [None, gzip.compress, zstandard.ZstdCompressor().compress])
def test_text_files(pack: Any, tmp_path: Path) -> None:
    ending = {None: "", gzip.compress: ".gz"}.get(pack, ".zst")
    data = f"{LONG}\r\n\n{SHORT}".encode("utf-8-sig")
    (tmp_path / f"set.txt{ending}").write_bytes(pack(data) if pack else data)
    found = list(read_items(str(tmp_path / f"set.txt{ending}"), None))
    assert [(item.name[-2:], item.text) for item in found] == [(":1", LONG), (":3", SHORT)]
    (tmp_path / "bad.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(UserError, match="line 2: not valid UTF-8"):
        list(read_items(str(tmp_path / "bad.txt"), None))


def test_apostrophes_of_the_web_and_scripts_without_spaces() -> None:
    text = "Who doesn't like that the user's text isn't the same as mine here today"
    assert index_of(text).hits(normalised_words(text.replace("'", "’")), [])
    chinese = "请写一篇关于最近去夏威夷旅行的博客文章"
    assert index_of(chinese).hits(normalised_words("他说" + chinese), [])
    assert index_of(chinese).hits(normalised_words("他说" + chinese[:12]), []) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_named_fields(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"set{suffix}", [{"stem": LONG, "question": SHORT}])
    assert [item.text for item in read_items(path, ["stem"])] == [LONG]
    with pytest.raises(UserError, match=r"item 1: has none of the fields text_of; it has stem, question: name those"):
        list(read_items(path, ["text_of"]))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a name that ends in"):
        evaluation_index([write(tmp_path / "set.csv", [])], None)
    with pytest.raises(UserError, match="holds no item"):
        evaluation_index([write(tmp_path / "set.jsonl", [])], None)
    with pytest.raises(UserError, match="all 1 items have fewer than 8 words; lower --decontaminate-shortest"):
        evaluation_index([write(tmp_path / "set.jsonl", [{"text": "Too short."}])], None)
    (tmp_path / "set.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        evaluation_index([str(tmp_path / "set.parquet")], None)
    with pytest.raises(UserError, match="none"):
        evaluation_index([str(tmp_path / "none.jsonl")], None)
