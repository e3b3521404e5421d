"""Constants of a Python file are read, and nothing of it is run."""

import os
from pathlib import Path

import pytest

from nid_plugin.evaluation.python_constants import module_constants
from plugin_common.errors import UserError


def test_constants(tmp_path: Path) -> None:
    source = (
        "import os\nos.environ['EVALUATION_RAN'] = 'yes'\nA = 'x' + 'y' 'z'\nB = {'a': A, 'n': [1, (2.5, None)]}\n"
        "C = open('f')\nD = {**B}\nE = f'{A}'\nF = G = 3\nH = unknown\nI = A + 1\ndef f():\n    J = 1\n"
    )
    (tmp_path / "m.py").write_text(source, encoding="utf-8")
    found = module_constants(str(tmp_path / "m.py"))
    assert found == {"A": "xyz", "B": {"a": "xyz", "n": [1, [2.5, None]]}, "F": 3, "G": 3}
    assert "EVALUATION_RAN" not in os.environ


def test_no_python(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("a = (", encoding="utf-8")
    with pytest.raises(UserError, match="not valid Python"):
        module_constants(str(tmp_path / "m.py"))
