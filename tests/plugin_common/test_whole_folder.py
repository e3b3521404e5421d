"""A folder counts as made only when it is complete."""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from plugin_common.errors import UserError
from plugin_common.whole_folder import whole_folder

MARKER = "marker"


def make(path: Path | str, replaces: Callable[[Path], Iterable[str]] | None = None) -> AbstractContextManager[Path]:
    return whole_folder(path, marker=MARKER, replaces=replaces)


def fill(folder: Path, text: str = "new") -> None:
    for name in (MARKER, "a", "z"):
        (folder / name).write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with make(target) as made:
        fill(made)
        assert not target.exists()
    assert names(target) == ["a", MARKER, "z"] and names(target.parent) == ["b"]


def test_an_empty_folder_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "b"
    target.mkdir(mode=0o750)
    before = target.stat()
    link = tmp_path / "link"
    link.symlink_to("b")
    with make(link) as made:
        fill(made)
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)
    assert link.is_symlink() and names(target) == ["a", MARKER, "z"]
    other = tmp_path / "here"
    other.mkdir()
    monkeypatch.chdir(other)
    with make(".") as made:
        fill(made)
    assert names(Path.cwd()) == ["a", MARKER, "z"]


def test_replaces_what_it_may_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.mkdir()
    fill(target, "old")
    (target / "stale").write_text("old")
    (target / "theirs").mkdir()
    with make(target, lambda folder: [MARKER, "a", "stale"]) as made:
        fill(made)
        assert (target / "a").read_text() == "old"
    assert names(target) == ["a", MARKER, "theirs", "z"]
    assert {(target / name).read_text() for name in ("a", MARKER, "z")} == {"new"}


def test_the_marker_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "b"
    target.mkdir()
    fill(target, "old")
    replace = Path.replace

    def fails_at_z(self: Path, other: Path) -> Path:
        if self.name == "z":
            raise KeyboardInterrupt
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", fails_at_z)
    with pytest.raises(KeyboardInterrupt), make(target, lambda folder: [MARKER, "a"]) as made:
        fill(made)
    assert MARKER not in names(target) and names(target) == ["a", "z"]


def test_an_error_leaves_all_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.mkdir()
    fill(target, "old")
    with pytest.raises(RuntimeError, match="stop"), make(target, lambda folder: [MARKER]) as made:
        fill(made)
        raise RuntimeError("stop")
    assert {path.read_text() for path in target.iterdir()} == {"old"}
    with pytest.raises(RuntimeError, match="stop"), make(tmp_path / "c") as made:
        raise RuntimeError("stop")
    assert names(tmp_path) == ["b"]


def test_what_appears_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "b"
    with pytest.raises(UserError, match="in the meantime"), make(target) as made:
        fill(made)
        target.mkdir()
        (target / "mine").write_text("precious")
    assert names(target) == ["mine"]
    (target / "mine").unlink()
    with pytest.raises(UserError, match="in the meantime"), make(target) as made:
        fill(made)
        (target / "mine").write_text("precious")
    assert names(target) == ["mine"] and names(tmp_path) == ["b"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), make(tmp_path / "file" / "b"):
        pass


def test_a_terminated_process_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), make(tmp_path / "b") as made:
        fill(made)
        os.kill(os.getpid(), signal.SIGTERM)
    assert names(tmp_path) == []
