import os
import signal
import stat
from pathlib import Path

import pytest

from plugin_common.atomic_file import atomic_output, clean_up_when_terminated
from plugin_common.errors import UserError


def test_the_file_appears_at_the_end_with_usual_rights(tmp_path):
    path = tmp_path / "out"
    with atomic_output(str(path)) as stream:
        stream.write(b"text")
        assert not path.exists()
    assert path.read_bytes() == b"text"
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_output(str(path)) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_sigterm_cleans_up_too(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, clean_up_when_terminated(), atomic_output(f"{tmp_path}/out"):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert caught.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_output(f"{tmp_path}/link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_devices_are_written_directly_and_standard_output_stays_open(capfdbinary):
    with atomic_output("/dev/null") as stream:
        stream.write(b"x")
    assert Path("/dev/null").is_char_device()
    with atomic_output("-") as stream:
        stream.write(b"shown")
    assert capfdbinary.readouterr().out == b"shown"


def test_unwritable_place(tmp_path):
    with (
        pytest.raises(UserError, match=r"none/out: cannot be written \(No such file or directory\)"),
        atomic_output(f"{tmp_path}/none/out"),
    ):
        pass


def test_full_disk():
    with (
        pytest.raises(UserError, match=r"/dev/full: cannot be written \(No space left on device\)"),
        atomic_output("/dev/full") as stream,
    ):
        stream.write(b"x")
