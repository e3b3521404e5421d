from argparse import Namespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_common.checkpoint_average import (
    average_checkpoints,
    average_models,
    checkpoint_info,
    differences,
    load_lazily,
    open_checkpoints,
)
from plugin_common.errors import UserError


def checkpoint(updates=10, model=None, settings=None, **extra):
    """What fairseq-train saves, as far as it matters here."""
    return {
        "args": None,
        "cfg": {
            "_name": None,
            "model": {"_name": "toy", "layers": 2, "dropout": 0.1} if settings is None else settings,
            "checkpoint": {"_name": None, "best_checkpoint_metric": "bleu", "maximize_best_checkpoint_metric": True},
            "optimization": {"_name": None, "lr": [0.1], "max_update": 100},
        },
        "model": {"w": torch.ones(2, 3)} if model is None else model,
        "optimizer_history": [{"num_updates": updates}],
        "extra_state": {
            "train_iterator": {"epoch": 3, "iterations_in_epoch": 0},
            "val_loss": 20.5,
            "best": 21.0,
            **extra,
        },
        "last_optimizer_state": {"exp_avg": torch.ones(2, 3)},
        "task_state": {},
    }


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.lists(st.floats(-1e4, 1e4, width=16), min_size=3, max_size=3), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_mean_is_rounded_once_from_float64(values, dtype):
    tensors = [torch.tensor(row, dtype=dtype) for row in values]
    wide = torch.float64 if dtype == torch.float64 else torch.float32  # halves would be rounded once more
    expected = torch.from_numpy(np.mean([tensor.double().numpy() for tensor in tensors], axis=0)).to(wide)
    average = average_models([{"w": tensor} for tensor in tensors])["w"]
    assert average.dtype == wide
    torch.testing.assert_close(average, expected, rtol=torch.finfo(wide).eps, atol=0)


def test_sums_that_overflow_or_vanish_in_their_own_type():
    big = torch.tensor([60000.0], dtype=torch.float16)
    assert average_models([{"w": big}] * 5)["w"] == big
    small = [torch.tensor([1.0]), torch.tensor([1e-8])] + [torch.tensor([0.0])] * 2
    assert average_models([{"w": tensor} for tensor in small])["w"].item() == pytest.approx(0.25 + 2.5e-9, rel=1e-7)


def test_inputs_stay_as_they_are_and_whole_numbers_are_kept():
    models = [{"w": torch.full((2,), float(k)), "steps": torch.tensor([7]), "on": torch.tensor(True)} for k in range(3)]
    average = average_models(models)
    assert average["w"].tolist() == [1.0, 1.0]
    assert average["steps"].tolist() == [7]
    assert average["on"].item() is True
    assert [model["w"][0].item() for model in models] == [0.0, 1.0, 2.0]
    average["steps"] += 1
    assert models[0]["steps"].item() == 7


def test_tied_parameters_stay_tied_only_where_all_models_tie_them():
    def model(value, tied):
        embedding = torch.full((2, 2), value)
        return {"embed": embedding, "project": embedding if tied else embedding.clone() + 1}

    tied = average_models([model(1.0, True), model(3.0, True)])
    assert tied["embed"].data_ptr() == tied["project"].data_ptr()
    half = average_models([model(1.0, True), model(3.0, False)])
    assert half["embed"].tolist() == [[2.0, 2.0]] * 2
    assert half["project"].tolist() == [[2.5, 2.5]] * 2
    transposed = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    views = average_models([{"a": transposed, "b": transposed.t()}] * 2)
    assert views["b"].tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_what_an_averaged_checkpoint_holds():
    states = {
        "runs/checkpoint2.pt": checkpoint(20, {"w": torch.full((2,), 2.0)}, ema={"w": torch.ones(2)}, note="later"),
        "runs/checkpoint1.pt": checkpoint(10, {"w": torch.full((2,), 1.0)}, note="earlier"),
    }
    seen = []
    average = average_checkpoints(states, seen.append)
    assert average["model"]["w"].tolist() == [1.5, 1.5]
    assert seen == [2]
    assert "last_optimizer_state" not in average
    assert average["optimizer_history"] == [{"num_updates": 20}]
    assert average["extra_state"] == {
        "train_iterator": {"epoch": 3, "iterations_in_epoch": 0},
        "note": "later",
        "val_loss": None,
        "averaged_from": [
            "checkpoint2.pt: epoch 2, update 20, bleu 20.5",
            "checkpoint1.pt: epoch 2, update 10, bleu 20.5",
        ],
    }
    assert "last_optimizer_state" in states["runs/checkpoint2.pt"]
    assert states["runs/checkpoint2.pt"]["extra_state"]["best"] == 21.0


def test_info_of_mid_epoch_and_unvalidated_checkpoints():
    state = checkpoint(1234, train_iterator={"epoch": 3, "iterations_in_epoch": 5}, val_loss=np.float64(3.25))
    assert str(checkpoint_info("x/c.pt", state)) == "c.pt: epoch 3, update 1,234, bleu 3.25"
    state = checkpoint(1234, val_loss=None)
    assert str(checkpoint_info("x/c.pt", state)) == "c.pt: epoch 2, update 1,234"
    old = {"args": Namespace(arch="toy", best_checkpoint_metric="loss"), "model": {}, "extra_state": {"val_loss": 1.0}}
    assert str(checkpoint_info("c.pt", old)) == "c.pt: epoch 0, update 0, loss 1"


