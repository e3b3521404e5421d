"""A document's two halves: the first becomes the prompt, the second is the control response.

A document is cut at the end of the sentence, word or token that is nearest its middle. White space at the cut stays
with the second half: a prompt then ends as it would in running text, and a language model's tokens, which carry the
space in front of a word, come out the same as in the whole. Both halves together are the document, character for
character.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from nid_plugin.documents import Document, DocumentCounts, DocumentSettings
from nid_plugin.documents.boundaries import sentence_cut, token_cut, word_cut
from nid_plugin.documents.sampling import Sample
from nid_plugin.documents.stream import documents, in_shard, shards_early
from nid_plugin.documents.words import load_tokenizer
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError
from plugin_common.json_lines import read_json_lines


class Half(NamedTuple):
    """A document, cut in two; ``prompt + second_half`` is its text.

    Attributes:
        document: 32 hexadecimal digits, XXH3 (128 bits) of the text's UTF-8 bytes.
        prompt: the first half; does not end in white space.
        second_half: the rest; begins with the white space at the cut.
        source: where the document came from.
    """

    document: str
    prompt: str
    second_half: str
    source: str


def halves(
    settings: DocumentSettings, counts: DocumentCounts, *, progress: Callable[[int], object] | None = None
) -> Iterator[Half]:
    """Read, choose and halve documents as the settings say. Memory does not grow with the documents' number, except
    for what duplicates and the sample need (see there).

    The shards of one setting are disjoint and together what comes without shards, whatever the other settings.

    Args:
        counts: gets what is read, kept and left out, and why.
        progress: called with the number of documents read since the last call.

    Raises:
        UserError: an input cannot be read or holds no document, or nothing is left of all that was read.
    """
    sample = None if settings.sample is None else Sample(settings.sample, settings.seed)
    chosen = documents(settings, counts, may_draw=sample.may_draw if sample else None)
    stream = _halved(chosen if progress is None else _reporting(chosen, counts, progress), settings, counts)
    if sample is not None:
        stream = _drawn(stream, sample, counts)
    if settings.take is not None:
        stream = islice(stream, settings.take)
    if settings.shards > 1 and not shards_early(settings):
        stream = _of_shard(stream, settings, counts)
    for half in stream:
        counts.kept += 1
        yield half
    if counts.kept == 0 and not counts.dropped["other_shards"]:
        raise UserError("\n".join(["no document is left to halve:", *counts.lines()]))


def _reporting(
    stream: Iterable[Document], counts: DocumentCounts, progress: Callable[[int], object]
) -> Iterator[Document]:
    told = 0
    for document in stream:
        if counts.read - told >= 256:
            progress(counts.read - told)
            told = counts.read
        yield document
    progress(counts.read - told)


def make_cut(settings: DocumentSettings) -> Callable[[str], int | None]:
    """The function that gives the length of a text's first half, or None where there is no place to cut it.

    Raises:
        UserError: the tokenizer cannot be read.
    """
    smallest = settings.smallest_half
    if settings.halve_at == "token":
        assert settings.halve_tokenizer is not None  # `DocumentSettings.problems` checks it
        tokenizer: Any = load_tokenizer(settings.halve_tokenizer)
        return lambda text: token_cut(text, tokenizer, smallest)
    if settings.halve_at == "word":
        return lambda text: word_cut(text, smallest)
    return lambda text: sentence_cut(text, settings.sentence_language, smallest)


def _halved(stream: Iterable[Document], settings: DocumentSettings, counts: DocumentCounts) -> Iterator[Half]:
    cut_of = make_cut(settings)
    for text, source, digest in stream:
        cut = cut_of(text)
        if cut is None:
            counts.dropped["no_boundary"] += 1
        else:
            yield Half(digest.hex(), text[:cut], text[cut:], source)


def _drawn(stream: Iterable[Half], sample: Sample, counts: DocumentCounts) -> Iterator[Half]:
    offered = 0
    for offered, half in enumerate(stream, start=1):  # noqa: B007 (counted)
        sample.add(bytes.fromhex(half.document), half_line(half))
    counts.dropped["not_drawn"] += offered - len(sample)
    for line in sample.records():
        yield Half(**json.loads(line))


def _of_shard(stream: Iterable[Half], settings: DocumentSettings, counts: DocumentCounts) -> Iterator[Half]:
    for half in stream:
        if in_shard(bytes.fromhex(half.document), settings):
            yield half
        else:
            counts.dropped["other_shards"] += 1


def half_line(half: Half) -> bytes:
    """The line of a half in a file, with its newline."""
    return json.dumps(half._asdict(), ensure_ascii=False).encode() + b"\n"


def write_halves(path: str, halves: Iterable[Half]) -> int:
    """Write the halves, one line each; the file appears only when it is complete. Returns how many there are.

    Raises:
        UserError: the file cannot be written.
    """
    count = 0
    with atomic_output(path) as stream:
        for count, half in enumerate(halves, start=1):  # noqa: B007 (the count is the result)
            stream.write(half_line(half))
    return count


def read_halves(path: str) -> Iterator[Half]:
    """The halves of a file (``.gz`` and ``.zst`` too), in order; memory for one line.

    Raises:
        UserError: the file cannot be read, or a line does not hold the halves of a document (names file and line).
    """
    for number, record in read_json_lines(path):
        wrong = [name for name in Half._fields if not isinstance(record.get(name), str)]
        if wrong:
            raise UserError(
                f"{path}, line {number}: no text under {', '.join(map(repr, wrong))}; expected a file that "
                "`nid halve` wrote"
            )
        yield Half(*(record[name] for name in Half._fields))
