import json
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from nid_plugin.documents import DocumentCounts, DocumentSettings
from nid_plugin.documents.document import REASONS
from nid_plugin.documents.stream import documents
from plugin_common.errors import UserError

ENGLISH = "The weather was fine, and so we went down to the river to see whether the boats had come in. "
GERMAN = "Das Wetter war schön, und so gingen wir zum Fluss hinunter, um nach den Booten zu sehen. "


@pytest.fixture
def jsonl(tmp_path):
    def write(*texts, name="a.jsonl") -> str:
        file = tmp_path / name
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return str(file)

    return write


def read(*inputs, **options) -> tuple[list[str], dict]:
    counts = DocumentCounts()
    options = {"min_document_tokens": 0} | options
    texts = [document.text for document in documents(DocumentSettings(inputs, **options), counts)]
    return texts, counts.as_dict()


def test_documents_have_text_source_and_digest(jsonl):
    file = jsonl(" one ä\n")
    (document,) = documents(DocumentSettings((file,), min_document_tokens=0), DocumentCounts())
    assert document == (" one ä\n", f"{file}:1", xxh3_128_digest(" one ä\n".encode()))


def test_every_check_is_counted(jsonl):
    texts = ["", " \n", "short one", ENGLISH * 4, ENGLISH * 4, GERMAN * 4, ENGLISH * 20, None, 3, "\ud800 lone"]
    found, counts = read(
        jsonl(*texts), min_document_tokens=5, max_document_tokens=200, drop_duplicates=True, language="en"
    )
    assert found == [ENGLISH * 4]
    assert counts["read"] == 10
    assert counts["dropped"] == {
        "not_text": 2, "not_utf8": 1, "blank": 2, "too_short": 1, "too_long": 1, "duplicates": 1, "other_language": 1
    }  # fmt: skip


def test_lengths_are_inclusive(jsonl):
    texts = ["a b", "a b c", "a b c d", "a b c d e"]
    assert read(jsonl(*texts), min_document_tokens=3, max_document_tokens=4)[0] == texts[1:3]


def test_near_duplicates(jsonl):
    base = " ".join(f"word{number}" for number in range(200))
    texts = [base, base + " end", base.upper(), "another text of its own " * 3]
    found, counts = read(jsonl(*texts), near_duplicates=0.8)
    assert found == [base, texts[3]]
    assert counts["dropped"] == {"near_duplicates": 2}


def test_several_inputs_in_order_and_shuffled(jsonl):
    one, two = jsonl(*"abc", name="1.jsonl"), jsonl(*"defg", name="2.jsonl")
    assert read(two, one)[0] == list("defgabc")
    mixed = read(one, two, shuffle_buffer=4, seed=5)[0]
    assert mixed == read(one, two, shuffle_buffer=4, seed=5)[0]
    assert sorted(mixed) == list("abcdefg") != mixed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.sampled_from("ab"), max_size=5), max_size=30), st.integers(1, 5))
def test_shards_are_disjoint_and_complete_and_keep_duplicates_together(jsonl, texts, shards):
    file = jsonl("anchor", *texts)
    whole, _ = read(file, drop_duplicates=True)
    parts = [read(file, drop_duplicates=True, shard=shard, shards=shards)[0] for shard in range(1, shards + 1)]
    assert sorted(chain.from_iterable(parts)) == sorted(whole)
    assert all(part == [text for text in whole if text in set(part)] for part in parts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.none() | st.integers() | st.text(st.characters(codec=None), max_size=30), min_size=1, max_size=20))
def test_the_counts_add_up_and_texts_stay_as_they_were(jsonl, cells):
    file = jsonl("anchor", *cells)
    found, counts = read(file, drop_duplicates=True, min_document_tokens=1)
    assert counts["read"] == len(cells) + 1 == len(found) + sum(counts["dropped"].values())
    assert set(found) <= {"anchor", *(cell for cell in cells if isinstance(cell, str))}
    assert set(counts["dropped"]) <= set(REASONS)


def test_a_byte_order_mark_is_no_text_and_other_encodings_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone".encode())
    (tmp_path / "b.txt").write_bytes("zwei ä".encode("latin-1"))
    (tmp_path / "c.txt").write_bytes("drei".encode("utf-16"))
    found, counts = read(str(tmp_path))
    assert found == ["one"]
    assert counts["dropped"] == {"not_utf8": 2}


def test_no_documents(tmp_path, jsonl):
    with pytest.raises(UserError, match=r"a\.jsonl: no documents in there"):
        read(jsonl())


def test_nothing_readable(jsonl):
    with pytest.raises(UserError, match=r"of the first 3 documents none could be read:\n.*3 no text") as caught:
        read(jsonl(1, 2, None))
    assert "check --text-column" in str(caught.value)


def test_nothing_readable_ends_a_long_run_early(jsonl):
    with pytest.raises(UserError, match=r"of the first 1,000 documents"):
        read(jsonl(*range(5000)))
    assert len(read(jsonl("text", *range(5000)))[0]) == 1


def test_paragraphs_of_text_files(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n")
    assert read(str(tmp_path / "a.txt"), txt_documents="paragraphs")[0] == ["one\ntwo", "three"]
    assert read(str(tmp_path / "a.txt"))[0] == ["one\ntwo\n\nthree\n"]


def test_counts_in_words():
    counts = DocumentCounts(read=1200, kept=3, other_files=1)
    counts.dropped.update({"too_short": 1000, "duplicates": 197})
    assert counts.lines() == [
        "1,200 documents read, 3 kept",
        "  1,000 too short",
        "  197 equal to an earlier document",
        "1 files of other kinds passed over",
    ]
