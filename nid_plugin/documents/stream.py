"""The stream of documents that the settings ask for."""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby

from xxhash import xxh3_128_digest

from nid_plugin.documents.document import Document, DocumentCounts, Oversized, RawDocument, printable
from nid_plugin.documents.inputs import Input, list_inputs
from nid_plugin.documents.settings import DocumentSettings
from plugin_common.errors import UserError

Check = Callable[[Document], bool]
"""True for a document to keep."""

_PATIENCE = 1000
"""The run ends with an error when so many documents at the start are all unreadable."""


def documents(
    settings: DocumentSettings, counts: DocumentCounts, *, may_draw: Callable[[bytes], bool] | None = None
) -> Iterator[Document]:
    """The documents of the inputs that pass the settings' checks, in reading order.

    Sampling, taking and (where it depends on them or on near-duplicates) sharding come later, in ``halving.halves``.

    Args:
        counts: gets what is read and what is left out, and why.
        may_draw: whether a document with that digest can still get into the sample; others are left out early.

    Raises:
        UserError: an input cannot be read, or holds no document.
    """
    raw = _raw_documents(settings, counts)
    return _checked(raw, make_checks(settings, may_draw), settings, counts)


def shards_early(settings: DocumentSettings) -> bool:
    """Whether documents of other shards may be left out before the checks: no check or draw looks at several texts.

    Equal texts are in the same shard, so exact duplicates do not matter.
    """
    return settings.near_duplicates is None and settings.sample is None and settings.take is None


def in_shard(digest: bytes, settings: DocumentSettings) -> bool:
    """Whether the document with that digest belongs to the settings' shard."""
    return int.from_bytes(digest[8:16], "little") % settings.shards == settings.shard - 1


def make_checks(settings: DocumentSettings, may_draw: Callable[[bytes], bool] | None = None) -> list[tuple[str, Check]]:
    """The checks that the settings ask for, each with the reason it is counted under; the costly ones last."""
    checks: list[tuple[str, Check]] = []
    if settings.shards > 1 and shards_early(settings):
        checks.append(("other_shards", lambda document: in_shard(document.digest, settings)))
    # Near-duplicates are those of all earlier documents, drawn or not: the sample is then of what they leave.
    if may_draw is not None and settings.near_duplicates is None:
        checks.append(("not_drawn", lambda document: may_draw(document.digest)))
    checks += _length_checks(settings)
    if settings.drop_duplicates:
        from nid_plugin.documents.hash_set import HashSet

        seen = HashSet()
        checks.append(("duplicates", lambda document: seen.add(int.from_bytes(document.digest[:8], "little"))))
    if settings.near_duplicates is not None:
        from nid_plugin.documents.near_duplicates import NearDuplicates

        near = NearDuplicates(settings.near_duplicates)
        checks.append(("near_duplicates", lambda document: near.add(document.text)))
        if may_draw is not None:
            checks.append(("not_drawn", lambda document: may_draw(document.digest)))
    if settings.language is not None:
        from nid_plugin.documents.language import other_language_test

        is_other = other_language_test(settings.language, settings.language_certainty)
        checks.append(("other_language", lambda document: not is_other(document.text)))
    return checks


def _length_checks(settings: DocumentSettings) -> list[tuple[str, Check]]:
    from nid_plugin.documents.words import WORDS, has_words, load_tokenizer, token_count

    least, most = settings.min_document_tokens, settings.max_document_tokens
    has_tokens = has_words
    if settings.length_tokenizer != WORDS and (least > 0 or most is not None):
        tokenizer = load_tokenizer(settings.length_tokenizer)

        def has_tokens(text: str, count: int) -> bool:
            return token_count(tokenizer, text) >= count

    checks: list[tuple[str, Check]] = []
    if least > 0:
        checks.append(("too_short", lambda document: has_tokens(document.text, least)))
    if most is not None:
        checks.append(("too_long", lambda document: not has_tokens(document.text, most + 1)))
    return checks


def _raw_documents(settings: DocumentSettings, counts: DocumentCounts) -> Iterator[RawDocument]:
    inputs = list_inputs(settings, counts)
    if not settings.shuffle_buffer:
        return _read_all(inputs, settings, counts)
    from nid_plugin.documents.shuffling import shuffled

    random.Random(settings.seed).shuffle(inputs)
    return shuffled(_read_all(inputs, settings, counts), settings.shuffle_buffer, settings.seed)


def _read_all(inputs: list[Input], settings: DocumentSettings, counts: DocumentCounts) -> Iterator[RawDocument]:
    for kind, group in groupby(inputs, key=lambda found: found.kind):
        if kind == "parquet":
            from nid_plugin.documents.table_reader import read_parquet

            yield from read_parquet([found.name for found in group], settings.text_column)
        else:
            yield from chain.from_iterable(_read(found, settings, counts) for found in group)


def _read(found: Input, settings: DocumentSettings, counts: DocumentCounts) -> Iterable[RawDocument]:
    """The reader for the input; each kind's libraries are imported when it is needed."""
    if found.kind in ("dataset", "saved_dataset"):
        from nid_plugin.documents.table_reader import read_dataset

        return read_dataset(found.name, settings, saved=found.kind == "saved_dataset")
    if found.kind == "tar":
        from nid_plugin.documents.tar_reader import read_tar

        return read_tar(found.name, counts)
    from nid_plugin.documents import text_reader

    if found.kind == "jsonl":
        return text_reader.read_jsonl(found.name, settings.text_column)
    paragraphs = settings.txt_documents == "paragraphs"
    return text_reader.read_txt_paragraphs(found.name) if paragraphs else text_reader.read_txt_file(found.name)


def _checked(
    raw: Iterable[RawDocument], checks: list[tuple[str, Check]], settings: DocumentSettings, counts: DocumentCounts
) -> Iterator[Document]:
    """The documents that hold text and pass the checks; the others are counted.

    One loop does all: a generator for each step would cost a tenth of the whole time.

    Raises:
        UserError: there is no document, or none of the first ``_PATIENCE`` (or of all) could be read.
    """
    found_text = False
    for cell, source in raw:
        counts.read += 1
        text = cell if type(cell) is str else _decoded(cell, counts)
        if text is None:
            if not found_text and counts.read >= _PATIENCE:
                raise _unreadable(settings, counts)
            continue
        try:
            digest = xxh3_128_digest(text.encode())
        except UnicodeEncodeError:  # lone surrogates
            counts.dropped["not_utf8"] += 1
            continue
        found_text = True
        if not text or text.isspace():
            counts.dropped["blank"] += 1
            continue
        document = Document(text, source if source.isascii() else printable(source), digest)
        for reason, keep in checks:
            if not keep(document):
                counts.dropped[reason] += 1
                break
        else:
            yield document
    if not found_text:
        raise _unreadable(settings, counts)


def _decoded(cell: object, counts: DocumentCounts) -> str | None:
    """The text of UTF-8 bytes, without a byte order mark; anything else is counted."""
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8-sig")
        except UnicodeDecodeError:
            counts.dropped["not_utf8"] += 1
    else:
        counts.dropped["oversized" if isinstance(cell, Oversized) else "not_text"] += 1
    return None


def _unreadable(settings: DocumentSettings, counts: DocumentCounts) -> UserError:
    names = ", ".join(settings.inputs)
    if counts.read == 0:
        return UserError(f"{names}: no documents in there; is it the right file, folder or split?")
    return UserError(
        "\n".join([f"{names}: of the first {counts.read:,} documents none could be read:", *counts.lines()[1:]])
        + "\nexpected UTF-8 text; check --text-column and --input-format"
    )
