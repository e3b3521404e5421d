"""The command ``nat``: one sub-command a module, imported only when it is called.

A command module has ``SUMMARY`` (one line), ``EXAMPLE`` (a command line that works), ``configure(parser)`` (adds the
options) and ``run(args)`` (does the work, raises ``UserError`` on bad input). Its top level imports nothing heavy.
"""

import argparse
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
    args = make_parser(words[0] if words else None).parse_args(words)
    try:
        args.run(args)
    except UserError as error:
        print(f"nat {args.command}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder without permission: commands catch what they can say more about
        where = f"{error.filename}: " if error.filename else ""
        print(f"nat {args.command}: error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nat {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
