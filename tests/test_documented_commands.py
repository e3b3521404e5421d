"""Every command that README and docs show is understood by the program's own parser."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]


def commands(page: Path) -> list[str]:
    """Lines after ``$``, continued ones joined, without redirections and pipes; not those with an ellipsis."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    shown = [re.split(r" [<>|] ", line[2:])[0] for line in text.splitlines() if line.startswith("$ ")]
    return [line for line in shown if "…" not in line and line.split()[0] in (*PARSERS, "nat", "nid")]


def fairseq_parser(name: str) -> Callable[[], object]:
    def parse() -> object:
        from fairseq import options

        parser = getattr(options, f"get_{name}_parser")()
        return parser.parse_args() if name == "preprocessing" else options.parse_args_and_arch(parser)

    return parse


PARSERS = {
    "fairseq-train": fairseq_parser("training"),
    "fairseq-generate": fairseq_parser("generation"),
    "fairseq-interactive": fairseq_parser("interactive_generation"),
    "fairseq-validate": fairseq_parser("validation"),
    "fairseq-preprocess": fairseq_parser("preprocessing"),
}
SHOWN = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]


def test_there_are_commands_to_check() -> None:
    assert len(SHOWN) >= 10


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{p}-{i}" for i, (p, _) in enumerate(SHOWN)])
def test_documented_command_parses(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nat_plugin
    import nid_plugin
    from nat_plugin.cli import NAT
    from nid_plugin.cli import NID

    nat_plugin.register()
    nid_plugin.register()
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    monkeypatch.setattr(sys, "argv", words)
    try:
        if program := {"nat": NAT, "nid": NID}.get(words[0]):
            program.make_parser().parse_args(words[1:])
        else:
            PARSERS[words[0]]()
    except SystemExit as error:
        pytest.fail(f"{page}: `{command}` ends with status {error.code}")
