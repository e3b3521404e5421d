"""The command ``nat``: one sub-command a module (see ``plugin_common.command_line``)."""

import argparse
import sys
from collections.abc import Sequence

from plugin_common.command_line import Program

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

NAT = Program(
    name="nat",
    description="One-pass translation from pretrained masked LMs.",
    commands=COMMANDS,
    own_packages=("nat_plugin", "plugin_common"),
    install_all="in the folder of this program's source, `pip install .` installs what it needs",
    install={
        "translate": "`pip install onnxruntime tokenizers numpy` installs what it needs",
        "export": "in the folder of this program's source, `pip install '.[export]'` installs what it needs",
    },
)


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``nat``: of one command alone, or of all where it is not the name of one."""
    return NAT.make_parser(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nat``: 0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    return NAT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
