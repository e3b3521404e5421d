import json
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

from nid_plugin.documents import DocumentCounts, DocumentSettings
from nid_plugin.halving import Half, halves, read_halves, write_halves
from plugin_common.errors import UserError

TEXTS = [
    f"This is document {number}. It says {'more ' * (number % 3)}things. It has an end, too." for number in range(200)
]


@pytest.fixture
def jsonl(tmp_path):
    def write(texts, name="a.jsonl") -> str:
        file = tmp_path / name
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return str(file)

    return write


def halve(*inputs, **options) -> tuple[list[Half], DocumentCounts]:
    counts = DocumentCounts()
    return list(halves(DocumentSettings(inputs, **{"min_document_tokens": 0} | options), counts)), counts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(min_size=1), max_size=20), st.sampled_from(["sentence", "word"]))
def test_both_halves_together_are_the_document(jsonl, texts, halve_at):
    texts = ["One. Two.", *texts]
    found, counts = halve(jsonl(texts), halve_at=halve_at, smallest_half=0.0)
    by_line = {int(half.source.rpartition(":")[2]): half for half in found}
    for number, half in by_line.items():
        assert half.prompt + half.second_half == texts[number - 1]
        assert half.prompt.strip()
        assert half.second_half.strip()
        assert not half.prompt[-1].isspace()
        assert half.document == xxh3_128_hexdigest(texts[number - 1].encode())
    assert counts.kept == len(found)
    assert counts.read == len(texts) == counts.kept + sum(counts.dropped.values())


def test_unsplittable_documents_are_counted(jsonl):
    found, counts = halve(jsonl(["One. Two.", "No end", "x"]))
    assert [half.prompt for half in found] == ["One."]
    assert counts.as_dict() == {"read": 3, "kept": 1, "dropped": {"no_boundary": 2}, "other_files": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_duplicates": True},
        {"sample": 50, "seed": 3},
        {"take": 50, "shuffle_buffer": 30},
        {"near_duplicates": 0.9},
        {"near_duplicates": 0.9, "sample": 20},
    ],
    ids=str,
)
def test_the_shards_are_the_whole_whatever_the_other_settings(jsonl, options):
    file = jsonl(TEXTS + TEXTS[:30])
    whole, counts = halve(file, **options)
    assert counts.read == counts.kept + sum(counts.dropped.values()) or "take" in options
    parts = [halve(file, shard=shard, shards=3, **options)[0] for shard in (1, 2, 3)]
    assert all(parts)
    assert sorted(chain.from_iterable(parts)) == sorted(whole)
    documents = [{half.document for half in part} for part in parts]
    assert sum(map(len, documents)) == len(set.union(*documents))


def test_the_sample_depends_neither_on_order_nor_on_files(jsonl):
    drawn, counts = halve(jsonl(TEXTS), sample=40, seed=3)
    assert len(drawn) == 40
    assert counts.dropped == {"not_drawn": 160}
    assert [half.source for half in drawn] == sorted(
        (half.source for half in drawn), key=lambda s: int(s.rpartition(":")[2])
    )
    backwards, _ = halve(jsonl(TEXTS[:77:-1], "b.jsonl"), jsonl(TEXTS[:78], "c.jsonl"), sample=40, seed=3)
    assert {half.document for half in backwards} == {half.document for half in drawn}
    assert {half.document for half in halve(jsonl(TEXTS), sample=40, seed=4)[0]} != {half.document for half in drawn}


def test_a_sample_has_only_documents_that_can_be_halved(jsonl):
    drawn, _ = halve(jsonl([text for pair in zip(TEXTS, ["No end"] * 200, strict=True) for text in pair]), sample=150)
    assert len(drawn) == 150
    assert len(halve(jsonl(TEXTS[:10]), sample=150)[0]) == 10


def test_take_stops_reading(jsonl):
    found, counts = halve(jsonl(TEXTS), take=10)
    assert [half.prompt + half.second_half for half in found] == TEXTS[:10]
    assert counts.read == 10


def test_shuffling_and_taking_is_the_same_on_every_run(jsonl):
    once = halve(jsonl(TEXTS), take=20, shuffle_buffer=50, seed=1)[0]
    assert once == halve(jsonl(TEXTS), take=20, shuffle_buffer=50, seed=1)[0]
    assert once != halve(jsonl(TEXTS), take=20, shuffle_buffer=50, seed=2)[0]


def test_progress_tells_all_documents_read(jsonl):
    told = []
    counts = DocumentCounts()
    settings = DocumentSettings((jsonl(TEXTS * 5),), min_document_tokens=0)
    assert len(list(halves(settings, counts, progress=told.append))) == 1000
    assert sum(told) == counts.read == 1000
    assert len(told) > 2


def test_nothing_left(jsonl):
    with pytest.raises(UserError, match=r"no document is left to halve:\n3 documents read, 0 kept\n  3 too short"):
        halve(jsonl(["a", "b", "c"]), min_document_tokens=5)


def test_an_empty_shard_is_no_error(jsonl):
    counts = [len(halve(jsonl(TEXTS[:1]), shard=shard, shards=3)[0]) for shard in (1, 2, 3)]
    assert sorted(counts) == [0, 0, 1]


def test_halves_come_back_from_their_file(tmp_path, jsonl):
    found, _ = halve(jsonl([*TEXTS, "Ä 😀\u2028.  \n\nOne \x00 \x7f."]))
    path = str(tmp_path / "halves.jsonl")
    assert write_halves(path, found) == len(found) > 200
    assert list(read_halves(path)) == found
    record = json.loads(Path(path).read_text(encoding="utf-8").partition("\n")[0])
    assert list(record) == ["document", "prompt", "second_half", "source"]


def test_a_file_that_holds_no_halves(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"document": "x", "prompt": "y", "source": 3}\n')
    with pytest.raises(
        UserError, match=r"a\.jsonl, line 1: no text under 'second_half', 'source'; expected a file that"
    ):
        list(read_halves(str(tmp_path / "a.jsonl")))


def test_no_file_is_left_when_reading_fails(tmp_path, jsonl):
    broken = tmp_path / "b.jsonl"
    broken.write_text(json.dumps({"text": TEXTS[0]}) + '\n{"text": "cu')
    out = tmp_path / "halves.jsonl"
    with pytest.raises(UserError, match=r"b\.jsonl, line 2"):
        write_halves(str(out), halves(DocumentSettings((str(broken),), min_document_tokens=0), DocumentCounts()))
    assert not out.exists()
