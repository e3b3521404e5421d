import hashlib
import json
from pathlib import Path

import pytest

from nat_plugin.cli import main
from nat_plugin.data.literature import clean_corpus
from nat_plugin.data.literature_corpora import DATASETS
from tests.loopback_corpora import (
    SUMS,
    download_words,
    make_archives,
    manifest,
    pack,
    running_server,
    serve,
    write_sums,
)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_data_set_from_a_mirror_to_clean_text_and_scores(served, tmp_path, dataset, capsys):
    for pair in (DATASETS[dataset].languages, DATASETS[dataset].languages[::-1]):
        output = tmp_path / "-".join(pair)
        with serve(served / dataset) as url:
            assert main(download_words(served, output, url, dataset, pair)) == 0
        found = manifest(output)
        for name, file in found["files"].items():
            content = (output / name).read_bytes()
            assert content.count(b"\n") == file["lines"] and hashlib.sha256(content).hexdigest() == file["sha256"]
        for archive in found["archives"]:
            content = (output / "archives" / archive["name"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (archive["bytes"], archive["sha256"])
            assert archive["checked_against"] == "--checksums"
        assert f"{output}/train.{pair[0]}: 90 lines" in capsys.readouterr().err
        report = clean_corpus(dataset, *pair, output, tmp_path / "clean")
        assert report.lines["test"] == 10 and report.lines["valid"] > 0 and report.lines["train"] > 50


def test_second_run_asks_for_nothing_and_changes_nothing(served, tmp_path, capsys):
    with running_server(served / "iwslt14") as server:
        assert main(download_words(served, tmp_path / "out", server.url)) == 0
        before, asked = snapshot(tmp_path / "out"), len(server.requests)
        assert main(download_words(served, tmp_path / "out", server.url)) == 0
        assert len(server.requests) == asked
    assert snapshot(tmp_path / "out") == before
    assert "complete already, nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["remove", "alter", "unfinished"])
def test_damaged_output_is_made_again_from_the_archives(served, tmp_path, damage):
    output = tmp_path / "out"
    with running_server(served / "iwslt14") as server:
        assert main(download_words(served, output, server.url)) == 0
        before = snapshot(output)
        if damage == "remove":
            (output / "train.de").unlink()
        elif damage == "alter":
            (output / "test.en").write_text("something else\n")
        else:
            (output / "manifest.json").write_text(json.dumps({**manifest(output), "complete": False}))
        assert main(download_words(served, output, server.url)) == 0
        assert len(server.requests) == 1
    assert snapshot(output) == before


def test_folder_as_mirror_is_used_in_place_and_left_alone(served, tmp_path):
    before = sorted(path.name for path in (served / "wmt16").iterdir())
    assert main(download_words(served, tmp_path / "out", served / "wmt16", "wmt16", ("ro", "en"))) == 0
    assert sorted(path.name for path in (served / "wmt16").iterdir()) == before
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {*manifest(tmp_path / "out")["files"], "manifest.json"}


def test_archives_are_shared_between_directions(served, tmp_path):
    with running_server(served / "iwslt14") as server:
        for pair in (("de", "en"), ("en", "de")):
            words = download_words(served, tmp_path / "-".join(pair), server.url, pair=pair)
            assert main([*words, "--archives", str(tmp_path / "archives")]) == 0
        assert len(server.requests) == 1
    assert (tmp_path / "de-en" / "train.de").read_bytes() == (tmp_path / "en-de" / "train.de").read_bytes()


def test_published_checksum_refuses_other_archives(served, tmp_path, capsys):
    words = download_words(served, tmp_path / "out", served / "wmt14", "wmt14", ("en", "de"), sums=False)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "5 problems:" in error
    assert "expected 0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7 (published, tensorflow" in error
    assert "expected a8cd784e006feb32ac6f3d9ec7eb389a (published, sacreBLEU" in error
    assert not (tmp_path / "out" / "train.en").exists()


def test_archive_without_published_checksum_is_checked_by_its_line_counts(served, tmp_path, capsys):
    assert main(download_words(served, tmp_path / "out", served / "iwslt14", sums=False)) == 1
    assert "ted-train has 90 sentences, 174,443 are known of it; the archive is altered" in capsys.readouterr().err


def test_archive_without_published_checksum_is_held_to_its_first_download(served, tmp_path, capsys, monkeypatch):
    """Line counts of a made archive are not the known ones, so they are made known here."""
    dataset = DATASETS["iwslt14"]
    for part in dataset.parts:
        monkeypatch.setitem(part.__dict__, "lines", 90 if part.split == "train" else 2)
    mirror = tmp_path / "mirror"
    make_archives(mirror, "iwslt14")
    output, archives = tmp_path / "out", tmp_path / "archives"
    with serve(mirror) as url:
        words = [*download_words(served, output, url, sums=False), "--archives", str(archives)]
        assert main(words) == 0
        recorded = manifest(output)["archives"][0]["sha256"]
        assert (archives / "de-en.tgz.sha256").read_text() == f"{recorded}  de-en.tgz\n"
        assert manifest(output)["archives"][0]["checked_against"] == "nothing published; known line counts"
        # Altered beside its record.
        content = (archives / "de-en.tgz").read_bytes()
        (archives / "de-en.tgz").write_bytes(content + b"\0")
        (output / "train.de").unlink()
        assert main(words) == 1
        assert f"expected {recorded} (recorded in {output}/manifest.json)" in capsys.readouterr().err
        assert main([*download_words(served, tmp_path / "new", url, sums=False), "--archives", str(archives)]) == 1
        assert f"expected {recorded} (recorded in {archives}/de-en.tgz.sha256)" in capsys.readouterr().err
        # Altered at its source, downloaded anew into the same output.
        (archives / "de-en.tgz").unlink()
        (mirror / "de-en.tgz").write_bytes(content + b"\0")
        assert main(words) == 1
        assert "set aside as" in capsys.readouterr().err
        (mirror / "de-en.tgz").write_bytes(content)
        assert main(words) == 0


def without_setimes(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sums of all archives of WMT16 but the one whose sum nobody publishes; its known number of lines is that of 45."""
    setimes = next(part for part in DATASETS["wmt16"].parts if part.name == "setimes2")
    monkeypatch.setitem(setimes.__dict__, "lines", 45)
    make_archives(mirror, "wmt16")
    lines = (mirror / SUMS).read_text().splitlines(keepends=True)
    (mirror / SUMS).write_text("".join(line for line in lines if "en-ro.txt.zip" not in line))
    return mirror / SUMS


def setimes_of(lines: int) -> dict[str, bytes]:
    return {f"SETIMES.en-ro.{language}": b"other text\n" * lines for language in ("en", "ro")}


def test_recorded_sum_is_demanded_when_the_archive_is_gone(served, tmp_path, capsys, monkeypatch):
    mirror, archives = tmp_path / "mirror", tmp_path / "archives"
    sums = without_setimes(mirror, monkeypatch)
    content = (mirror / "en-ro.txt.zip").read_bytes()
    archive, record = archives / "en-ro.txt.zip", archives / "en-ro.txt.zip.sha256"

    def command(output: str, source: str | Path) -> list[str]:
        words = download_words(served, tmp_path / output, source, "wmt16", ("en", "ro"), sums=False)
        return [*words, "--checksums", str(sums), "--archives", str(archives)]

    with serve(mirror) as url:
        assert main(command("one", url)) == 0
        recorded = record.read_text()
        assert recorded == f"{hashlib.sha256(content).hexdigest()}  en-ro.txt.zip\n"
        assert [path.name for path in archives.glob("*.sha256")] == [record.name]  # of --checksums nothing is recorded
        archive.unlink()
        pack(mirror / "en-ro.txt.zip", setimes_of(45))
        assert main(command("two", url)) == 1
        error = capsys.readouterr().err
        assert f"expected {recorded.split()[0]} (recorded in {record})" in error and "set aside as" in error
        assert record.read_text() == recorded
        assert not archive.exists() and not (tmp_path / "two" / "train.en").exists()
        (mirror / "en-ro.txt.zip").write_bytes(content)
        assert main(command("two", url)) == 0
    assert record.read_text() == recorded
    # Archives that were downloaded once, taken as a mirror.
    pack(archive, setimes_of(45))
    assert main(command("three", archives)) == 1
    assert f"(recorded in {record})" in capsys.readouterr().err
    record.write_text("nonsense\n")
    assert main(command("three", archives)) == 1
    assert f"{record}: expected the SHA-256 of en-ro.txt.zip" in capsys.readouterr().err


def test_nothing_is_recorded_of_an_archive_that_turned_out_wrong(served, tmp_path, capsys, monkeypatch):
    mirror, output = tmp_path / "mirror", tmp_path / "out"
    sums = without_setimes(mirror, monkeypatch)
    content = (mirror / "en-ro.txt.zip").read_bytes()
    pack(mirror / "en-ro.txt.zip", setimes_of(44))
    with serve(mirror) as url:
        words = [*download_words(served, output, url, "wmt16", ("en", "ro"), sums=False), "--checksums", str(sums)]
        assert main(words) == 1
        assert "setimes2 has 44 sentences, 45 are known of it" in capsys.readouterr().err
        assert not list((output / "archives").glob("*.sha256"))
        (output / "archives" / "en-ro.txt.zip").unlink()
        (mirror / "en-ro.txt.zip").write_bytes(content)
        assert main(words) == 0
    assert hashlib.sha256(content).hexdigest() in (output / "archives" / "en-ro.txt.zip.sha256").read_text()


@pytest.mark.parametrize("dataset", DATASETS)
def test_folder_made_with_other_sums_is_not_taken_for_the_published_one(served, tmp_path, capsys, dataset):
    output, pair = tmp_path / "out", DATASETS[dataset].languages
    assert main(download_words(served, output, served / dataset, dataset, pair)) == 0
    before = snapshot(output)
    assert main(download_words(served, output, served / dataset, dataset, pair, sums=False)) == 1
    names = ", ".join(archive.name for archive in DATASETS[dataset].archives)
    error = capsys.readouterr().err
    assert f"was made with archives of other sums, given by --checksums: {names}. Give the same" in error
    assert snapshot(output) == before
    assert main(download_words(served, output, served / dataset, dataset, pair)) == 0
    assert "complete already" in capsys.readouterr().err


def test_sums_that_were_given_may_be_left_out_if_the_line_counts_are_the_known_ones(
    served, tmp_path, capsys, monkeypatch
):
    for part in DATASETS["iwslt14"].parts:
        monkeypatch.setitem(part.__dict__, "lines", 90 if part.split == "train" else 2)
    assert main(download_words(served, tmp_path / "out", served / "iwslt14")) == 0
    assert main(download_words(served, tmp_path / "out", served / "iwslt14", sums=False)) == 0
    assert "complete already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "key"), [("archives", "checked_against"), ("archives", "md5"), ("parts", "changes"), ("files", "bytes")]
)
def test_manifest_that_lacks_something(served, tmp_path, capsys, section, key):
    output = tmp_path / "out"
    assert main(download_words(served, output, served / "iwslt14")) == 0
    content = manifest(output)
    entries = content[section].values() if section == "files" else content[section]
    for entry in entries:
        del entry[key]
    (output / "manifest.json").write_text(json.dumps(content))
    for sums in (True, False):
        assert main(download_words(served, output, served / "iwslt14", sums=sums)) == 1
        assert f"manifest.json: not a manifest of nat download (KeyError('{key}'))" in capsys.readouterr().err
    del content[section]
    (output / "manifest.json").write_text(json.dumps(content))
    assert main(download_words(served, output, served / "iwslt14")) == 1
    assert f"not a manifest of nat download (KeyError('{section}'))" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e12", "-1"])
def test_timeout_that_no_clock_takes(served, tmp_path, capsys, seconds):
    words = download_words(served, tmp_path / "out", served / "iwslt14")
    assert main([*words, "--timeout", seconds]) == 1
    assert "expected more than 0 and at most 86,400 seconds" in capsys.readouterr().err


def test_mirror_that_is_no_address_is_not_tried_again(served, tmp_path, capsys):
    assert main(download_words(served, tmp_path / "out", "http://[bad/")) == 1
    error = capsys.readouterr().err
    assert "http://[bad/de-en.tgz: not an address to download from" in error and "trying again" not in error


def test_wrong_mirror_names_every_archive(served, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with serve(tmp_path / "empty") as url:
        assert main(download_words(served, tmp_path / "out", url, "wmt16", ("en", "ro"))) == 1
        error = capsys.readouterr().err
        for archive in DATASETS["wmt16"].archives:
            assert f"{url}/{archive.name}: HTTP status 404" in error
    assert main(download_words(served, tmp_path / "out", tmp_path / "empty", "wmt16", ("en", "ro"))) == 1
    assert f"{tmp_path}/empty/test.tgz: no such file; --mirror" in capsys.readouterr().err


def test_truncated_archive(served, tmp_path, capsys):
    """Cut where the mirror's own sum is of the cut file, so only the archive's structure can tell."""
    mirror = tmp_path / "mirror"
    make_archives(mirror, "iwslt14")
    content = (mirror / "de-en.tgz").read_bytes()
    (mirror / "de-en.tgz").write_bytes(content[: len(content) // 2])
    write_sums(mirror)
    words = download_words(served, tmp_path / "out", mirror, sums=False)
    assert main([*words, "--checksums", str(mirror / SUMS)]) == 1
    assert "de-en.tgz: damaged or incomplete archive" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_member_and_unequal_sides_leave_no_output(served, tmp_path, capsys):
    mirror = tmp_path / "mirror"
    make_archives(mirror, "wmt16")
    for members, message in (
        ({"SETIMES.en-ro.en": b"one\n"}, "lacks the member SETIMES.en-ro.ro"),
        ({"SETIMES.en-ro.en": b"one\n", "SETIMES.en-ro.ro": b"unu\ndoi\n"}, "SETIMES.en-ro.ro has 2"),
    ):
        pack(mirror / "en-ro.txt.zip", members)
        words = download_words(served, tmp_path / "out", mirror, "wmt16", ("en", "ro"), sums=False)
        assert main([*words, "--checksums", str(write_sums(mirror))]) == 1
        assert message in capsys.readouterr().err
        assert list((tmp_path / "out").iterdir()) == []


def test_unsupported_pair(served, tmp_path, capsys):
    assert main(download_words(served, tmp_path / "out", "x", "wmt14", ("en", "ro"))) == 1
    assert "wmt14: has no pair en-ro" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(download_words(served, tmp_path / "out", "x", "wmt15"))
    assert not (tmp_path / "out").exists()


def test_output_of_another_data_set_or_of_somebody_else(served, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(download_words(served, output, served / "iwslt14")) == 0
    before = snapshot(output)
    assert main(download_words(served, output, served / "wmt16", "wmt16", ("en", "ro"))) == 1
    assert "holds iwslt14 de-en, not wmt16 en-ro; give another --output" in capsys.readouterr().err
    assert main(download_words(served, output, served / "iwslt14", pair=("en", "de"))) == 1
    assert "holds iwslt14 de-en, not iwslt14 en-de" in capsys.readouterr().err
    (output / "manifest.json").unlink()
    assert main(download_words(served, output, served / "iwslt14")) == 1
    assert "is not empty (test.de, test.en, train.de, …) and has no manifest.json" in capsys.readouterr().err
    before.pop("manifest.json")
    assert snapshot(output) == before
    (output / "manifest.json").write_text("[]")
    assert main(download_words(served, output, served / "iwslt14")) == 1
    assert "not a manifest of nat download" in capsys.readouterr().err


def test_checksum_files(served, tmp_path, capsys):
    words = download_words(served, tmp_path / "out", served / "iwslt14", sums=False)
    sums = tmp_path / "sums"
    for content, message in (
        ("abc  de-en.tgz\n", f"{sums}, line 1: expected 64 hexadecimal digits and a file name"),
        ("0" * 64 + "  other.tgz\n", "names none of this data set's archives (de-en.tgz)"),
        ("0" * 64 + " *folder/de-en.tgz\n", f"expected {'0' * 64} (--checksums)"),
    ):
        sums.write_text(content)
        assert main([*words, "--checksums", str(sums)]) == 1
        assert message in capsys.readouterr().err
    assert main([*words, "--checksums", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_wrong_numbers_are_told_together(served, tmp_path, capsys):
    words = [*download_words(served, tmp_path / "out", "x"), "--retries", "-1", "--timeout", "0"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "--retries -1" in error and "--timeout 0.0" in error
