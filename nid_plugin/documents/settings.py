"""Which documents are taken, from where, and how they are halved: one data class feeds the options and the ledger."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

InputFormat = Literal["auto", "dataset", "parquet", "jsonl", "txt", "tar"]
INPUT_FORMATS: tuple[InputFormat, ...] = ("auto", "dataset", "parquet", "jsonl", "txt", "tar")
TxtDocuments = Literal["file", "paragraphs"]
TXT_DOCUMENTS: tuple[TxtDocuments, ...] = ("file", "paragraphs")
HalveAt = Literal["sentence", "word", "token"]
HALVE_AT: tuple[HalveAt, ...] = ("sentence", "word", "token")


@dataclass(frozen=True)
class DocumentSettings:
    """Everything that decides which halves come out, in which order.

    Attributes:
        inputs: files, folders, or names of data sets.
        input_format: ``auto`` goes by the ending of each file's name.
        txt_documents: a text file is one document, or its paragraphs (between blank lines) are.
        text_column: column of a data set or parquet file, field of a JSON object, that holds the text.
        dataset_config: configuration of a data set, where it has several.
        dataset_split: split of a data set.
        dataset_revision: branch, tag or commit of a data set on the hub.
        shuffle_buffer: documents held to draw the next one from; 0 keeps the order.
        seed: of shuffling and of the sample.
        sample: distinct documents drawn uniformly from all; None takes all.
        take: stop after that many documents; None does not stop.
        shard: which of the ``shards`` parts of the result to give; from 1.
        shards: parts of the result, told apart by the hash of the text.
        min_document_tokens: least length of a document in tokens of ``length_tokenizer``.
        max_document_tokens: greatest length; None sets no limit.
        length_tokenizer: ``words``, or folder or hub name of a tokenizer.
        drop_duplicates: leave out documents whose text came before.
        near_duplicates: leave out documents whose word 5-grams have about this Jaccard similarity or more with those
            of an earlier one; None leaves none out.
        language: ISO 639-1 code; documents that are surely in another language are left out; None leaves none out.
        language_certainty: probability of another language from which on it counts as sure.
        halve_at: the boundary to halve at: the one nearest the middle.
        halve_tokenizer: folder or hub name of the tokenizer, for ``token``.
        sentence_language: ISO 639-1 code whose rules and abbreviations tell sentences apart.
        smallest_half: least share of a document's characters (tokens, for ``token``) that a half may have.
    """

    inputs: tuple[str, ...]
    input_format: InputFormat = "auto"
    txt_documents: TxtDocuments = "file"
    text_column: str = "text"
    dataset_config: str | None = None
    dataset_split: str = "train"
    dataset_revision: str | None = None
    shuffle_buffer: int = 0
    seed: int = 1
    sample: int | None = None
    take: int | None = None
    shard: int = 1
    shards: int = 1
    min_document_tokens: int = 20
    max_document_tokens: int | None = None
    length_tokenizer: str = "words"
    drop_duplicates: bool = False
    near_duplicates: float | None = None
    language: str | None = None
    language_certainty: float = 0.95
    halve_at: HalveAt = "sentence"
    halve_tokenizer: str | None = None
    sentence_language: str = "en"
    smallest_half: float = 0.25

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "inputs": list(self.inputs)}

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each, by the names of the options."""
        return [*_number_problems(self), *_combination_problems(self)]


def _number_problems(settings: DocumentSettings) -> list[str]:
    at_least = {"shuffle_buffer": 0, "min_document_tokens": 0, "sample": 1, "take": 1, "max_document_tokens": 1}
    problems = [
        f"--{name.replace('_', '-')} {getattr(settings, name)}: expected {least} or more"
        for name, least in at_least.items()
        if getattr(settings, name) is not None and getattr(settings, name) < least
    ]
    if not -(2**63) <= settings.seed < 2**63:
        problems.append(f"--seed {settings.seed}: expected a number of 64 bits")
    if not 1 <= settings.shard <= settings.shards:
        problems.append(
            f"--shard {settings.shard}/{settings.shards}: expected K/N with K from 1 to N, such as 1/8 for the first "
            "of eight parts"
        )
    if settings.near_duplicates is not None and not 0.3 <= settings.near_duplicates <= 0.99:
        problems.append(f"--drop-near-duplicates {settings.near_duplicates}: expected a similarity from 0.3 to 0.99")
    if not 0.5 <= settings.language_certainty < 1:
        problems.append(f"--language-certainty {settings.language_certainty}: expected 0.5 or more, and less than 1")
    if not 0 <= settings.smallest_half < 0.5:
        problems.append(f"--smallest-half {settings.smallest_half}: expected a share from 0 to less than 0.5")
    return problems


def _combination_problems(settings: DocumentSettings) -> list[str]:
    problems = []
    if settings.max_document_tokens is not None and settings.max_document_tokens < settings.min_document_tokens:
        problems.append(
            f"--max-document-tokens {settings.max_document_tokens} is less than --min-document-tokens "
            f"{settings.min_document_tokens}: no document fits"
        )
    if settings.sample is not None and settings.take is not None:
        problems.append("--sample draws from all documents, --take stops at the first ones: give one of them")
    if settings.halve_at == "token" and settings.halve_tokenizer is None:
        problems.append("--halve-at token needs --halve-tokenizer FOLDER-OR-NAME")
    if settings.halve_at != "token" and settings.halve_tokenizer is not None:
        problems.append(f"--halve-tokenizer goes with --halve-at token, not with {settings.halve_at}")
    if "-" in settings.inputs and settings.input_format not in ("jsonl", "txt"):
        problems.append("- (standard input) needs --input-format jsonl or txt")
    for name in ("length_tokenizer", "halve_tokenizer"):
        value = getattr(settings, name)
        if value not in (None, "words") and Path(value).is_dir() and not (Path(value) / "tokenizer.json").is_file():
            problems.append(f"--{name.replace('_', '-')} {value}: the folder has no tokenizer.json")
    return problems
