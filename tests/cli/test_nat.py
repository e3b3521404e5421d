"""What the command ``nat`` itself does, whatever the sub-command."""

import sys
from pathlib import Path

import pytest

from nat_plugin import cli
from plugin_common import command_line
from tests.commands import Runner

WITHOUT = """
import sys
from nat_plugin.cli import main

sys.modules[sys.argv[1]] = None  # as if it were not installed
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("package", "words", "install"),
    [
        ("onnxruntime", ["translate", "folder"], "`pip install onnxruntime tokenizers numpy`"),
        ("tokenizers", ["translate", "folder"], "`pip install onnxruntime tokenizers numpy`"),
        ("torch", ["average", "checkpoints", "--last", "2", "--output", "out.pt"], "`pip install .`"),
    ],
)
def test_a_package_that_is_not_installed(
    run: Runner, tmp_path: Path, package: str, words: list[str], install: str
) -> None:
    done = run(sys.executable, "-c", WITHOUT, package, *words, cwd=tmp_path, expect=1)
    message = f"nat {words[0]}: error: the package {package} is not installed; "
    assert done.error().startswith(message)
    assert install in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_module_of_our_own_that_is_missing_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "translate", "nat_plugin.nothing")
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        cli.main(["translate", "folder"])


def test_ctrl_c_while_the_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "import_module", interrupted)
    assert cli.main(["translate", "folder"]) == 130
    assert capsys.readouterr().err == "nat translate: interrupted\n"
    assert cli.main([]) == 130
    assert capsys.readouterr().err == "nat: interrupted\n"
