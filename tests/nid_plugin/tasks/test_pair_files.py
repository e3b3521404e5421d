"""Which files make up a split."""

from pathlib import Path

import pytest

from nid_plugin.tasks.pair_files import WeightedFile, files_of_split, numbered_splits, parse_files
from plugin_common.errors import UserError


def test_files_have_weights(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.jsonl", "b@3.jsonl", "c.jsonl")]
    for name in names:
        name.touch()
    text = f"{names[0]}, {names[1]},{names[2]}@2.5"
    assert parse_files(text, "--train-pairs") == [
        WeightedFile(names[0]), WeightedFile(names[1]), WeightedFile(names[2], 2.5)
    ]  # fmt: skip


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UserError) as caught:
        parse_files(f"{tmp_path}/a.jsonl@0,{tmp_path}/a.jsonl@x,{tmp_path}/b.jsonl@inf", "--train-pairs")
    assert str(caught.value).count("expected a weight above 0") == 3
    assert "no such file" in str(caught.value)
    with pytest.raises(UserError, match="expected files of pairs"):
        parse_files(" , ", "--train-pairs")


def test_the_files_of_a_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        files_of_split(str(tmp_path / "none"), "train")
    with pytest.raises(UserError, match=r"has no train.jsonl .* --train-pairs"):
        files_of_split(str(tmp_path), "train")
    with pytest.raises(UserError, match="--disable-validation"):
        files_of_split(str(tmp_path), "valid")
    (tmp_path / "train.jsonl.zst").touch()
    assert files_of_split(str(tmp_path), "train") == [WeightedFile(tmp_path / "train.jsonl.zst")]
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(UserError, match=r"holds train.jsonl and train.jsonl.zst; keep one"):
        files_of_split(str(tmp_path), "train")


def test_numbered_splits(tmp_path: Path) -> None:
    for name in ("valid.jsonl", "valid10.jsonl.gz", "valid2.jsonl", "validation.jsonl", "valid3.txt", "train1.jsonl"):
        (tmp_path / name).touch()
    assert numbered_splits(str(tmp_path), "valid") == ["valid", "valid2", "valid10"]
    assert numbered_splits(str(tmp_path), "test") == ["test"]


def test_validation_takes_no_weights(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert parse_files(f"{tmp_path}/a.jsonl", "--valid-pairs", weighted=False) == [WeightedFile(tmp_path / "a.jsonl")]
    with pytest.raises(UserError, match=r"--valid-pairs .*a.jsonl@2: takes no weights; give the file without @2"):
        parse_files(f"{tmp_path}/a.jsonl@2", "--valid-pairs", weighted=False)
