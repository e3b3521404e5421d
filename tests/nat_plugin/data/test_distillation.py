"""Shards, their files and their merging, without a model."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.distillation import (
    KINDS,
    Line,
    Shard,
    claim_settings,
    open_shard,
    read_settings,
    refuse_missing_sentences,
    scan,
)
from nat_plugin.data.distillation_merge import lines_in_order, summary, write_corpus
from plugin_common.errors import UserError

TOKENS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=4).map(" ".join)


def write(folder: Path, shard: Shard, tokens: list[str], block: int = 2) -> Path:
    """A shard's file in blocks of ``block`` lines, the last sentences first; each block took half a second."""
    path = shard.file(folder)
    order = shard.indices()[::-1].tolist()
    with open_shard(path, shard) as writer:
        for start in range(0, len(order), block):
            writer.append([Line(i, "h", tokens[i]) for i in order[start : start + block]], 0.5)
    return path


def blocks(*texts: str) -> str:
    """Lines as whole blocks of a shard's file."""
    ends = (f"#\t0.1\t{zlib.crc32(f'{text}#{chr(9)}0.1{chr(9)}'.encode()):08x}\n" for text in texts)
    return "".join(text + end for text, end in zip(texts, ends, strict=True))


def scan_all(folder: Path, shards: list[Shard]) -> list:
    return [scan(shard.file(folder), shard) for shard in shards]


@given(tokens=st.lists(TOKENS, max_size=12), of=st.integers(1, 5), block=st.integers(1, 4))
def test_shards_merge_to_all_sentences_in_order(tmp_path_factory, tokens, of, block):
    folder = tmp_path_factory.mktemp("shards")
    shards = [Shard(number, of, len(tokens)) for number in range(of)]
    assert sorted(i for shard in shards for i in shard.indices().tolist()) == list(range(len(tokens)))
    assert [len(shard) for shard in shards] == [len(shard.indices()) for shard in shards]
    for shard in shards:
        write(folder, shard, tokens, block)
    states = scan_all(folder, shards)
    merged = list(lines_in_order(folder, shards, states))
    assert [line.sentence for line in merged] == list(range(len(tokens)))
    assert [line.tokens for line in merged] == tokens


def test_a_file_cut_anywhere_continues_with_its_whole_blocks(tmp_path):
    tokens = ["ä b", "", "# 1.0", "W1\u2028W2", "</s>"]
    shard = Shard(0, 1, len(tokens))
    whole = write(tmp_path, shard, tokens).read_bytes()
    ends = [0, *(i + 17 for i in range(len(whole)) if whole[i : i + 8] == b"#\t0.500\t")]
    assert len(ends) == 4
    for size in range(len(whole) + 1):
        path = tmp_path / "cut" / shard.file(tmp_path).name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole[:size])
        kept = max(end for end in ends if end <= size)
        with open_shard(path, shard) as writer:
            assert path.read_bytes() == whole[:kept]
            assert writer.state.seconds == 0.5 * ends.index(kept)
            missing = writer.state.missing(shard).tolist()
            assert missing == list(range(len(tokens) - min(2 * ends.index(kept), len(tokens))))
            writer.append([Line(i, "h", tokens[i]) for i in missing], 1.0)
        (state,) = scan_all(path.parent, [shard])
        assert [line.tokens for line in lines_in_order(path.parent, [shard], [state])] == tokens


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (blocks("1\th\tx\n1\th\ty\n"), "before line 3: a sentence is there twice"),
        (blocks("1\th\tx\n", "1\th\ty\n"), "before line 4: a sentence is there twice"),
        (blocks("2\th\tx\n"), "line 1: sentence 2 is not of this shard"),
        (blocks("7\th\tx\n"), "line 1: sentence 7 is not of this shard"),
        (blocks("1\th\tx\n3\t?\tx\n"), "line 2: expected index, kind and tokens"),
        (blocks("one\n"), "line 1: expected index, kind and tokens"),
        (blocks("1\th\tx\n").replace("x", "y"), "lines 1 to 2: not as they were written"),
        (blocks("1\th\tx\n", "3\th\ty z\n5\th\tx\n").replace("y z", "z y"), "lines 3 to 5: not as they were written"),
        (blocks("1\th\tx\n3\th\ty\n").replace("3\th\ty\n", ""), "lines 1 to 2: not as they were written"),
        (blocks("1\th\tx\n").replace("0.1", "0.2"), "lines 1 to 2: not as they were written"),
        ("1\th\tx\n#\t0.1\n", "lines 1 to 2: not as they were written"),
    ],
)
def test_an_altered_file_is_refused_with_its_line(tmp_path, text, complaint):
    shard = Shard(1, 2, 6)
    path = shard.file(tmp_path)
    path.write_text(text)
    with pytest.raises(UserError, match=f"{path.name}: {complaint}.*; the file was altered: `truncate -s "):
        scan(path, shard)


