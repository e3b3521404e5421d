"""The command ``nat``: one sub-command a module, imported only when it is called.

A command module has ``SUMMARY`` (one line), ``EXAMPLE`` (a command line that works), ``configure(parser)`` (adds the
options) and ``run(args)`` (does the work, raises ``UserError`` on bad input). Its top level imports nothing heavy.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from importlib import import_module

from plugin_common.errors import UserError

COMMANDS = {
    "prepare-pmlm": "nat_plugin.pmlm.prepare_command",
    "tokenize": "nat_plugin.pmlm.tokenize_command",
    "average": "nat_plugin.average_command",
    "export": "nat_plugin.export.export_command",
    "translate": "nat_plugin.export.translate_command",
    "download": "nat_plugin.data.download_command",
    "distill": "nat_plugin.data.distill_command",
    "ngram-lm": "nat_plugin.decoding.ngram_lm_command",
    "plot-log": "nat_plugin.figures.curves_command",
    "align-plot": "nat_plugin.figures.align_plot_command",
}

OWN = ("nat_plugin", "plugin_common")
INSTALL_ALL = "in the folder of this program's source, `pip install .` installs what it needs"
INSTALL = {
    "translate": "`pip install onnxruntime tokenizers numpy` installs what it needs",
    "export": "in the folder of this program's source, `pip install '.[export]'` installs what it needs",
}


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``nat``: of one command alone, or of all where it is not the name of one."""
    parser = argparse.ArgumentParser(prog="nat", description="One-pass translation from pretrained masked LMs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in [command] if command in COMMANDS else COMMANDS:
        module = import_module(COMMANDS[name])
        sub = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nat``: 0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    words = sys.argv[1:] if argv is None else list(argv)
    command = words[0] if words else None
    name = f"nat {command}" if command in COMMANDS else "nat"
    try:
        args = make_parser(command).parse_args(words)
        args.run(args)
    except UserError as error:
        return _failed(name, str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "nat_plugin").partition(".")[0]
        if package in OWN or package in sys.stdlib_module_names:
            raise
        return _failed(name, f"the package {package} is not installed; {INSTALL.get(command or '', INSTALL_ALL)}")
    except MemoryError as error:
        return _failed(name, f"not enough memory ({error})")
    except OSError as error:  # a full disk, a folder without permission: commands catch what they can say more about
        where = f"{error.filename}: " if error.filename else ""
        return _failed(name, f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        _tell(f"{name}: interrupted")
        return 130
    return 0


def _failed(name: str, message: str) -> int:
    _tell(f"{name}: error: {message}")
    return 1


def _tell(message: str) -> None:
    if sys.stderr is not None:  # print would take standard output for a closed one
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
