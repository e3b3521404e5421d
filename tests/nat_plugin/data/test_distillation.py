"""Shards, their files and their merging, without a model."""

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
    ends = [0, *(i + 7 for i in range(len(whole)) if whole[i : i + 7] == b"#\t0.500")]
    ends = [end + 1 if end else 0 for end in ends]
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
        ("1\th\tx\n1\th\ty\n#\t0.1\n", "before line 3: a sentence is there twice"),
        ("1\th\tx\n#\t0.1\n1\th\ty\n#\t0.1\n", "before line 4: a sentence is there twice"),
        ("2\th\tx\n#\t0.1\n", "line 1: sentence 2 is not of this shard"),
        ("7\th\tx\n#\t0.1\n", "line 1: sentence 7 is not of this shard"),
        ("1\th\tx\n3\t?\tx\n#\t0.1\n", "line 2: expected index, kind and tokens"),
        ("one\n#\t0.1\n", "line 1: expected index, kind and tokens"),
    ],
)
def test_an_altered_file_is_refused_with_its_line(tmp_path, text, complaint):
    shard = Shard(1, 2, 6)
    path = shard.file(tmp_path)
    path.write_text(text)
    with pytest.raises(UserError, match=f"{path.name}: {complaint}; the file was altered"):
        scan(path, shard)


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


def test_changed_settings_are_named_with_both_values(tmp_path):
    settings = {"beam": 5, "lenpen": 1.0, "checkpoints_sha256": ["a" * 64]}
    claim_settings(tmp_path, settings, {"command": ["nat"]})
    claim_settings(tmp_path, settings, {"command": ["another path"]})
    assert read_settings(tmp_path)["where"] == {"command": ["nat"]}
    with pytest.raises(UserError) as raised:
        claim_settings(tmp_path, {"beam": 4, "lenpen": 1.0, "checkpoints_sha256": ["b" * 64]}, {})
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
