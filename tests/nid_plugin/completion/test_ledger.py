"""The ledger keeps every result, once, whatever happened to the run before."""

import fcntl
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.completion.durable_file import DurableFile
from nid_plugin.completion.ledger import Ledger, open_ledger, read_ledger, read_settings
from nid_plugin.completion.results import Failure, Result, result_from, to_line
from plugin_common.errors import UserError

SETTINGS: dict[str, Any] = {"request": {"model": "m", "sampling": {"temperature": 0.5}}}


def name(number: int) -> str:
    return f"{number:032x}"


def result(number: int, **changes: Any) -> Result:
    return Result(
        **{"id": name(number), "status": "done", "completion": f"é {number}", "finish_reason": "stop"} | changes
    )


def there(folder: Path) -> list[Result]:
    with read_ledger(str(folder)) as ledger:
        return list(ledger.results())


def test_what_is_put_in_comes_out_after_reopening(tmp_path: Path) -> None:
    put = [
        result(1, usage={"prompt_tokens": 3, "completion_tokens": 4}, cost=0.5),
        result(2, status="empty", completion="", finish_reason="length"),
        result(3, completion="\ud800 lone", status="refused", finish_reason="content_filter"),
    ]
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        assert not ledger.append(put[:2])
        ledger.append(put[2:], [Failure(name(4), "http 400", "too long", permanent=True)])
        ledger.append([], [Failure(name(5), "timeout", "slow", permanent=False)])
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        assert list(ledger.results()) == put
        assert ledger.result(name(2)) == put[1]
        assert ledger.result(name(9)) is None
        assert name(3) in ledger and name(4) not in ledger and len(ledger) == 3
        states = [ledger.state(name(number)) for number in range(1, 7)]
        assert states == ["done", "empty", "refused", "failed for good", "failed for now", "left"]
        assert ledger.failure_reason(name(5)) == "timeout"
        assert ledger.usage == {"prompt_tokens": 3, "completion_tokens": 4}
        assert [failure.reason for failure in ledger.failed()] == ["http 400", "timeout"]
        assert ledger.notes == []


def test_a_second_result_of_a_request_is_left_out(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        ledger.append([result(1), result(1, completion="again"), result(2)])
        ledger.append([result(2, completion="again")])
    assert there(tmp_path) == [result(1), result(2)]
    assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 2


def test_an_answer_after_a_failure_counts(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        ledger.append([], [Failure(name(1), "timeout", "", permanent=True)])
        ledger.append([result(1)])
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        assert ledger.state(name(1)) == "done"
        assert list(ledger.failed()) == []


def test_cut_within_the_last_two_lines(tmp_path: Path) -> None:
    """A kill or a power cut may leave any beginning of the file; what is whole counts, the rest is asked again."""
    lines = [to_line(result(number)) for number in range(4)]
    whole, edge, last = b"".join(lines), len(b"".join(lines[:2])), len(b"".join(lines[:3]))
    for cut in [*range(edge, last - 3, 9), *range(last - 3, last + 5), *range(last + 5, len(whole) + 1, 2)]:
        folder = tmp_path / str(cut)
        with open_ledger(str(folder), SETTINGS):
            pass
        (folder / "results.jsonl").write_bytes(whole[:cut])
        with open_ledger(str(folder), SETTINGS) as ledger:
            complete = whole[:cut].count(b"\n") + (whole[cut : cut + 1] == b"\n")
            assert len(ledger) == complete
            for number in range(4):
                ledger.append([result(number)])
        assert sorted(found.id for found in there(folder)) == [name(number) for number in range(4)]
        assert (folder / "results.jsonl").read_bytes().count(b"\n") == 4


@pytest.mark.parametrize("damage", [b"\0" * 4096, b"\0" * 100 + b"\n", b'{"id": "zz"}\n', b"[]\n", b"\xff\xfe\n"])
def test_damaged_lines_are_passed_over_and_told(tmp_path: Path, damage: bytes) -> None:
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        ledger.append([result(1)])
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(damage)
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        assert len(ledger.notes) == 1
        ledger.append([result(2)])
    assert there(tmp_path) == [result(1), result(2)]


def test_looking_does_not_mend(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        ledger.append([result(1)])
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(b'{"id": "half')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert there(tmp_path) == [result(1)]
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_other_settings_are_refused_with_every_difference(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        ledger.append([result(1)])
    other = {"request": {"model": "n", "sampling": {"temperature": 0.5, "top_p": 0.9}}}
    with pytest.raises(UserError) as caught, open_ledger(str(tmp_path), other):
        pass
    assert 'request.model: was "m", is "n"' in str(caught.value)
    assert "request.sampling.top_p: was null, is 0.9" in str(caught.value)
    assert "another --ledger" in str(caught.value)
    with open_ledger(str(tmp_path), json.loads(json.dumps(SETTINGS))) as ledger:
        assert len(ledger) == 1


def test_settings_may_change_while_nothing_was_asked(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path), SETTINGS):
        pass
    with open_ledger(str(tmp_path), {"request": {"model": "n"}}):
        pass
    assert read_settings(tmp_path) == {"request": {"model": "n"}}


def _hold(folder: str, opened: Any, end: Any) -> None:
    with open_ledger(folder, SETTINGS):
        opened.set()
        end.wait()


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    opened, end = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path), opened, end))
    holder.start()
    assert opened.wait(60)
    with (
        pytest.raises(UserError, match=rf"process {holder.pid} on .* works on this ledger"),
        open_ledger(str(tmp_path), SETTINGS),
    ):
        pass
    with read_ledger(str(tmp_path)) as ledger:
        assert len(ledger) == 0
    holder.kill()
    holder.join()
    with open_ledger(str(tmp_path), SETTINGS) as ledger:
        ledger.append([result(1)])


