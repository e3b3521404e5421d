"""The command ``nid``: one sub-command a module, imported only when it is called.

A command module has ``SUMMARY`` (one line), ``EXAMPLE`` (a command line that works), ``configure(parser)`` (adds the
options) and ``run(args)`` (does the work, raises ``UserError`` on bad input). Its top level imports nothing heavy.
"""

import sys
from collections.abc import Sequence

from plugin_common.command_line import Program

NID = Program(
    name="nid",
    description="Text completions from a teacher LLM, made into pairs; models fine-tuned on them, and their scores.",
    commands={
        "halve": "nid_plugin.halve_command",
        "complete": "nid_plugin.completion.complete_command",
        "merge": "nid_plugin.completion.merge_command",
        "audit": "nid_plugin.audit.audit_command",
        "control": "nid_plugin.controls.control_command",
        "subset": "nid_plugin.controls.subset_command",
        "compare": "nid_plugin.controls.compare_command",
        "import-gguf": "nid_plugin.import_gguf_command",
        "export": "nid_plugin.export.export_command",
        "answer": "nid_plugin.evaluation.answer_command",
        "judge": "nid_plugin.evaluation.judge_command",
    },
    own_packages=("nid_plugin", "plugin_common"),
    install_all="in the folder of this program's source, `pip install '.[nid]'` installs what it needs",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nid``: 0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    return NID.main(argv)


if __name__ == "__main__":
    sys.exit(main())
