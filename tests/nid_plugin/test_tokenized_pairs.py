"""Tokenized files: what is in them, found again, made again, by several processes at once."""

import gc
import gzip
import json
import logging
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nid_plugin import tokenized_pairs
from nid_plugin.formatting import Formatter, PairFormat
from nid_plugin.pairs import Pair, pair_line, write_pairs
from nid_plugin.tokenized_pairs import TokenizedPairs, tokenize_pairs
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_tokenizer, toy_pairs, write_toy_pairs

FORMATTER = Formatter(make_tokenizer(), PairFormat(), "toy")
Log = pytest.LogCaptureFixture


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(write_toy_pairs(tmp_path / "pairs.jsonl", 30))


@pytest.fixture
def count_of_pairs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many pairs were tokenized so far."""
    seen = []
    own = Formatter.pair_ids
    monkeypatch.setattr(
        Formatter, "pair_ids", lambda self, prompts, texts: (seen.extend(prompts), own(self, prompts, texts))[1]
    )
    return lambda: len(seen)


def _pair(prompt: str, completion: str) -> Pair:
    return Pair("", prompt, completion, "", "", "")


def _same_as_the_formatter(pairs: TokenizedPairs, texts: list[Pair], formatter: Formatter = FORMATTER) -> None:
    expected = formatter.pair_ids([pair.prompt for pair in texts], [pair.completion for pair in texts])
    assert len(pairs) == len(expected)
    for row, pair in enumerate(expected):
        assert pairs.prompt(row).tolist() == pair.prompt
        assert pairs.completion(row).tolist() == pair.completion
        assert pairs.head(row) == pair.head
    assert pairs.prompt_lengths.tolist() == [len(pair.prompt) for pair in expected]
    assert pairs.completion_lengths.tolist() == [len(pair.completion) for pair in expected]
    assert pairs.prompt_lengths.dtype == pairs.completion_lengths.dtype == np.int64
    assert pairs.vocabulary_top == max(max(pair.prompt + pair.completion) for pair in expected)


@pytest.mark.parametrize(
    "form", [PairFormat(), PairFormat("chat"), PairFormat("template", "Q: {prompt} A: {completion}")]
)
def test_they_hold_what_the_formatter_makes(
    file: str, tmp_path: Path, form: PairFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenized_pairs, "_BATCH_PAIRS", 7)
    formatter = Formatter(make_tokenizer(), form, "toy")
    _same_as_the_formatter(tokenize_pairs(file, formatter, cache=tmp_path / "cache"), toy_pairs(30), formatter)


def test_long_texts_are_tokenized_in_small_batches(
    file: str, monkeypatch: pytest.MonkeyPatch, count_of_pairs: Callable[[], int]
) -> None:
    monkeypatch.setattr(tokenized_pairs, "_BATCH_CHARACTERS", 1)
    _same_as_the_formatter(tokenize_pairs(file, FORMATTER, cache=None), toy_pairs(30))


def test_large_vocabularies_take_wider_ids(tmp_path: Path, file: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"<{number}>" for number in range(66_000)])
    texts = [_pair("old <65990>", "town")]
    write_pairs(file, texts)
    formatter = Formatter(tokenizer, PairFormat(), "toy")
    pairs = tokenize_pairs(file, formatter, cache=tmp_path / "cache")
    assert pairs.vocabulary_top > 2**16
    _same_as_the_formatter(pairs, texts, formatter)


def test_a_second_time_they_are_found(
    file: str, tmp_path: Path, count_of_pairs: Callable[[], int], caplog: Log
) -> None:
    caplog.set_level(logging.INFO)
    tokenize_pairs(file, FORMATTER, cache=tmp_path / "cache")
    copy = tmp_path / "other name.jsonl"
    copy.write_bytes(Path(file).read_bytes())
    found = tokenize_pairs(str(copy), FORMATTER, cache=tmp_path / "cache")
    assert count_of_pairs() == 30
    assert "tokenized before" in caplog.text
    assert f"{copy}: 30 pairs, {found.prompt_lengths.sum()} prompt tokens" in caplog.text
    _same_as_the_formatter(found, toy_pairs(30))


def test_another_file_tokenizer_or_format_is_tokenized_anew(
    file: str, tmp_path: Path, count_of_pairs: Callable[[], int]
) -> None:
    cache = tmp_path / "cache"
    tokenize_pairs(file, FORMATTER, cache=cache)
    other = make_tokenizer()
    other.add_tokens(["river"])
    tokenize_pairs(file, Formatter(other, PairFormat(), "toy"), cache=cache)
    tokenize_pairs(file, Formatter(make_tokenizer(), PairFormat(seam="as-is"), "toy"), cache=cache)
    assert count_of_pairs() == 90
    with Path(file).open("ab") as stream:
        stream.write(pair_line(_pair("more", "words")))
    assert len(tokenize_pairs(file, FORMATTER, cache=cache)) == 31
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 4


def _flip(entry: Path) -> None:
    data = bytearray((entry / "ids.bin").read_bytes())
    data[10] ^= 1
    (entry / "ids.bin").write_bytes(data)


def _other_checksums(entry: Path) -> None:
    meta = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps({**meta, "checksums": 3}))


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        _other_checksums,
        lambda entry: (entry / "ids.bin").write_bytes(b""),
        lambda entry: (entry / "offsets.npy").unlink(),
        lambda entry: (entry / "meta.json").unlink(),
        lambda entry: (entry / "meta.json").write_text("{"),
    ],
)
def test_a_damaged_entry_is_made_again(file: str, tmp_path: Path, damage: Callable[[Path], Any], caplog: Log) -> None:
    cache = tmp_path / "cache"
    damage(tokenize_pairs(file, FORMATTER, cache=cache).folder)
    _same_as_the_formatter(tokenize_pairs(file, FORMATTER, cache=cache), toy_pairs(30))
    assert "tokenizing again" in caplog.text
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1
    caplog.clear()
    tokenize_pairs(file, FORMATTER, cache=cache)
    assert "tokenizing again" not in caplog.text


def _tokenize(file: str, cache: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    pairs = tokenize_pairs(file, FORMATTER, cache=cache)
    results.put((str(pairs.folder), len(pairs), int(pairs.prompt(29).sum())))


@pytest.mark.parametrize("locks", [True, False])
def test_several_processes_at_once(file: str, tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not locks:  # as on some network file systems

        def no_locks(*args: Any) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(tokenized_pairs.fcntl, "flock", no_locks)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_tokenize, args=(file, tmp_path / "cache", barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(set(found)) == 1
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 1


def test_without_a_cache_nothing_stays(file: str) -> None:
    held = [tokenize_pairs(file, FORMATTER, cache=None)]
    folder = held[0].folder
    assert len(held[0].prompt(0)) == held[0].prompt_lengths[0]
    process = multiprocessing.get_context("fork").Process(target=held.clear)  # a worker lets go of its own
    process.start()
    process.join()
    assert folder.is_dir()
    held.clear()
    gc.collect()
    assert not folder.parent.exists()


def test_they_travel_to_other_processes_by_name(file: str, tmp_path: Path) -> None:
    sent = pickle.dumps(tokenize_pairs(file, FORMATTER, cache=tmp_path / "cache"))
    assert len(sent) < 1000
    _same_as_the_formatter(pickle.loads(sent), toy_pairs(30))


def test_compressed_files(tmp_path: Path, file: str) -> None:
    packed = tmp_path / "pairs.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(file).read_bytes()))
    _same_as_the_formatter(tokenize_pairs(str(packed), FORMATTER, cache=tmp_path / "cache"), toy_pairs(30))


def test_pairs_that_look_special_are_counted(file: str, tmp_path: Path, caplog: Log) -> None:
    caplog.set_level(logging.INFO)
    write_pairs(file, [_pair("old </s>", "town"), _pair("old", "town"), _pair("old", "<s> town")])
    for _ in range(2):  # made, found
        caplog.clear()
        tokenize_pairs(file, FORMATTER, cache=tmp_path / "cache")
        assert "2 pairs hold text that looks like a special token; it is tokenized as text" in caplog.text


def _left(cache: Path) -> list[Path]:
    return [entry for entry in cache.iterdir() if entry.is_dir()]


def test_an_empty_file(file: str, tmp_path: Path) -> None:
    Path(file).write_text("\n")
    with pytest.raises(UserError, match=r"pairs.jsonl: holds no pair; give a file of pairs"):
        tokenize_pairs(file, FORMATTER, cache=tmp_path / "cache")
    assert _left(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "a"}', 'line 31: a pair needs a text "completion"'),
        (b'{"prompt": " ", "completion": "b"}', 'line 31: "prompt" is empty'),
        (b'{"prompt": "a", "completion": 3}', 'line 31: a pair needs a text "completion", found int'),
        (b'{"prompt"', "line 31: not valid JSON"),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_a_bad_line(file: str, tmp_path: Path, line: bytes, message: str, cached: bool) -> None:
    with Path(file).open("ab") as stream:
        stream.write(line + b"\n")
    (tmp_path / "cache").mkdir()
    with pytest.raises(UserError, match=message):
        tokenize_pairs(file, FORMATTER, cache=tmp_path / "cache" if cached else None)
    assert _left(tmp_path / "cache") == []


def test_a_prompt_of_no_token(file: str, tmp_path: Path) -> None:
    from tokenizers.normalizers import Replace

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.backend_tokenizer.normalizer = Replace("old", "")
    write_pairs(file, [_pair("the", "town"), _pair("old", "town")])
    with pytest.raises(UserError, match=r"pair 2 of .*pairs.jsonl: its prompt gives no token; remove it"):
        tokenize_pairs(file, Formatter(tokenizer, PairFormat(), "toy"), cache=None)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; give a file of pairs"):
        tokenize_pairs(str(tmp_path / "none.jsonl"), FORMATTER, cache=None)


def test_a_cache_that_cannot_be_made(file: str) -> None:
    with pytest.raises(UserError, match=r"cannot be written .*; give another cache folder"):
        tokenize_pairs(file, FORMATTER, cache=Path(file) / "cache")
