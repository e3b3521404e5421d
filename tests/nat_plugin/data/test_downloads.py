import hashlib
import threading
import time
from pathlib import Path

import pytest

from nat_plugin.data import downloads
from nat_plugin.data.downloads import Patience, download
from nat_plugin.data.file_checks import Expected
from plugin_common.errors import UserError
from tests.loopback_corpora import running_server

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Expected(len(CONTENT), SHA256, hashlib.md5(CONTENT).hexdigest(), "published somewhere")
QUICK = Patience(retries=3, timeout=5.0, first_pause=0.01)


@pytest.fixture
def store(tmp_path):
    """A folder on the server with one file, and the place to download it to."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.tgz").write_bytes(CONTENT)
    (tmp_path / "here").mkdir()
    return tmp_path / "served", tmp_path / "here" / "a.tgz"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fetch(server, target, expected=KNOWN, patience=QUICK):
    pauses = []
    digest = download(f"{server.url}/some/folder/a.tgz", target, expected, patience, pauses.append)
    return digest, pauses


def test_whole_file_arrives_under_its_name_and_nothing_else_is_left(store):
    served, target = store
    with running_server(served) as server:
        digest, pauses = fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert (digest.size, digest.sha256) == (len(CONTENT), SHA256)
    assert names(target.parent) == ["a.tgz"]
    assert pauses == []


def test_file_that_is_there_is_checked_and_not_asked_for_again(store):
    served, target = store
    target.write_bytes(CONTENT)
    with running_server(served) as server:
        fetch(server, target)
    assert server.requests == []


def test_altered_file_that_is_there_is_refused_and_kept(store):
    served, target = store
    target.write_bytes(CONTENT[:-1] + b"x")
    with running_server(served) as server, pytest.raises(UserError, match=r"a\.tgz: altered or incomplete") as error:
        fetch(server, target)
    assert SHA256 in str(error.value) and "published somewhere" in str(error.value)
    assert target.exists()


@pytest.mark.parametrize("drops", [[100_000], [100_000, 50_000, 0]])
def test_dropped_connections_are_continued_where_they_broke(store, drops):
    served, target = store
    with running_server(served, drop_after=list(drops)) as server:
        _, pauses = fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert len(pauses) == len(drops)
    asked = [ranges for _, ranges in server.requests]
    assert asked[0] == "" and asked[1] == "bytes=100000-"
    assert asked[-1] == f"bytes={sum(drops)}-"


def test_connection_dropped_without_a_length_is_noticed_by_size(store):
    """Without Content-Length the end of the connection looks like the end of the file."""
    served, target = store
    with (
        running_server(served, lengths=False, drop_after=[1000]) as server,
        pytest.raises(UserError, match="bytes 1000"),
    ):
        fetch(server, target)
    with running_server(served, lengths=False) as server:
        fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_interrupted_download_is_resumed_by_the_next_run(store):
    served, target = store
    with running_server(served, drop_after=[200_000, 0, 0, 0, 0]) as server:
        with pytest.raises(UserError, match=r"200,000 bytes are kept in .*continued next time.*--mirror"):
            fetch(server, target)
        assert names(target.parent) == ["a.tgz.part", "a.tgz.part.json"]
        fetch(server, target)
        assert server.requests[-1] == ("/some/folder/a.tgz", "bytes=200000-")
    assert target.read_bytes() == CONTENT


def test_server_without_ranges_starts_over(store):
    served, target = store
    with running_server(served, ranges=False, drop_after=[100_000, 150_000]) as server:
        fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_server_that_always_drops_at_the_same_place_is_given_up(store):
    served, target = store
    with (
        running_server(served, ranges=False, drop_after=[1000] * 99) as server,
        pytest.raises(UserError, match="4 times in a row"),
    ):
        fetch(server, target)
    assert len(server.requests) == 4  # one that brought something new, three that did not


def test_file_that_changed_meanwhile_is_taken_anew_not_mixed(store):
    served, target = store
    unknown = Expected()
    with running_server(served, drop_after=[200_000, 0, 0, 0, 0]) as server:
        with pytest.raises(UserError):
            fetch(server, target, unknown)
        (served / "a.tgz").write_bytes(CONTENT[::-1])
        fetch(server, target, unknown)
    assert target.read_bytes() == CONTENT[::-1]


def test_unknown_file_without_validator_is_never_continued(store):
    served, target = store
    with running_server(served, validators=False, drop_after=[200_000]) as server:
        fetch(server, target, Expected())
    assert [ranges for _, ranges in server.requests] == ["", ""]
    assert target.read_bytes() == CONTENT


def test_part_of_another_version_is_thrown_away_when_the_checksum_shows_it(store):
    served, target = store
    target.with_name("a.tgz.part").write_bytes(b"x" * 1000)
    with running_server(served) as server:
        fetch(server, target)
    assert [ranges for _, ranges in server.requests] == ["bytes=1000-", ""]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("surplus", [b"", b"xyz"])
def test_part_that_is_complete_or_too_long(store, surplus):
    served, target = store
    target.with_name("a.tgz.part").write_bytes(CONTENT + surplus)
    with running_server(served) as server:
        fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_altered_archive_is_set_aside_and_the_error_says_expected_and_got(store):
    served, target = store
    altered = CONTENT[:-1] + b"x"
    (served / "a.tgz").write_bytes(altered)
    with running_server(served) as server, pytest.raises(UserError) as error:
        fetch(server, target)
    message = str(error.value)
    assert f"{server.url}/some/folder/a.tgz" in message
    assert f"SHA-256 {hashlib.sha256(altered).hexdigest()}, expected {SHA256}" in message
    assert "--mirror" in message and "--checksums" in message
    assert names(target.parent) == ["a.tgz.altered"]


def test_file_of_another_length_is_refused_before_it_is_downloaded(store):
    served, target = store
    (served / "a.tgz").write_bytes(CONTENT + b"more")
    with running_server(served) as server, pytest.raises(UserError, match="512,004 bytes long, expected 512,000"):
        fetch(server, target)
    assert names(target.parent) == []


def test_missing_file_is_not_tried_again(store):
    served, target = store
    (served / "a.tgz").unlink()
    with running_server(served) as server, pytest.raises(UserError, match=r"a\.tgz: HTTP status 404.*--mirror"):
        fetch(server, target)
    assert len(server.requests) == 1
    assert names(target.parent) == []


def test_busy_server_is_tried_again(store):
    served, target = store
    with running_server(served, statuses=[503, 429, 500]) as server:
        _, pauses = fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert len(pauses) == 3
    assert 0.01 <= pauses[0] < pauses[2] <= 0.06  # doubled, with up to a half added


def test_silent_server_is_left_and_the_rest_asked_for_again(store):
    served, target = store
    with running_server(served, stall_after=[300_000]) as server:
        fetch(server, target, patience=Patience(retries=2, timeout=0.2, first_pause=0.01))
        server.go_on.set()
    assert target.read_bytes() == CONTENT
    assert [ranges for _, ranges in server.requests] == ["", "bytes=300000-"]


@pytest.mark.parametrize(
    "url", ["nonsense", "gopher://a.invalid/a.tgz", "http://", "http://[bad/", "http://a b/", "http://a:99999/"]
)
def test_address_that_is_none(store, url):
    with pytest.raises(UserError, match="not an address to download from"):
        download(url, store[1], KNOWN, QUICK, lambda seconds: None)


def test_unreachable_server_is_named_after_the_last_attempt(store):
    with running_server(store[0]) as server:
        url = server.url
    with pytest.raises(UserError, match=rf"{url}/a\.tgz: ConnectError.*4 times in a row"):
        download(f"{url}/a.tgz", store[1], KNOWN, QUICK, lambda seconds: None)


def test_full_disk_is_told_before_and_while_writing(store, monkeypatch):
    served, target = store

    class Usage:
        free = 1000

    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: Usage)
    with (
        running_server(served) as server,
        pytest.raises(UserError, match=r"1,000 bytes free, 512,000 needed.*--archives"),
    ):
        fetch(server, target)
    monkeypatch.undo()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "_write", full)
    with (
        running_server(served) as server,
        pytest.raises(UserError, match=r"cannot be written \(No space left on device"),
    ):
        fetch(server, target)


def test_two_downloads_at_once_bring_one_file(store):
    served, target = store
    problems = []

    def run(server):
        try:
            download(f"{server.url}/a.tgz", target, KNOWN, QUICK, time.sleep)
        except Exception as error:  # shown by the assertion below
            problems.append(error)

    with running_server(served) as server:
        threads = [threading.Thread(target=run, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert names(target.parent) == ["a.tgz"]


def test_who_lets_go_touches_no_file_of_another(tmp_path):
    """Between a look at the path and a look at the file another process may have renamed or removed it."""
    part = tmp_path / "a.part"
    with downloads._locked(part) as stream:
        assert downloads._is_at(part, stream)
        part.replace(tmp_path / "a")
        assert not downloads._is_at(part, stream)
        part.touch()  # another process begins
        assert not downloads._is_at(part, stream)
    assert names(tmp_path) == ["a", "a.part"]
