"""The script with the real apt and dpkg, on a repository of small packages made here (no network)."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from nat_plugin.data.splitting import Leaks, find_leaks
from scripts.data import debian_l10n
from tests.nat_plugin.data.test_catalogues import mo
from tests.scripts.test_quickstart_corpus import entries

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("apt-get", "apt-cache", "dpkg-deb")), reason="needs apt and dpkg"
)
FEW = ["--valid-size", "2", "--test-size", "2"]


def make_deb(folder: Path, name: str, files: Mapping[str, bytes], version: str = "1.0-1") -> Path:
    """A package with these files, built by dpkg-deb itself."""
    tree = folder / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: test\n"
    )
    (tree / "DEBIAN" / "control").write_text(control, encoding="utf-8")
    for member, content in files.items():
        path = tree / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    deb = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", str(tree), str(deb)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(tree)
    return deb


def catalogues(start: int, stop: int, *languages: str) -> dict[str, bytes]:
    content = mo(entries(start, stop))
    return {f"usr/share/locale/{language}/LC_MESSAGES/app.mo": content for language in languages}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that apt takes for its only source, filled with two packages (one with an epoch) and read by apt."""
    folder = tmp_path / "repository"
    folder.mkdir()
    make_deb(folder, "app-data", catalogues(0, 40, "de", "ro"), version="2:1.5-3")
    make_deb(folder, "tool", catalogues(40, 60, "de_DE"))
    make_deb(folder, "plain", {"usr/share/doc/plain/readme": b"nothing"})
    stanzas = []
    for deb in sorted(folder.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True).stdout
        checksum, size = hashlib.sha256(deb.read_bytes()).hexdigest(), deb.stat().st_size
        name = deb.name.replace(
            "2%3a", ""
        )  # archives leave the epoch out of the file's name; "apt-get download" adds it
        deb.rename(folder / name)
        stanzas.append(f"{control}Filename: ./{name}\nSize: {size}\nSHA256: {checksum}\n")
    (folder / "Packages").write_text("\n".join(stanzas), encoding="utf-8")
    state = tmp_path / "apt"
    for part in ("lists/partial", "cache/archives/partial", "etc/sources.list.d", "etc/preferences.d"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    (state / "etc" / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n", encoding="utf-8")
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc": state / "etc",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
    }
    configuration = tmp_path / "apt.conf"
    configuration.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()), encoding="utf-8")
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
    return folder


def run(tmp_path: Path, *options: str, sizes: list[str] = FEW) -> int:
    fixed = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), *sizes]
    return debian_l10n.main([*options, *fixed])


