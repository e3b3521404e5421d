"""The script on small wheels made here; pip is asked for nothing."""

import zipfile
from pathlib import Path

import pytest

from nat_plugin.data.splitting import Leaks, find_leaks
from scripts.data import quickstart_corpus
from tests.nat_plugin.data.test_catalogues import ROMANIAN, mo

BSD = """Copyright (c) 2020, Somebody and contributors.
All rights reserved.

Redistribution and use in source and binary
forms, with or without modification, are permitted.
"""
MIT = """The MIT License (MIT)

Copyright (c) 2021 Nobody

Permission is hereby granted, free of charge, to any person obtaining a copy.
"""
LETTERS = "bcdfghjklmnpqrstvwxz"
WORDS = [first + vowel + last for first in LETTERS for vowel in "aeiou" for last in LETTERS]


def make_wheel(
    folder: Path, name: str, catalogues: dict[str, bytes], *, licence: str | None = BSD, metadata: str = ""
) -> Path:
    """A wheel with nothing but catalogues, metadata and a licence."""
    path = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}\n")
        if licence is not None:
            archive.writestr(f"{info}/licenses/LICENSE.txt", licence)
        for member, content in catalogues.items():
            archive.writestr(member, content)
    return path


def entries(start: int, stop: int) -> dict[bytes, bytes]:
    """Two-word sources of which no two share a word, with translations."""
    pairs = {}
    for number in range(start, stop):
        one, two = WORDS[2 * number], WORDS[2 * number + 1]
        pairs[f"_{one} <b>{two}</b> %s".encode()] = f"_{one}ßen {two}ă %s".encode()
    return pairs


def catalogues(start: int, stop: int) -> dict[str, bytes]:
    content = entries(start, stop)
    return {
        "pkg/locale/de/LC_MESSAGES/django.mo": mo(content),
        "pkg/locale/ro/LC_MESSAGES/django.mo": mo(content, plurals=ROMANIAN),
    }


def run(tmp_path: Path, out: str, pins: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(quickstart_corpus, "HELD_OUT", {"de": 3, "ro": 2})
    packages = tmp_path / "packages.txt"
    packages.write_text(pins, encoding="utf-8")
    options = ["--packages", str(packages), "--cache", str(tmp_path), "--out", str(tmp_path / out), "--no-download"]
    return quickstart_corpus.main(options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_writes_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(tmp_path, "first-app", catalogues(0, 30))
    make_wheel(tmp_path, "second-app", catalogues(20, 50), licence=MIT)
    pins = "second-app==1.0 --hash=sha256:0\n# a comment\nfirst-app==1.0 --hash=sha256:0\n"
    assert run(tmp_path, "a", pins, monkeypatch) == 0
    assert run(tmp_path, "b", pins, monkeypatch) == 0
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    sides = {
        side: list(zip(*(files[f"en-de/{side}.{code}"].decode().splitlines() for code in ("en", "de")), strict=True))
        for side in ("train", "valid", "test")
    }
    assert {side: len(pairs) for side, pairs in sides.items()} == {"train": 44, "valid": 3, "test": 3}
    assert find_leaks(sides) == Leaks(0, 0, 0)
    assert ("bab bac {}", "babßen bacă {}") in [pair for pairs in sides.values() for pair in pairs]
    assert files["LICENSES/first-app.txt"].decode() == BSD
    assert files["LICENSES/second-app.txt"].decode() == MIT
    notice = files["NOTICE"].decode()
    assert "first-app 1.0\n  licence: BSD (LICENSES/first-app.txt)\n  Copyright (c) 2020, Somebody" in notice
    assert (
        "second-app 1.0\n  licence: MIT (LICENSES/second-app.txt)\n  Copyright (c) 2021 Nobody\n  pairs: 20 en-de"
        in notice
    )


@pytest.mark.parametrize(
    ("licence", "metadata", "message"),
    [
        (None, "", "no licence file in it"),
        ("Do what you like", "", "its licence is neither BSD nor MIT"),
        (MIT, "License-Expression: AGPL-3.0-only", "its licence is neither BSD nor MIT"),
        (BSD, "Classifier: License :: OSI Approved :: GNU General Public License v2 (GPLv2)", "neither BSD nor MIT"),
    ],
)
def test_refuses_other_licences(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    licence: str | None,
    metadata: str,
    message: str,
) -> None:
    make_wheel(tmp_path, "app", catalogues(0, 30), licence=licence, metadata=metadata)
    assert run(tmp_path, "a", "app==1.0\n", monkeypatch) == 1
    error = capsys.readouterr().err
    assert "app-1.0-py3-none-any.whl" in error
    assert message in error


def test_names_every_wheel_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "a", "app==1.0\nother_app==2.1\n", monkeypatch) == 1
    error = capsys.readouterr().err
    assert "no wheel of app==1.0" in error
    assert "no wheel of other-app==2.1" in error


def test_a_damaged_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make_wheel(tmp_path, "app", {}).write_bytes(b"PK cut")
    assert run(tmp_path, "a", "app==1.0\n", monkeypatch) == 1
    assert "not a wheel; remove it and run again" in capsys.readouterr().err


def test_a_missing_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart_corpus.main(["--packages", str(tmp_path / "none.txt")]) == 1
    assert "none.txt: no such file" in capsys.readouterr().err


def test_the_shipped_notice_and_licences_match_the_pinned_packages() -> None:
    data = quickstart_corpus.ROOT / "examples" / "quickstart" / "data"
    pins = (quickstart_corpus.HERE / "quickstart_packages.txt").read_text("utf-8").splitlines()
    pinned = {tuple(pin.split()[0].split("==")) for pin in pins if not pin.startswith("#")}
    blocks = (data / "NOTICE").read_text("utf-8").strip().split("\n\n")[1:]
    named = set()
    for block in blocks:
        name, version = block.splitlines()[0].split()
        named.add((name.lower(), version))
        text = (data / "LICENSES" / f"{name}.txt").read_text("utf-8")
        assert any(permission in " ".join(text.split()) for permission in quickstart_corpus._PERMISSIONS.values()), name
        assert "Copyright" in block, name
    assert named == pinned
    assert len(list((data / "LICENSES").iterdir())) == len(named)
