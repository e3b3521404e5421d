"""The script on small packages made here (no network)."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from scripts.data import debian_text
from tests.scripts.test_debian_l10n import make_deb, repository  # noqa: F401  (a fixture)

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg")

MAN = ".TH A 1\n.SH BESCHREIBUNG\nDas ist die Anleitung.\n.PP\nDiese Seite ist geheim.\n"
PAGE = "<page><p>{}</p><p>{}</p></page>"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder with one package in three languages and one that is broken."""
    folder = tmp_path / "cache"
    folder.mkdir()
    files = {
        "usr/share/man/de/man1/a.1.gz": gzip.compress(MAN.encode()),
        "usr/share/help/C/app/a.page": PAGE.format("This is the first page.", "Wireless Network Applet").encode(),
        "usr/share/help/de/app/a.page": PAGE.format("Das ist die erste Seite.", "Wireless Network Applet").encode(),
        "usr/share/help/ro/app/a.page": PAGE.format("Aceasta este prima pagină.", "This is the first page.").encode(),
        "usr/share/doc/app/copyright": b"Licence of app\n",
    }
    make_deb(folder, "app", files)
    (folder / "broken_1.0-1_all.deb").write_bytes(b"no package")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpora" / "en-de"
    folder.mkdir(parents=True)
    sides = {"train": ("Open", "Öffnen"), "valid": ("Secret", "Diese seite ist geheim"), "test": ("A", "B")}
    for side, texts in sides.items():
        for language, text in zip(("en", "de"), texts, strict=True):
            (folder / f"{side}.{language}").write_text(f"{text}\n", encoding="utf-8")
    return folder


def run(tmp_path: Path, cache: Path, *options: str) -> int:
    fixed = [
        "--cache",
        str(cache),
        "--no-download",
        "--out",
        str(tmp_path / "out"),
        "--packages",
        "app",
        "broken",
        "no",
    ]
    return debian_text.main([*fixed, *options])


def test_from_packages_to_text_and_report(
    tmp_path: Path, cache: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, cache, "--corpora", str(corpus)) == 0
    out = tmp_path / "out"
    texts = {code: (out / f"{code}.txt").read_text("utf-8").splitlines() for code in ("en", "de", "ro")}
    assert texts == {
        "en": ["Open", "This is the first page.", "Wireless Network Applet"],
        "de": ["Öffnen", "Das ist die erste Seite.", "Das ist die Anleitung."],
        "ro": ["Aceasta este prima pagină."],
    }
    assert (out / "COPYRIGHT").read_text("utf-8") == "==== app ====\nLicence of app\n"
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["problems"]["broken"] == ["broken"] and report["problems"]["not_downloaded"] == ["no"]
    german = report["languages"]["de"]
    assert (german["lines"], german["words"], german["documents"]) == (3, 10, 2)
    assert german["sources"]["app"] == {
        "lines": 2, "words": 9, "dropped": {"in a validation or test side": 1, "same as an English line": 1},
    }  # fmt: skip
    assert "de: 3 lines, 10 words; 2 lines dropped" in capsys.readouterr().out


def test_the_same_bytes_again_and_only_over_its_own_files(
    tmp_path: Path, cache: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--corpora", str(corpus), "--max-lines", "2", "--seed", "5"]
    assert run(tmp_path, cache, *options) == 0
    out = tmp_path / "out"
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(first["de.txt"].splitlines()) == 2
    assert run(tmp_path, cache, *options) == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert run(tmp_path, cache, *options, "--overwrite") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert run(tmp_path, cache, "--languages", "ro", "--overwrite") == 0
    assert sorted(path.name for path in out.iterdir()) == ["COPYRIGHT", "report.json", "ro.txt"]
    (out / "mine.txt").touch()
    assert run(tmp_path, cache, "--overwrite") == 1
    assert "holds mine.txt, not made here" in capsys.readouterr().err


def test_corpora_alone_need_no_package(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    assert debian_text.main(["--corpora-only", "--corpora", str(corpus), "--out", str(out)]) == 0
    assert (out / "de.txt").read_text("utf-8") == "Öffnen\n"


def test_wrong_options_are_named_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--languages", "fr", "--corpora", str(tmp_path), "--max-lines", "0", "--out", str(tmp_path / "out")]
    assert debian_text.main(wrong) == 1
    message = capsys.readouterr().err
    assert "3 problems" in message and "--languages fr" in message and "--max-lines 0" in message
    assert "no train.*, valid.*, test.* there" in message
    assert debian_text.main(["--corpora-only", "--out", str(tmp_path / "out")]) == 1
    assert "--corpora-only needs --corpora" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
def test_packages_come_from_apt(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    options = ["--packages", "plain", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert debian_text.main(options) == 0
    assert "packages without text: 1 (plain)" in capsys.readouterr().out


def test_the_list_of_packages_is_sorted_and_has_no_doubles() -> None:
    path = debian_text.HERE / "debian_text_packages.txt"
    listed = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert debian_text.read_names([str(path)]) == listed
