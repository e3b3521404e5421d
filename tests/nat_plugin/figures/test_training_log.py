"""Statistics out of fairseq's logs."""

import json

import pytest

from nat_plugin.figures.training_log import parse_training_log, read_training_log
from plugin_common.errors import UserError

STAMP = "2026-01-01 00:00:00 | INFO | "


def simple(updates: int, loss: float, subset: str = "valid") -> str:
    return (
        f"{STAMP}{subset} | epoch 003 | valid on '{subset}' subset | loss {loss} | infeasible_pct 5 | bleu 14.34 | "
        f"wps 2392 | num_updates {updates} | best_bleu 15"
    )


def inner(updates: int, loss: str) -> str:
    return (
        f"{STAMP}train_inner | epoch 002:     12 / 15 loss={loss}, wps=10400.4, num_updates={updates}, lr=0.00108, "
        "gnorm=6.056, wall=0"
    )


def as_json(part: str, **values: object) -> str:
    prefix = "" if part == "train_inner" else f"{part}_"
    return f"{STAMP}{part} | " + json.dumps({"epoch": 1, **{f"{prefix}{k}": v for k, v in values.items()}})


def test_simple_lines():
    lines = [
        f"{STAMP}fairseq_cli.train | Namespace(loss=3, num_updates=4)",
        inner(27, "7.301"),
        inner(30, "6.5e-05"),
        simple(30, 7.275),
        f"{STAMP}train | epoch 003 | loss 7.7 | ppl inf | num_updates 30 | lr 1e-06 | train_wall 0",
        f"{STAMP}fairseq_cli.train | done training in 3.0 seconds",
    ]
    log = parse_training_log(lines)
    assert log.series("train_inner", "loss") == ([27, 30], [7.301, 6.5e-05])
    assert log.series("train_inner", "lr") == ([27, 30], [0.00108, 0.00108])
    assert log.series("valid", "loss") == ([30], [7.275])
    assert log.series("valid", "bleu") == ([30], [14.34])
    assert log.series("train", "lr") == ([30], [1e-06])
    assert log.series("train", "ppl") == ([30], [float("inf")])
    assert log.series("valid", "lr") == ([], [])
    assert log.validations() == ["valid"]
    assert set(log.metrics()) >= {"loss", "wps", "lr", "gnorm", "wall", "infeasible_pct", "bleu", "best_bleu"}


def test_json_lines():
    log = parse_training_log(
        [
            as_json("train_inner", update=0.2, loss="9.886", num_updates="3", lr="0.00012", note="text", none=None),
            as_json("valid", loss="8.5", bleu="0", num_updates="15"),
            as_json("valid1", loss="9.5", num_updates="15"),
            as_json("train", loss="9.4", train_wall="0", num_updates="15"),
            "[2026-01-01 00:00:00,000][valid][INFO] - " + json.dumps({"valid_loss": "8", "valid_num_updates": "30"}),
            as_json("valid", loss="7", num_updates="45")[:-9],  # cut off
        ]
    )
    assert log.series("train_inner", "loss") == ([3], [9.886])
    assert log.series("valid", "loss") == ([15, 30], [8.5, 8.0])
    assert log.series("train", "loss") == ([15], [9.4])
    assert log.validations() == ["valid", "valid1"]
    assert not {"epoch", "update", "num_updates", "note", "none"} & set(log.metrics())


def test_what_a_continued_run_logs_again_replaces_the_first():
    first = [inner(10, "9"), inner(20, "8"), simple(20, 8.5), inner(30, "7"), simple(30, 7.5), inner(35, "6")]
    continued = [inner(25, "7.5"), simple(30, 7.4), inner(40, "5"), simple(40, 6.5)]
    log = parse_training_log([*first, *continued])
    assert log.series("train_inner", "loss") == ([10, 20, 25, 40], [9, 8, 7.5, 5])
    assert log.series("valid", "loss") == ([20, 30, 40], [8.5, 7.4, 6.5])
    assert log.replaced == 3


def test_a_real_log_gives_what_its_lines_say(toy, tmp_path):
    path = tmp_path / "train.log"
    path.write_text(toy.log, encoding="utf-8")
    log = read_training_log(path)
    updates, bleu = log.series("valid", "bleu")
    assert len(updates) == 14
    assert updates == sorted(set(updates))
    assert bleu[-1] > 90
    assert log.series("train", "loss").updates == updates
    said = [line for line in toy.log.splitlines() if "| valid |" in line]
    assert [f"| bleu {value:g} |" in line for value, line in zip(bleu, said, strict=True)] == [True] * 14
    path.write_text("\r".join(toy.log.splitlines()) + "\nbytes \ufffd", encoding="utf-8")  # a progress bar's line ends
    assert read_training_log(path) == log


@pytest.mark.parametrize("content", ["", "loss 3\n", "2026 | INFO | fairseq_cli.train | epoch\n", "\x00\xff"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.log"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"other\.log: no statistics of fairseq-train .* --log-format simple"):
        read_training_log(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.log: cannot be read"):
        read_training_log(tmp_path / "nothing.log")
