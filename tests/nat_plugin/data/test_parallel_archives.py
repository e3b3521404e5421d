import logging
from pathlib import Path

import pytest

from nat_plugin.data.literature_corpora import DATASETS
from nat_plugin.data.parallel_archives import write_splits
from plugin_common.errors import UserError
from tests.loopback_corpora import make_archives, pack, read_sentences

ALL = [(name, *pair) for name in DATASETS for pair in (DATASETS[name].languages, DATASETS[name].languages[::-1])]
TALKS = "de-en/train.tags.de-en.{}"
SETS = [f"de-en/IWSLT14.{name}.de-en.{{}}.xml" for name in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010")]
SETS += [f"de-en/IWSLT14.{name}.de-en.{{}}.xml" for name in ("TED.tst2011", "TED.tst2012")]


def write(folder: Path, name: str, source: str, target: str, strict=frozenset()):
    output = folder / "output"
    output.mkdir(exist_ok=True)
    archives = {archive.name: folder / archive.name for archive in DATASETS[name].archives}
    return write_splits(DATASETS[name], source, target, archives, output, set(strict)), output


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def iwslt(folder: Path, **changes: bytes) -> None:
    """An IWSLT14 archive of two training lines, and one in each test set; ``changes`` by language."""
    members = {}
    for language in ("de", "en"):
        members[TALKS.format(language)] = b"<url>x</url>\none\ntwo\n"
        members |= {name.format(language): b'<seg id="1">test</seg>\n' for name in SETS}
    for language, content in changes.items():
        members[TALKS.format(language)] = content
    pack(folder / "de-en.tgz", members)


@pytest.mark.parametrize(("name", "source", "target"), ALL)
def test_pairs_come_out_aligned_in_both_directions(tmp_path, name, source, target):
    make_archives(tmp_path, name)
    _, output = write(tmp_path, name, source, target)
    other = target if source == "en" else source
    known = set(zip(read_sentences(other, source), read_sentences(other, target), strict=True))
    sizes = {"train": 90, "test": 10} | ({"valid": 9} if name != "iwslt14" else {})
    assert {path.name for path in output.iterdir()} == {
        f"{split}.{lang}" for split in sizes for lang in (source, target)
    }
    for split, size in sizes.items():
        sources, targets = lines(output / f"{split}.{source}"), lines(output / f"{split}.{target}")
        assert len(sources) == len(targets) == size
        assert set(zip(sources, targets, strict=True)) <= known


def test_report_says_what_was_left_out(tmp_path):
    iwslt(tmp_path, de=b"\xef\xbb\xbf<url>x</url>\r\n<talkid>1</talkid>\neins\x0b\n<title>zwei</title>\n")
    reports, output = write(tmp_path, "iwslt14", "de", "en")
    assert lines(output / "train.de") == ["eins", "zwei"]
    assert reports[0].changes["de"] == {
        "url lines left out": 1,
        "talkid lines left out": 1,
        "carriage returns at line ends removed": 1,
        "control characters replaced by spaces": 1,
        "byte order marks removed": 1,
    }
    assert reports[0].members["en"] == "de-en/train.tags.de-en.en"


def test_line_ends_of_other_kinds_make_no_line(tmp_path):
    iwslt(tmp_path, de="a\u2028b\u0085c\rd\x0ce\nz\u2029\n".encode())
    _, output = write(tmp_path, "iwslt14", "de", "en")
    content = (output / "train.de").read_text(encoding="utf-8")
    assert content.splitlines() == content.split("\n")[:-1] == ["a b c d e", "z"]


def test_sides_of_different_length(tmp_path):
    iwslt(tmp_path, de=b"one\ntwo\nthree\n")
    message = r"de-en\.tgz: ted-train: .*differ.*train\.tags\.de-en\.de has 3, de-en/train\.tags\.de-en\.en has 2"
    with pytest.raises(UserError, match=message):
        write(tmp_path, "iwslt14", "de", "en")


def test_invalid_utf8_names_archive_member_and_line(tmp_path):
    iwslt(tmp_path, de=b"eins\nzw\xe4i\n")
    with pytest.raises(UserError, match=r"de-en\.tgz, member de-en/train\.tags\.de-en\.de: line 2, .*not valid UTF-8"):
        write(tmp_path, "iwslt14", "de", "en")


def test_missing_members_of_all_archives_are_listed_at_once(tmp_path):
    make_archives(tmp_path, "wmt16")
    pack(tmp_path / "en-ro.txt.zip", {"SETIMES.en-ro.en": b"one\n"})
    pack(tmp_path / "dev.tgz", {"dev/README": b""})
    with pytest.raises(UserError) as error:
        write(tmp_path, "wmt16", "en", "ro")
    message = str(error.value)
    assert message.startswith("3 problems:")
    assert "en-ro.txt.zip: lacks the member SETIMES.en-ro.ro (setimes2)" in message
    assert "lacks the member dev/newsdev2016-enro-src.en.sgm or dev/newsdev2016-roen-ref.en.sgm" in message


def test_set_of_the_other_direction_is_taken_where_one_is_missing(tmp_path):
    make_archives(tmp_path, "wmt16")
    members = {
        f"dev/newsdev2016-roen-{role}.{language}.sgm": f'<seg id="1">{language}</seg>'.encode()
        for role, language in (("src", "ro"), ("ref", "en"))
    }
    pack(tmp_path / "dev.tgz", members)
    _, output = write(tmp_path, "wmt16", "en", "ro")
    assert (lines(output / "valid.en"), lines(output / "valid.ro")) == (["en"], ["ro"])


def test_empty_part_is_refused(tmp_path):
    iwslt(tmp_path, de=b"<url>x</url>\n", en=b"<url>x</url>\n")
    with pytest.raises(UserError, match=r"ted-train .*holds no sentence"):
        write(tmp_path, "iwslt14", "de", "en")


def test_known_line_counts_are_enforced_only_where_asked(tmp_path, caplog):
    iwslt(tmp_path)
    with caplog.at_level(logging.WARNING):
        write(tmp_path, "iwslt14", "de", "en")
    assert "ted-train has 2 sentences, 174,443 are known of it" in caplog.text
    with pytest.raises(UserError, match=r"ted-train has 2 sentences, 174,443 .*altered or incomplete.*--checksums"):
        write(tmp_path, "iwslt14", "de", "en", {"de-en.tgz"})
