import io
import tarfile
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_plugin.data.archives import copy_members, segments, untagged_lines
from plugin_common.errors import UserError
from tests.loopback_corpora import pack

MEMBERS = {"data/a.en": b"one\n" * 5000, "./data/a.de": b"eins\n", "other": b"nothing"}
WANTED = ("data/a.en", "data/a.de", "data/absent")


@pytest.fixture(params=["x.tgz", "x.zip"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    pack(path, MEMBERS)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    return folder


def test_wanted_members_are_copied_and_absent_ones_left_out(archive, folder):
    found = copy_members(archive, WANTED, folder)
    assert {name: path.read_bytes() for name, path in found.items()} == {
        "data/a.en": MEMBERS["data/a.en"],
        "data/a.de": b"eins\n",
    }
    assert len(list(folder.iterdir())) == 2


def test_plain_tar_is_read_too(tmp_path, folder):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("data/a.en")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert copy_members(tmp_path / "x.tar", WANTED, folder)["data/a.en"].read_bytes() == b"abc"


@pytest.mark.parametrize("keep", [0, 1, 30, -40, -9, -1])
def test_truncated_archive(archive, folder, keep):
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"x\.(tgz|zip): damaged or incomplete archive.*remove it.*--mirror"):
        copy_members(archive, WANTED, folder)


def test_flipped_byte_is_noticed_by_the_crc(archive, folder):
    """Also where it leaves the structure intact: the CRC at the very end of the gzip file is compared."""
    content = bytearray(archive.read_bytes())
    content[-6 if archive.suffix == ".tgz" else content.index(b"data/a.en") + 14] ^= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged or incomplete archive"):
        copy_members(archive, WANTED, folder)


def test_archive_that_is_no_archive(tmp_path, folder):
    (tmp_path / "x.tgz").write_text("<html>Not found</html>" * 100)
    with pytest.raises(UserError, match="damaged or incomplete archive"):
        copy_members(tmp_path / "x.tgz", WANTED, folder)


def test_nothing_is_written_where_an_archive_points(tmp_path, folder):
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        for name in ("../escaped", "/tmp/escaped", "data/a.en"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
    found = copy_members(tmp_path / "x.tgz", [*WANTED, "../escaped", "/tmp/escaped"], folder)
    assert {path.parent for path in found.values()} == {folder}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copies", "x.tgz"]


def test_member_that_is_a_link_is_refused(tmp_path, folder):
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("data/a.en")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match=r"member data/a\.en is no regular file"):
        copy_members(tmp_path / "x.tgz", WANTED, folder)


def test_segments_of_sgml_and_xml():
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<mteval>\n<refset setid="x">\n<doc docid="1">\n<title>None</title>\n'
        '<hl>\n<seg id="1"> A &amp; B </seg>\n</hl>\n<p>\n<SEG id=2>two\nlines</SEG><seg id="3"></seg>\n'
        '<seg id="4">&lt;seg&gt; &amp;lt; &#228; &quot;</seg >\n</p></doc>'
    )
    assert segments(text) == ["A & B", "two lines", "", '<seg> &lt; ä "']


def test_segment_without_end():
    with pytest.raises(UserError, match="2 <seg> begin and 1 end"):
        segments('<seg id="1">a</seg>\n<seg id="2">b\n')


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="<>&"))))
def test_segments_come_back_one_line_each(texts):
    text = "".join(f'<seg id="{number}">{one}</seg>\n' for number, one in enumerate(texts))
    assert segments(text) == [" ".join(one.split()) for one in texts]


def test_tagged_transcripts():
    lines = [
        '<doc docid="1" genre="lectures">',
        "<url>http://talks.invalid/1</url>",
        "<keywords>talks, words</keywords>",
        "<speaker>Somebody</speaker>",
        "<talkid>1</talkid>",
        "<title>Somebody: On words</title>",
        "<description>TED Talk: Words < deeds?</description>",
        '<reviewer href="x"></reviewer>',
        " I < you & 5 > 4. ",
        "",
        "</doc>",
    ]
    dropped = Counter()
    kept = list(untagged_lines(lines, dropped))
    assert kept == ["Somebody: On words", "TED Talk: Words < deeds?", "I < you & 5 > 4.", ""]
    tags = ["doc", "url", "keywords", "speaker", "talkid", "reviewer", "end tags"]
    assert dropped == Counter(dict.fromkeys(tags, 1))
