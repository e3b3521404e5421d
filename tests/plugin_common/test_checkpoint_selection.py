import shutil

import pytest
import torch

from plugin_common.checkpoint_selection import best_checkpoints, last_checkpoints
from plugin_common.errors import UserError


def save(path, updates, value, metric="bleu", maximize=True):
    state = {
        "cfg": {
            "model": {},
            "checkpoint": {"best_checkpoint_metric": metric, "maximize_best_checkpoint_metric": maximize},
        },
        "model": {"w": torch.full((1,), float(updates))},
        "optimizer_history": [{"num_updates": updates}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 1}, "val_loss": value},
    }
    torch.save(state, path)


def names(infos):
    return [info.path.name for info in infos]


@pytest.fixture
def run(tmp_path):
    """Names are misleading where fairseq's are: rounded, with a random last digit."""
    save(tmp_path / "checkpoint.best_bleu_20.1239.pt", 30, 20.12251)
    save(tmp_path / "checkpoint.best_bleu_20.1231.pt", 40, 20.12349)
    save(tmp_path / "checkpoint.best_bleu_9.5000.pt", 10, 9.5)
    save(tmp_path / "checkpoint1.pt", 20, 15.0)
    save(tmp_path / "checkpoint2.pt", 50, 19.0)
    save(tmp_path / "checkpoint_1_15.pt", 15, None)
    shutil.copy(tmp_path / "checkpoint.best_bleu_20.1231.pt", tmp_path / "checkpoint_best.pt")
    shutil.copy(tmp_path / "checkpoint2.pt", tmp_path / "checkpoint_last.pt")
    save(tmp_path / "averaged.pt", 60, 99.0)
    (tmp_path / "checkpoint1.pt.tmp").touch()
    return tmp_path


def test_best_by_the_value_inside(run):
    assert names(best_checkpoints(run, 3)) == [
        "checkpoint.best_bleu_20.1231.pt",
        "checkpoint.best_bleu_20.1239.pt",
        "checkpoint2.pt",
    ]
    assert names(best_checkpoints(run, 2, maximize=False)) == ["checkpoint.best_bleu_9.5000.pt", "checkpoint1.pt"]


def test_last_by_updates_each_state_once(run):
    assert names(last_checkpoints(run, 3)) == ["checkpoint2.pt", "checkpoint1.pt", "checkpoint_1_15.pt"]


def test_the_only_copies_count(tmp_path):
    save(tmp_path / "checkpoint_best.pt", 1, 3.0, "loss", maximize=False)
    save(tmp_path / "checkpoint_last.pt", 2, 4.0, "loss", maximize=False)
    assert names(best_checkpoints(tmp_path, 2)) == ["checkpoint_best.pt", "checkpoint_last.pt"]
    assert names(last_checkpoints(tmp_path, 1)) == ["checkpoint_last.pt"]


def test_of_equal_values_the_later_and_no_nan(tmp_path):
    for updates, value in ((1, 5.0), (2, 5.0), (3, float("nan"))):
        save(tmp_path / f"checkpoint{updates}.pt", updates, value)
    assert names(best_checkpoints(tmp_path, 2)) == ["checkpoint2.pt", "checkpoint1.pt"]


def test_too_few(run, tmp_path):
    with pytest.raises(
        UserError, match=r"--best 6 asked, but it holds 5 different validated checkpoints; give --best 5 or --allow-few"
    ):
        best_checkpoints(run, 6)
    with pytest.raises(UserError, match=r"--last 4 asked, but it holds 3 different checkpoints .*; give --last 3 or"):
        last_checkpoints(run, 4)
    assert len(best_checkpoints(run, 6, allow_fewer=True)) == 5
    assert len(last_checkpoints(run, 4, allow_fewer=True)) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--best 1 asked, but it holds 0 .*; expected checkpointN\.pt"):
        best_checkpoints(tmp_path / "empty", 1, allow_fewer=True)
    with pytest.raises(UserError, match=r"none: no such folder; expected the --save-dir of fairseq-train"):
        last_checkpoints(tmp_path / "none", 1)


def test_several_metrics_and_directions(tmp_path):
    save(tmp_path / "checkpoint1.pt", 1, 5.0, "loss", maximize=False)
    save(tmp_path / "checkpoint2.pt", 2, 20.0, "bleu")
    with pytest.raises(UserError, match=r"were validated by bleu, loss; give --metric bleu$"):
        best_checkpoints(tmp_path, 1)
    assert names(best_checkpoints(tmp_path, 1, metric="loss")) == ["checkpoint1.pt"]
    with pytest.raises(UserError, match=r"no checkpoint was validated by ter; give --metric bleu or loss$"):
        best_checkpoints(tmp_path, 1, metric="ter")
    save(tmp_path / "checkpoint3.pt", 3, 30.0, "bleu", maximize=False)
    with pytest.raises(UserError, match=r"disagree on whether a higher bleu is better; give --maximize or --minimize"):
        best_checkpoints(tmp_path, 1, metric="bleu")
    assert names(best_checkpoints(tmp_path, 1, metric="bleu", maximize=True)) == ["checkpoint3.pt"]


def test_unreadable_files_are_all_named(run):
    (run / "checkpoint3.pt").touch()
    (run / "checkpoint4.pt").write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        best_checkpoints(run, 1)
    assert "checkpoint3.pt: the checkpoint is empty (0 bytes)" in str(caught.value)
    assert "checkpoint4.pt: not a checkpoint" in str(caught.value)
    assert str(caught.value).count("; or move it away") == 2