def test_every_difference_is_listed():
    first = {"a": torch.ones(2), "b": torch.ones(2), "n": torch.tensor(1), "t": torch.ones(1), "same": torch.ones(1)}
    other = {
        "a": torch.ones(3),
        "n": torch.tensor(2),
        "t": torch.ones(1).half(),
        "same": torch.ones(1),
        "x": torch.ones(1),
    }
    problems = differences(
        {
            "1.pt": checkpoint(1, first),
            "2.pt": checkpoint(2, other, {"_name": "toy", "layers": 3, "dropout": 0.1, "new": None}),
            "3.pt": checkpoint(3, first, {"_name": "toy", "layers": 2, "dropout": 0.3}),
        }
    )
    assert problems == [
        "2.pt: its model has layers=3, that of 1.pt layers=2",
        "2.pt: its model has new=None, that of 1.pt new=(absent)",
        "2.pt: lacks 1 parameters of 1.pt: b",
        "2.pt: has 1 parameters that 1.pt lacks: x",
        "2.pt: 1 parameters differ in shape from 1.pt: a [3] against [2]",
        "2.pt: 1 parameters differ in type from 1.pt: t torch.float16 against torch.float32",
        "2.pt: 1 buffers of whole numbers, which have no average, differ from 1.pt: n",
        "3.pt: its model has dropout=0.3, that of 1.pt dropout=0.1",
    ]


def test_long_lists_of_parameters_are_cut():
    many = {f"p{k}": torch.ones(1) for k in range(9)}
    (problem,) = differences({"1.pt": checkpoint(1, many), "2.pt": checkpoint(2, {})})
    assert problem == "2.pt: lacks 9 parameters of 1.pt: p0, p1, p2, …"


def test_settings_that_are_not_the_models_may_differ():
    def whole_command_line(**changes):  # models without a dataclass keep it all
        options = {"arch": "toy", "layers": 2, "max_update": 100, "lr": [0.1], "optimization": "x", "dropout": 0.1}
        return checkpoint(1, settings=Namespace(**{**options, **changes}))

    assert differences({"1": whole_command_line(), "2": whole_command_line(max_update=200, lr=[0.2])}) == []
    states = {"1": whole_command_line(), "2": whole_command_line(dropout=0.3)}
    assert differences(states) == ["2: its model has dropout=0.3, that of 1 dropout=0.1"]
    assert differences(states, {"dropout"}) == []
    old = [{"args": Namespace(arch=arch, lr=lr), "model": {}} for arch, lr in (("a", 1), ("a", 2), ("b", 2))]
    assert differences({"1": old[0], "2": old[1]}) == []
    assert differences({"1": old[0], "3": old[2]}) == ["3: its model has arch='b', that of 1 arch='a'"]


def test_nan_is_refused_with_the_file_that_brings_it():
    good, bad = {"w": torch.ones(2), "v": torch.ones(1)}, {"w": torch.tensor([1.0, float("nan")]), "v": torch.ones(1)}
    with pytest.raises(UserError, match=r"^b\.pt: 1 parameters hold NaN \(w\): the training had failed; leave it out$"):
        average_checkpoints({"a.pt": checkpoint(1, good), "b.pt": checkpoint(2, bad)})
    up, down = {"w": torch.tensor([float("inf")])}, {"w": torch.tensor([-float("inf")])}
    with pytest.raises(UserError, match="infinite values of opposite sign in w"):
        average_checkpoints({"a.pt": checkpoint(1, up), "b.pt": checkpoint(2, down)})
    masked = {"w": torch.tensor([-float("inf"), 1.0])}
    average = average_checkpoints({"a.pt": checkpoint(1, masked), "b.pt": checkpoint(2, masked)})
    assert average["model"]["w"].tolist() == [-float("inf"), 1.0]


@pytest.mark.parametrize("new_format", [True, False])
def test_files_of_both_formats_load(tmp_path, new_format):
    path = tmp_path / "c.pt"
    torch.save(checkpoint(val_loss=np.float32(2.5)), path, _use_new_zipfile_serialization=new_format)
    states = open_checkpoints([path])
    assert checkpoint_info(path, states[str(path)]).value == 2.5
    assert average_checkpoints(states)["model"]["w"].tolist() == [[1.0] * 3] * 2


class RunsOnLoading:
    def __reduce__(self):
        return eval, ("open('/tmp/never', 'w')",)


def test_damaged_and_foreign_files_are_all_named(tmp_path):
    paths = [
        tmp_path / name for name in ("good.pt", "half.pt", "empty.pt", "flipped.pt", "code.pt", "other.pt", "none.pt")
    ]
    good, half, empty, flipped, code, other, _ = paths
    model = {"w": torch.arange(5000.0)}
    torch.save(checkpoint(1, model), good)
    content = good.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    empty.touch()
    position = content.index(torch.arange(5000.0).numpy().tobytes()) + 1000
    flipped.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    torch.save({**checkpoint(1, model), "hook": RunsOnLoading()}, code)
    torch.save({"weights": 1}, other)
    with pytest.raises(UserError) as caught:
        open_checkpoints(paths)
    problems = str(caught.value).split("\n")
    assert problems[0] == "6 problems:"
    expected = [
        "truncated",
        "empty (0 bytes)",
        "the checksum of",
        "holds pickled code",
        "holds no 'model'",
        "no such checkpoint",
    ]
    for path, problem, words in zip(paths[1:], problems[1:], expected, strict=True):
        assert str(path) in problem
        assert words in problem


def test_selection_by_header_names_damaged_files_too(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match=r"c\.pt: the checkpoint is truncated or damaged"):
        load_lazily(tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"x\.pt: no such checkpoint"):
        load_lazily(tmp_path / "x.pt")