def test_from_apt_to_corpora_and_report(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names.txt"
    names.write_text("app-data  tool # two\nplain\nnosuch\n", encoding="utf-8")
    assert run(tmp_path, "--packages", str(names), "app-data") == 0
    out = tmp_path / "out"
    sides = {}
    for side in ("train", "valid", "test"):
        columns = ((out / "en-de" / f"{side}.{code}").read_text("utf-8").splitlines() for code in ("en", "de"))
        sides[side] = list(zip(*columns, strict=True))
    assert {side: len(pairs) for side, pairs in sides.items()} == {"train": 56, "valid": 2, "test": 2}
    assert find_leaks(sides) == Leaks(0, 0, 0)
    assert len((out / "en-ro" / "train.ro").read_text("utf-8").splitlines()) == 36
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["problems"]["unknown"] == ["nosuch"]
    assert report["problems"]["without_catalogues"] == ["plain"]
    assert report["en-de"]["packages"]["tool"]["kept"] == 20
    assert "| app-data | 40 | 40 |" in (out / "report.md").read_text("utf-8")
    assert "packages unknown: 1 (nosuch)" in capsys.readouterr().out

    # A second run fetches nothing: the archive's files may be gone. A damaged file is noticed.
    first = (out / "en-de" / "train.en").read_bytes()
    for deb in repository.glob("*.deb"):
        deb.unlink()
    assert run(tmp_path, "--packages", str(names), "--overwrite") == 0
    assert (out / "en-de" / "train.en").read_bytes() == first
    (tmp_path / "cache" / "tool_1.0-1_all.deb").write_bytes(b"cut")
    assert run(tmp_path, "--packages", str(names), "--overwrite") == 0
    assert "packages not downloaded: 1 (tool)" in capsys.readouterr().out


def test_nothing_can_be_downloaded(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for deb in repository.glob("*.deb"):
        deb.unlink()
    assert run(tmp_path, "--packages", "app-data", "tool") == 1
    assert "could not download any of the 2 packages; check the network" in capsys.readouterr().err


def test_no_name_is_known(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--packages", "nosuch", "neither") == 1
    assert "apt knows none of the 2 packages: run 'apt-get update' first" in capsys.readouterr().err


def test_broken_packages_and_catalogues_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    broken_mo = {"usr/share/locale/de/LC_MESSAGES/broken.mo": b"\xde\x12\x04\x95 cut"}
    make_deb(cache, "good", catalogues(0, 30, "de") | broken_mo)
    whole = make_deb(cache, "cut", catalogues(30, 60, "de")).read_bytes()
    (cache / "cut_1.0-1_all.deb").write_bytes(whole[: len(whole) // 2])
    (cache / "noise_1.0-1_all.deb").write_bytes(os.urandom(2000))
    assert run(tmp_path, "--no-download", "--pairs", "en-de", "--packages", "good", "cut", "noise", "absent") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["problems"]["broken"] == ["cut", "noise"]
    assert report["problems"]["not_downloaded"] == ["absent"]
    assert report["en-de"]["packages"]["good"]["unreadable"] == ["./usr/share/locale/de/LC_MESSAGES/broken.mo"]
    assert report["en-de"]["total"]["kept"] == 30
    assert "broken.mo" in caplog.text
    assert "cut_1.0-1_all.deb" in caplog.text
    assert "packages broken: 2 (cut, noise)" in capsys.readouterr().out


def test_all_packages_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "noise_1_all.deb").write_bytes(b"noise")
    assert run(tmp_path, "--no-download", "--packages", "noise") == 1
    assert "none of the 1 packages could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--packages", "lists/none.txt"], "--packages lists/none.txt: no such file"),
        (["--packages", "Bad_Name"], "not names of Debian packages: Bad_Name"),
        (["--packages", "tool", "--pairs", "de-en"], "--pairs 'de-en': expected en-XX"),
        (["--packages", "tool", "--no-download"], "none of the 1 packages lies there; run without --no-download"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert run(tmp_path, *options) == 1
    assert message in capsys.readouterr().err


def test_more_held_out_than_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").mkdir()
    make_deb(tmp_path / "cache", "good", catalogues(0, 10, "de"))
    options = ["--no-download", "--pairs", "en-de", "--packages", "good"]
    assert run(tmp_path, *options, sizes=["--valid-size", "50", "--test-size", "2"]) == 1
    assert "cannot hold out 50 + 2 of 10 pairs" in capsys.readouterr().err


def test_no_apt(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(tmp_path, "--packages", "tool") == 1
    assert "dpkg-deb, apt-get, apt-cache not found: this script needs Debian" in capsys.readouterr().err


def test_padding_after_the_archive_is_no_damage(tmp_path: Path) -> None:
    """More of it than a pipe holds: dpkg-deb must not find the pipe closed."""
    deb = make_deb(tmp_path, "padded", catalogues(0, 3, "de"))
    parts = tmp_path / "parts"
    parts.mkdir()
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True).stdout
    (parts / "data.tar").write_bytes(data + bytes(1 << 20))
    control = subprocess.run(["dpkg-deb", "--ctrl-tarfile", str(deb)], check=True, capture_output=True).stdout
    (parts / "control.tar").write_bytes(control)
    (parts / "debian-binary").write_text("2.0\n", encoding="utf-8")
    archive = b"!<arch>\n"
    for name in ("debian-binary", "control.tar", "data.tar"):
        content = (parts / name).read_bytes()
        archive += (
            f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    deb.write_bytes(archive)
    assert len(debian_l10n.package_catalogues(deb, ["de"])["de"]) == 1


def test_a_filled_folder_is_replaced_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").mkdir()
    make_deb(tmp_path / "cache", "app", catalogues(0, 40, "de", "ro"))
    options = ["--no-download", "--packages", "app"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine", encoding="utf-8")
    assert run(tmp_path, *options) == 1
    assert "is not empty: name another folder, or give --overwrite" in capsys.readouterr().err
    assert run(tmp_path, *options, "--overwrite") == 1
    assert "holds no report.json" in capsys.readouterr().err
    (out / "thesis.tex").unlink()
    assert run(tmp_path, *options) == 0
    assert (out / "en-ro").is_dir()
    assert run(tmp_path, *options, "--pairs", "en-de", "--overwrite") == 0
    assert sorted(path.name for path in out.iterdir()) == ["en-de", "report.json", "report.md"]


def test_the_default_list_names_each_package_once() -> None:
    path = debian_l10n.HERE / "debian_l10n_packages.txt"
    listed = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert debian_l10n.read_names([str(path)]) == sorted(listed)
    assert len(listed) >= 140
