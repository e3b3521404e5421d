"""A program of sub-commands, each a module that is imported only when it is called.

A command module has ``SUMMARY`` (one line), ``EXAMPLE`` (a command line that works), ``configure(parser)`` (adds the
options) and ``run(args)`` (does the work, raises ``UserError`` on bad input). Its top level imports nothing heavy.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TypeVar

from plugin_common.errors import UserError

Request = TypeVar("Request")


@dataclass(frozen=True)
class Program:
    """A command with sub-commands.

    Attributes:
        name: what the user types.
        description: one line for ``--help``.
        commands: sub-command → module.
        own_packages: packages whose absence is a fault of the program, not of the installation.
        install_all: says how to install what any sub-command needs.
        install: sub-command → how to install what it needs, where that is less.
    """

    name: str
    description: str
    commands: Mapping[str, str]
    own_packages: tuple[str, ...]
    install_all: str
    install: Mapping[str, str] = field(default_factory=dict)

    def make_parser(self, command: str | None = None) -> argparse.ArgumentParser:
        """The command line: of one sub-command alone, or of all where ``command`` is not the name of one."""
        parser = argparse.ArgumentParser(prog=self.name, description=self.description)
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        for name in [command] if command is not None and command in self.commands else self.commands:
            module = import_module(self.commands[name])
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

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run it: 0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
        words = sys.argv[1:] if argv is None else list(argv)
        command = words[0] if words else None
        name = f"{self.name} {command}" if command in self.commands else self.name
        try:
            args = self.make_parser(command).parse_args(words)
            args.run(args)
        except UserError as error:
            return _failed(name, str(error))
        except ModuleNotFoundError as error:
            package = (error.name or self.own_packages[0]).partition(".")[0]
            if package in self.own_packages or package in sys.stdlib_module_names:
                raise
            hint = self.install.get(command or "", self.install_all)
            return _failed(name, f"the package {package} is not installed; {hint}")
        except MemoryError as error:
            return _failed(name, f"not enough memory ({error})")
        except (
            OSError
        ) as error:  # a full disk, a folder without permission: commands catch what they can say more about
            where = f"{error.filename}: " if error.filename else ""
            return _failed(name, f"{where}{error.strerror or error}")
        except KeyboardInterrupt:
            _tell(f"{name}: interrupted")
            return 130
        return 0


def resumable(
    work: Callable[[], int | None], *, name: str = "", interrupted: str = "the same command goes on from here"
) -> int:
    """Run a script that can be stopped and started again: its exit status.

    The status that ``work`` returns (None is 0), 1 after a ``UserError``, whose message goes to standard error, and 130
    when interrupted.

    Args:
        work: what to do.
        name: of the script; messages begin with it.
        interrupted: what to know after an interruption.
    """
    front = f"{name}: " if name else ""
    try:
        return work() or 0
    except UserError as error:
        _tell(f"{front}error: {error}")
        return 1
    except KeyboardInterrupt:
        _tell(f"{front}interrupted; {interrupted}")
        return 130


def read_and_run(
    read: Callable[[Sequence[str]], Request], act: Callable[[Request], int | None], argv: Sequence[str] | None
) -> int:
    """Run a script whose options are read first, then acted on: 2 for wrong options, else as :func:`resumable`.

    Args:
        read: makes a request of the words of the command line; raises ``UserError`` for wrong ones.
        act: does what is asked for.
        argv: the words; None: those of this process.
    """
    try:
        asked = read(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        _tell(f"error: {error}")
        return 2
    return resumable(lambda: act(asked))


def _failed(name: str, message: str) -> int:
    _tell(f"{name}: error: {message}")
    return 1


def _tell(message: str) -> None:
    if sys.stderr is not None:  # print would take standard output for a closed one
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr)
