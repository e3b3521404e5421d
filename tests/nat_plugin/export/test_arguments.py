import logging
import re
from pathlib import Path

import numpy as np
import pytest

from nat_plugin.export import Translator
from nat_plugin.export.arguments import THREADS_PER_CORE, cores
from plugin_common.errors import UserError


@pytest.fixture(scope="module")
def fp32(exported: Path) -> Translator:
    return Translator(exported, precision="fp32", threads=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": None}, "folder None: expected the path of a folder that `nat export` made"),
        ({"folder": b"x"}, "folder b'x': expected the path"),
        ({"precision": 32}, "precision 32: expected one of fp32, int8"),
        ({"precision": ["fp32"]}, r"precision \['fp32'\]: expected one of"),
        ({"threads": 5000}, f"threads 5000: expected at most {THREADS_PER_CORE * cores()}, 4 for each of this machine"),
        ({"threads": 2.0}, "threads 2.0: expected a whole number of at least 1"),
        ({"threads": True}, "threads True: expected a whole number"),
        ({"max_positions_per_run": 10**12}, "max positions per run 1000000000000: expected at most"),
        ({"beam": 1001}, "beam 1001: expected at most 1,000"),
        ({"beam": "4"}, "beam '4': expected a whole number"),
        ({"beam": 4, "candidates": 115}, "candidates 115: expected at most the model's 114 symbols"),
        ({"beam": 4, "lm": 7, "lm_weight": 1}, "lm 7: expected the path of a file"),
        ({"beam": 4, "lm_weight": "1"}, "lm weight 1: expected a number of 0 or more"),
        ({"beam": 4, "lm_weight": None}, "lm weight None: expected a number"),
        ({"beam": 4, "token_bonus": "1"}, "token bonus 1: expected a finite number"),
        ({"beam": 4, "token_bonus": 10**400}, "token bonus 1000+: expected a finite number"),
        ({"provider": None}, "provider None: not in this onnxruntime"),
    ],
)
def test_arguments_of_a_wrong_kind_or_size(exported: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Translator(**{"folder": exported, **options})


def test_numbers_of_numpy_are_numbers(exported: Path) -> None:
    options = {"threads": np.int64(1), "max_positions_per_run": np.int32(400), "precision": "fp32"}
    search = {"beam": np.int64(4), "candidates": np.int16(114), "token_bonus": np.float32(0.5)}
    plain = Translator(exported, precision="fp32", beam=4, candidates=114, token_bonus=0.5)
    assert Translator(exported, **options, **search).translate(["the dog"]) == plain.translate(["the dog"])
    assert list(plain.stream(["the dog"], window=np.int64(3))) == plain.translate(["the dog"])


@pytest.mark.parametrize("wrong", [None, 0, b"dog", ["dog"]])
def test_lines_that_are_no_text(fp32: Translator, wrong: object) -> None:
    message = rf"lines\[2\]: expected a str, found {type(wrong).__name__}"
    for call in (fp32.translate, fp32.translate_with_scores, lambda lines: list(fp32.stream(lines, window=1))):
        with pytest.raises(UserError, match=message):
            call(["the", "dog", wrong])


@pytest.mark.parametrize("wrong", ["the dog", b"the dog", None, 3])
def test_what_is_no_list_of_lines(fp32: Translator, wrong: object) -> None:
    message = f"expected a list of lines, found a single {type(wrong).__name__}"
    for call in (fp32.translate, fp32.translate_with_scores, fp32.stream):
        with pytest.raises(UserError, match=message):
            call(wrong)


def test_a_list_of_wrong_lines_is_told_by_its_first(fp32: Translator) -> None:
    with pytest.raises(UserError) as error:
        fp32.translate([None] * 1000)
    assert "lines[0]: " in str(error.value)
    assert str(error.value).count("\n") == 10


def test_lines_may_come_from_a_generator(fp32: Translator) -> None:
    assert fp32.translate(line for line in ["the dog", "fox"]) == fp32.translate(["the dog", "fox"])


def test_ids_as_lists_and_of_any_whole_type(fp32: Translator) -> None:
    wanted = fp32.translate_ids([np.array([5, 9, 113], dtype=np.int64), np.zeros(0, dtype=np.int64)])
    for given in ([[5, 9, 113], []], [np.array([5, 9, 113], dtype=np.uint8), np.zeros(0)], [(5, 9, 113), ()]):
        found = fp32.translate_ids(given)
        assert [row.tolist() for row in found] == [row.tolist() for row in wanted]
        assert all(row.dtype == np.int64 for row in found)


@pytest.mark.parametrize(
    "wrong", [[-1], [114], [2**70], [0.0, 1.0], [[5]], ["5"], 5, None, [True], [[1], [2, 3]], np.array([5.0])], ids=str
)
def test_ids_that_are_none(fp32: Translator, wrong: object) -> None:
    message = re.escape("sources[1]: expected a row of whole numbers from 0 to 113")
    with pytest.raises(UserError, match=message):
        fp32.translate_ids([[5], wrong])
    with pytest.raises(UserError, match="expected a list of rows of ids, found a single int"):
        fp32.translate_ids(5)


def test_one_thread_is_one_thread(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The tokenizer takes one thread or one a core, so it takes one where fewer than all cores are allowed."""
    caplog.set_level(logging.ERROR)
    assert not Translator(exported, threads=1)._parallel or cores() == 1
    assert Translator(exported, threads=cores())._parallel
    assert Translator(exported)._parallel
