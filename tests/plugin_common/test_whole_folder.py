"""A folder appears complete or not at all."""

from pathlib import Path

import pytest

from plugin_common.whole_folder import whole_folder


def test_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with whole_folder(target) as made:
        (made / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.mkdir()
    (target / "old").write_text("old")
    with whole_folder(target) as made:
        (made / "file").write_text("new")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["file"]


def test_an_error_leaves_all_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), whole_folder(target) as made:
        (made / "file").write_text("new")
        raise RuntimeError("stop")
    assert (target / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
