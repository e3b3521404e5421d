"""Which archives the literature's three benchmarks come from, and what stands where in them. Facts only, no code.

Sizes and checksums come from two places, named with each archive: ``TFDS``, the tables of tensorflow-datasets 4.9.10
(``url_checksums/wmt14_translate.txt`` and ``wmt16_translate.txt``), and ``SACREBLEU``, the MD5 sums in sacreBLEU 2.6's
list of test sets. Two archives have no published checksum (IWSLT14's and SETIMES2): their known line counts check them
instead, and the SHA-256 of the first download is recorded and checked from then on.
"""

from dataclasses import dataclass
from typing import Literal

from plugin_common.errors import UserError

Format = Literal["lines", "segments", "tagged"]
SPLITS = ("train", "valid", "test")
TFDS = "tensorflow-datasets 4.9.10"
SACREBLEU = "sacreBLEU 2.6"


@dataclass(frozen=True)
class Archive:
    """An archive as its publisher offers it.

    Attributes:
        name: file name, under which a mirror has it too.
        url: where it is published.
        size: in bytes; None if not known.
        sha256, md5: hexadecimal; None if not published.
        origin: where size and checksum were read.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    origin: str = ""

    @property
    def has_checksum(self) -> bool:
        return self.sha256 is not None or self.md5 is not None


@dataclass(frozen=True)
class Part:
    """One parallel text of a split: two members of an archive.

    Attributes:
        name: as it is known ("europarl-v7").
        split: what it belongs to; the parts of a split follow each other in the order given.
        archive: name of the archive.
        members: names to look for, the first one found counts. ``{lang}`` is the side's language, ``{role}`` is ``src``
            on the source side and ``ref`` on the target side, ``{counter_role}`` the other one, ``{source}`` and
            ``{target}`` are the direction's languages.
        format: ``lines`` (one sentence a line), ``segments`` (SGML or XML with ``<seg>``), ``tagged`` (lines of text
            between lines of tags, IWSLT's).
        lines: sentences in it; None if not known.
    """

    name: str
    split: str
    archive: str
    members: tuple[str, ...]
    format: Format
    lines: int | None = None

    def candidates(self, source: str, target: str, lang: str) -> list[str]:
        """The names under which the side ``lang`` of the direction ``source``-``target`` may stand in the archive."""
        role, counter_role = ("src", "ref") if lang == source else ("ref", "src")
        names = {"lang": lang, "source": source, "target": target, "role": role, "counter_role": counter_role}
        return [member.format(**names) for member in self.members]


@dataclass(frozen=True)
class Dataset:
    """A benchmark: its two languages (either may be the source), its archives and parts."""

    name: str
    languages: tuple[str, str]
    archives: tuple[Archive, ...]
    parts: tuple[Part, ...]

    def archive(self, name: str) -> Archive:
        """The archive called ``name``."""
        return next(archive for archive in self.archives if archive.name == name)


# WMT19's development archive holds all earlier sets: one file, whose SHA-256 is published, serves WMT14 and WMT16.
_WMT_DEV = Archive(
    "dev.tgz",
    "https://data.statmt.org/wmt19/translation-task/dev.tgz",
    38654961,
    sha256="7a7deccf82ebb05ba508dba5eb21356492224e8f630ec4f992132b029b4b25e7",
    origin=TFDS,
)

# News Commentary is version 9, WMT14's own: 4.5 million pairs in all, the figure that papers on WMT14 give.
_WMT14 = Dataset(
    "wmt14",
    ("en", "de"),
    (
        Archive(
            "training-parallel-europarl-v7.tgz",
            "https://www.statmt.org/wmt13/training-parallel-europarl-v7.tgz",
            657632379,
            sha256="0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7",
            origin=TFDS,
        ),
        Archive(
            "training-parallel-commoncrawl.tgz",
            "https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz",
            918311367,
            sha256="c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5",
            origin=TFDS,
        ),
        Archive(
            "training-parallel-nc-v9.tgz",
            "https://www.statmt.org/wmt14/training-parallel-nc-v9.tgz",
            80418416,
            sha256="cb8953f292298e6877ae433c98912b927cb0766b303f4540512ddd286c748485",
            origin=TFDS,
        ),
        _WMT_DEV,
        Archive(
            "test-full.tgz",
            "https://www.statmt.org/wmt14/test-full.tgz",
            md5="a8cd784e006feb32ac6f3d9ec7eb389a",
            origin=SACREBLEU,
        ),
    ),
    (
        Part(
            "europarl-v7",
            "train",
            "training-parallel-europarl-v7.tgz",
            ("training/europarl-v7.de-en.{lang}",),
            "lines",
            1920209,
        ),
        Part(
            "commoncrawl",
            "train",
            "training-parallel-commoncrawl.tgz",
            ("commoncrawl.de-en.{lang}",),
            "lines",
            2399123,
        ),
        Part(
            "news-commentary-v9",
            "train",
            "training-parallel-nc-v9.tgz",
            ("training/news-commentary-v9.de-en.{lang}",),
            "lines",
        ),
        Part("newstest2013", "valid", "dev.tgz", ("dev/newstest2013.{lang}",), "lines", 3000),
        Part(
            "newstest2014",
            "test",
            "test-full.tgz",
            ("test-full/newstest2014-deen-{role}.{lang}.sgm",),
            "segments",
            3003,
        ),
    ),
)

_WMT16 = Dataset(
    "wmt16",
    ("en", "ro"),
    (
        Archive(
            "training-parallel-ep-v8.tgz",
            "https://data.statmt.org/wmt16/translation-task/training-parallel-ep-v8.tgz",
            225018324,
            sha256="8917bd3bef3bc894c8519ca1f8a4c7c330aad08a1263655a9d99ee13d532e3c7",
            origin=TFDS,
        ),
        Archive("en-ro.txt.zip", "https://object.pouta.csc.fi/OPUS-SETIMES/v2/moses/en-ro.txt.zip"),
        _WMT_DEV,
        Archive(
            "test.tgz",
            "https://data.statmt.org/wmt16/translation-task/test.tgz",
            md5="3d809cd0c2c86adb2c67034d15c4e446",
            origin=SACREBLEU,
        ),
    ),
    (
        Part(
            "europarl-v8",
            "train",
            "training-parallel-ep-v8.tgz",
            ("training-parallel-ep-v8/europarl-v8.ro-en.{lang}",),
            "lines",
            399375,
        ),
        Part("setimes2", "train", "en-ro.txt.zip", ("SETIMES.en-ro.{lang}",), "lines", 213047),
        Part(
            "newsdev2016",
            "valid",
            "dev.tgz",
            (
                "dev/newsdev2016-{source}{target}-{role}.{lang}.sgm",
                "dev/newsdev2016-{target}{source}-{counter_role}.{lang}.sgm",
            ),
            "segments",
            1999,
        ),
        Part(
            "newstest2016",
            "test",
            "test.tgz",
            ("test/newstest2016-{source}{target}-{role}.{lang}.sgm",),
            "segments",
            1999,
        ),
    ),
)

_IWSLT14 = Dataset(
    "iwslt14",
    ("de", "en"),
    (Archive("de-en.tgz", "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz"),),
    (
        Part("ted-train", "train", "de-en.tgz", ("de-en/train.tags.de-en.{lang}",), "tagged", 174443),
        *(
            Part(name, "test", "de-en.tgz", (f"de-en/IWSLT14.{name}.de-en.{{lang}}.xml",), "segments", lines)
            for name, lines in {
                "TED.dev2010": 887,
                "TEDX.dev2012": 1165,
                "TED.tst2010": 1565,
                "TED.tst2011": 1433,
                "TED.tst2012": 1700,
            }.items()
        ),
    ),
)

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (_WMT14, _WMT16, _IWSLT14)}


def dataset_for(name: str, source: str, target: str) -> Dataset:
    """The benchmark ``name``, checked to have the direction ``source`` → ``target``.

    Raises:
        UserError: no such benchmark, or it has other languages; lists what there is.
    """
    known = ", ".join(f"{one.name} ({'-'.join(one.languages)}, both directions)" for one in DATASETS.values())
    if name not in DATASETS:
        raise UserError(f"{name}: no such data set; expected one of {known}")
    dataset = DATASETS[name]
    if {source, target} != set(dataset.languages) or source == target:
        raise UserError(
            f"{name}: has no pair {source}-{target} (--source-lang {source} --target-lang {target}); there are {known}"
        )
    return dataset