def test_the_advice_for_an_altered_file_keeps_what_stands_before(tmp_path):
    shard = Shard(0, 1, 4)
    path = write(tmp_path, shard, ["a", "b", "c", "d"])
    path.write_bytes(path.read_bytes().replace(b"0\th\ta\n", b"0\th\t\xff\n"))  # in the second block
    with pytest.raises(UserError, match="lines 4 to 6: not as they were written") as raised:
        scan(path, shard)
    words = str(raised.value).split("`")[1].split()
    assert (words[:2], words[3]) == (["truncate", "-s"], str(path))
    path.write_bytes(path.read_bytes()[: int(words[2])])
    assert scan(path, shard).missing(shard).tolist() == [0, 1]


def test_a_file_that_changes_while_it_is_merged_is_refused(tmp_path):
    shard = Shard(0, 1, 2)
    path = write(tmp_path, shard, ["a", "b"])
    state = scan(path, shard)
    for altered in (b"0\th\t\xff\n", b"0 h a \n", b"1\th\ta\n"):
        path.write_bytes(path.read_bytes().replace(b"0\th\ta\n", altered))
        with pytest.raises(UserError, match=f"{path.name} was changed while it was read"):
            list(lines_in_order(tmp_path, [shard], [state]))
        path.unlink()
        write(tmp_path, shard, ["a", "b"])


def test_what_is_no_file_is_refused(tmp_path):
    shard = Shard(0, 1, 2)
    path = shard.file(tmp_path)
    path.mkdir()
    for use in (lambda: scan(path, shard), lambda: open_shard(path, shard).__enter__()):
        with pytest.raises(UserError, match=rf"{path.name}: cannot be opened \(Is a directory\)"):
            use()


def test_a_shard_has_one_writer(tmp_path):
    shard = Shard(0, 2, 9)
    path = shard.file(tmp_path)
    with open_shard(path, shard):
        second = open_shard(path, shard)
        with pytest.raises(UserError, match="another process decodes this shard"):
            second.__enter__()
    with open_shard(path, shard):
        pass


def test_missing_sentences_are_told_shard_by_shard(tmp_path):
    shards = [Shard(number, 3, 30) for number in range(3)]
    write(tmp_path, shards[0], ["x"] * 30)
    with open_shard(shards[1].file(tmp_path), shards[1]) as writer:
        writer.append([Line(i, "h", "x") for i in (1, 4, 10)], 1.0)
    with pytest.raises(UserError) as raised:
        refuse_missing_sentences(scan_all(tmp_path, shards), shards, ["do 0", "do 1", "do 2"])
    message = str(raised.value)
    assert "shard 0" not in message
    assert "shard 1 of 3 lacks 7 of 10 sentences (counted from 0: 7, 13, 16, 19, 22, …); run\n    do 1" in message
    assert "shard 2 of 3 lacks 10 of 10 sentences (counted from 0: 2, 5, 8, 11, 14, …); run\n    do 2" in message


CORPUS = {"source_lang": "en", "target_lang": "de", "subset": "train", "sentences": 9, "shards": 1}
WHERE = {"command": ["nat"], "checkpoints": ["a.pt"]}


def test_changed_settings_are_named_with_both_values(tmp_path):
    settings = {**CORPUS, "beam": 5, "lenpen": 1.0, "checkpoints_sha256": ["a" * 64]}
    claim_settings(tmp_path, settings, WHERE)
    claim_settings(tmp_path, settings, {**WHERE, "command": ["another path"]})
    assert read_settings(tmp_path)["where"] == WHERE
    with pytest.raises(UserError) as raised:
        claim_settings(tmp_path, {**settings, "beam": 4, "checkpoints_sha256": ["b" * 64]}, WHERE)
    message = str(raised.value)
    assert "beam was 5, now it is 4" in message
    assert "checkpoints sha256 was aaaaaaaaaaaa…, now it is bbbbbbbbbbbb…" in message
    assert "lenpen" not in message
    assert read_settings(tmp_path)["settings"] == settings


