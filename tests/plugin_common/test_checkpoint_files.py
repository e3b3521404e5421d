import os
import pickle
import random
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plugin_common.checkpoint_files import (
    allow_scalar_globals,
    check_and_load,
    check_checkpoint_file,
    copy_atomically,
)
from plugin_common.errors import UserError


def state() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "model": {"weight": torch.randn(20, 30), "bias": torch.randn(20)},
        "extra_state": {"val_loss": 2.5, "epoch": 3, "best": [1, 2]},
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(state(), tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    return type(a) is type(b) and a == b


class RunsOnLoading:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_good_file_loads(checkpoint: Path) -> None:
    assert same(check_and_load(checkpoint), state())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.unlink(), r"no such checkpoint; check the path, `ls .*` shows what is there"),
        (lambda path: (path.unlink(), path.mkdir()), r"is a folder, expected a checkpoint file such as"),
        (lambda path: path.write_bytes(b""), r"the checkpoint is empty \(0 bytes\): writing it was cut off; copy it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"truncated or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), r"truncated or damaged"),
        (lambda path: path.write_bytes(b"hello, this is no checkpoint"), r"not a checkpoint that torch can read"),
        (lambda path: path.write_bytes(os.urandom(5000)), r"not a checkpoint that torch can read"),
        (lambda path: torch.save([1, 2], path), r"holds a list, not a checkpoint \(expected a dict with 'model'\)"),
    ],
    ids=["missing", "folder", "empty", "a byte short", "half", "text", "noise", "list"],
)
def test_bad_files_are_refused_by_name(checkpoint: Path, make: Any, message: str) -> None:
    make(checkpoint)
    with pytest.raises(UserError, match=message) as caught:
        check_and_load(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert "weights_only" not in str(caught.value), "no advice to run what a stranger wrote"


def test_a_flipped_bit_in_a_tensor_is_found_though_torch_loads_it(checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    place = data.index(state()["model"]["weight"].numpy().tobytes()) + 1000
    data[place] ^= 1
    checkpoint.write_bytes(data)
    loaded = torch.load(checkpoint, weights_only=True)
    assert not same(loaded, state()), "torch loads it, altered and without a word"
    with pytest.raises(UserError, match=r"damaged: the checksum of .*/data/.* does not match"):
        check_and_load(checkpoint)


def test_no_flipped_byte_changes_what_is_loaded(checkpoint: Path) -> None:
    """Wherever it stands: the file is refused, or the byte had no meaning."""
    data = checkpoint.read_bytes()
    generator = random.Random(1)
    refused = 0
    # All of the archive's directory, and a sample of the rest.
    directory = range(data.rindex(b"PK\x01\x02") - 600, len(data))
    for place in [*directory, *generator.sample(range(len(data)), 300)]:
        altered = bytearray(data)
        altered[place] ^= 1 << generator.randrange(8)
        checkpoint.write_bytes(altered)
        try:
            assert same(check_and_load(checkpoint), state()), f"byte {place} changed what was loaded"
        except UserError:
            refused += 1
    assert refused > 300


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "the code has run"
    torch.save({"model": {}, "trap": RunsOnLoading(trap)}, tmp_path / "evil.pt")
    with pytest.raises(
        UserError, match=r"evil.pt: the checkpoint holds pickled code \(posix.mkdir\) and was not loaded"
    ):
        check_and_load(tmp_path / "evil.pt")
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_bare_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "the code has run"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"model": RunsOnLoading(trap)}, protocol=protocol))
    with pytest.raises(UserError, match=r"evil.pt: "):
        check_and_load(tmp_path / "evil.pt")
    assert not trap.exists()


def test_code_in_the_older_format_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "the code has run"
    torch.save({"model": RunsOnLoading(trap)}, tmp_path / "evil.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"holds pickled code"):
        check_and_load(tmp_path / "evil.pt")
    assert not trap.exists()


def test_the_older_format_loads_and_is_refused_when_truncated(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    assert same(check_and_load(path), state())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"old.pt: not a checkpoint that torch can read"):
        check_and_load(path)


def test_namespaces_and_numpy_scalars_load_only_once_they_are_allowed(tmp_path: Path) -> None:
    stored = {
        "cfg": Namespace(arch="x", lr=[0.1]),
        "bleu": np.float64(31.5),
        "counts": np.array([3, 2, 1, 0], dtype=np.int64),
        "others": [np.float32(0.5), np.float16(2), np.int32(7), np.bool_(True)],
    }
    torch.save(stored, tmp_path / "numpy.pt")
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match=r"Unsupported global"):
            torch.load(tmp_path / "numpy.pt", weights_only=True)
    finally:
        torch.serialization.add_safe_globals(before)
    allow_scalar_globals()
    allow_scalar_globals()
    loaded = torch.load(tmp_path / "numpy.pt", weights_only=True)
    assert loaded["cfg"] == stored["cfg"]
    assert loaded["bleu"] == 31.5
    assert loaded["counts"].tolist() == [3, 2, 1, 0]
    assert loaded["others"] == stored["others"]


def test_checking_does_not_load(checkpoint: Path) -> None:
    check_checkpoint_file(checkpoint)


def test_copy_replaces_the_whole_file_or_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = checkpoint.with_name("checkpoint_last.pt")
    target.write_bytes(b"the one before")

    def dies_halfway(source: Path, destination: Path) -> None:
        Path(destination).write_bytes(Path(source).read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", dies_halfway)
        copy_atomically(checkpoint, target)
    assert target.read_bytes() == b"the one before"
    copy_atomically(checkpoint, target)
    assert target.read_bytes() == checkpoint.read_bytes()
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint.pt", "checkpoint_last.pt"]