def test_a_file_system_that_cannot_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(UserError, match="cannot lock files"), open_ledger(str(tmp_path), SETTINGS):
        pass


def test_what_a_killed_run_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    for name in (".halves.jsonl.123.tmp", ".pairs.jsonl.9.tmp", ".filtered.jsonl.9.tmp"):
        (tmp_path / name).write_text("x")
    with open_ledger(str(tmp_path), SETTINGS):
        assert [path.name for path in tmp_path.glob(".*.tmp")] == [".filtered.jsonl.9.tmp"]


def test_folders_that_are_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(UserError, match=r"is no ledger and not empty \(thesis\.tex\)"),
        open_ledger(str(tmp_path), SETTINGS),
    ):
        pass
    with pytest.raises(UserError, match=r"has no settings\.json"), read_ledger(str(tmp_path)):
        pass
    (tmp_path / "settings.json").write_text('{"format": 99, "settings": {}}')
    with pytest.raises(UserError, match="format 99, this version reads") as caught:
        read_settings(tmp_path)
    assert "not the settings" not in str(caught.value)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="not the settings"):
        read_settings(tmp_path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes a part and then says that the disk is full; the reserve lets it be written after all."""
    ledger = Ledger(tmp_path, reserve_bytes=1 << 16)
    reserve = tmp_path / ".reserve"
    assert reserve.stat().st_blocks * 512 >= 1 << 16
    ledger.append([result(1)])
    real = os.write

    def full(fd: int, data: Any) -> int:
        if reserve.exists():
            if len(data) > 20:
                return real(fd, bytes(data[:20]))
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    assert ledger.append([result(2)])
    assert not reserve.exists()
    monkeypatch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        ledger.append([result(3)])
    monkeypatch.setattr(os, "write", real)
    ledger.append([result(3)])
    ledger.close()
    (tmp_path / "settings.json").write_text('{"format": 1, "settings": {}}')
    assert there(tmp_path) == [result(1), result(2), result(3)]


def test_a_line_longer_than_a_block_is_read_back(tmp_path: Path) -> None:
    file = DurableFile(tmp_path / "f")
    lines = [to_line(result(1, completion="x" * 100_000)), to_line(result(2))]
    offsets = [file.append(line) for line in lines]
    assert [file.read_line(offset) + b"\n" for offset in offsets] == lines
    assert result_from(json.loads(file.read_line(offsets[0]))).completion == "x" * 100_000
    file.close()


def test_the_lock_is_free_after_closing(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path), SETTINGS):
        pass
    with (tmp_path / "lock").open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
