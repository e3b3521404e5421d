import subprocess
import sys

import pytest

from plugin_common.errors import UserError, raise_all


def test_no_problem_raises_nothing() -> None:
    raise_all([])


def test_one_problem_is_the_message() -> None:
    with pytest.raises(UserError, match=r"^a: is bad; do b$"):
        raise_all(iter(["a: is bad; do b"]))


def test_several_problems_are_all_listed() -> None:
    with pytest.raises(UserError) as caught:
        raise_all(["first", "second"])
    assert str(caught.value) == "2 problems:\n  - first\n  - second"


def end_of_process(last_line: str, times: int = 1) -> subprocess.CompletedProcess[str]:
    code = "from plugin_common.errors import UserError, show_user_errors_plainly\n"
    code += "show_user_errors_plainly()\n" * times + "print('printed before')\n" + last_line
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("times", [1, 3])
def test_user_error_ends_the_process_with_its_message_alone(times: int) -> None:
    done = end_of_process("raise UserError('--ratio 0: give more')", times)
    assert (done.returncode, done.stdout, done.stderr) == (1, "printed before\n", "error: --ratio 0: give more\n")


def test_other_exceptions_keep_their_traceback() -> None:
    done = end_of_process("raise KeyError('x')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("KeyError: 'x'\n")