@pytest.mark.parametrize("content", ["", "[]", "{", '{"settings": 1, "where": {}}'])
def test_damaged_settings_are_refused(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(UserError, match=r"settings\.json"):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    ("content", "lacking"),
    [
        (
            {},
            "settings.source_lang, settings.target_lang, settings.subset, settings.sentences, settings.shards, where.",
        ),
        ({"settings": {**CORPUS, "shards": "1"}, "where": WHERE}, "settings.shards"),
        ({"settings": {**CORPUS, "shards": 0}, "where": WHERE}, "settings.shards of at least 1"),
        ({"settings": CORPUS, "where": {"command": ["nat"]}}, "where.checkpoints"),
        ({"settings": CORPUS, "where": {**WHERE, "command": [1]}}, "where.command of texts"),
    ],
)
def test_settings_that_lack_something_are_refused_by_its_name(tmp_path, content, lacking):
    (tmp_path / "settings.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        read_settings(tmp_path)
    assert f"settings.json: not the settings of a nat distill run (lacks {lacking}" in str(raised.value)
    assert f"delete {tmp_path} to start anew" in str(raised.value)


def merged(folder: Path, lines: list[Line], *, mix: bool = False) -> tuple[list[str], list[str], dict[str, int]]:
    files = (folder / "train.en", folder / "train.de")
    counts = write_corpus(files, (lambda i: f"s{i}", lambda i: f"t{i}"), iter(lines), sentences=len(lines), mix=mix)
    source, target = (path.read_text().split("\n")[:-1] for path in files)
    return source, target, counts.as_dict()


def test_raw_pairs_come_before_distilled_ones(tmp_path):
    lines = [Line(0, "h", "a <unk> <unk>"), Line(1, "s", "<unk>"), Line(2, "n", "t2"), Line(3, "l", "t3")]
    source, target, counts = merged(tmp_path, lines)
    assert (source, target) == (["s0", "s1", "s2", "s3"], ["a <unk> <unk>", "<unk>", "t2", "t3"])
    assert merged(tmp_path, lines, mix=True) == (source * 2, ["t0", "t1", "t2", "t3", *target], counts)
    assert counts == {**dict.fromkeys(KINDS.values(), 1), "unk_tokens": 2, "unk_sentences": 1}


def test_a_line_end_within_a_token_is_found(tmp_path):
    with pytest.raises(UserError, match=r"train\.de: 2 lines, expected 1"):
        merged(tmp_path, [Line(0, "h", "a\nb")])


def test_summary_names_what_was_not_decoded(tmp_path):
    files = (tmp_path / "a", tmp_path / "b")
    lines = [Line(0, "h", "<unk>"), Line(1, "n", "t")]
    counts = write_corpus(files, (str, str), iter(lines), sentences=2, mix=False)
    assert summary(counts, 2.0, 2) == [
        "2 sentences: 1 decoded in 2.0 s (all shards added up, 0.5 a second)",
        "1 hypotheses are empty: the raw target is kept",
        "1 <unk> in 1 hypotheses",
    ]


def test_batches_hold_each_sentence_once_longest_first():
    from nat_plugin.data.teacher import batches, longest_first, outstanding

    sizes = np.array([3, 9, 4, 4, 1, 9, 2], dtype=np.int32)
    order = longest_first(np.array([0, 1, 2, 3, 5, 6]), sizes)
    assert order.tolist() == [1, 5, 2, 3, 0, 6]
    cut = batches(order, sizes, max_tokens=12, batch_size=3)
    assert [batch.tolist() for batch in cut] == [[1], [5], [2, 3, 0], [6]]
    missing = np.isin(np.arange(7), [3, 5, 6])
    assert list(outstanding(cut, missing)) == [[5], [3], [6]]
    assert batches(order[:0], sizes, max_tokens=12, batch_size=3) == []
    with pytest.raises(UserError, match=r"--max-tokens 8 .* \(sentence 1 from 0, 9 tokens\)"):
        batches(order, sizes, max_tokens=8, batch_size=3)
