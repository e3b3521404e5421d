"""``python -m nid_plugin.evaluation.harness …``: lm-eval's command line, where torchaudio keeps it from starting.

fairseq brings a torchaudio that a CPU build of torch cannot load, and transformers imports it where it is installed.
Elsewhere ``lm_eval …`` does the same; all options are lm-eval's.
"""

import sys
from importlib import import_module

from plugin_common.compat import hide_broken_torchaudio


def main() -> int:
    """Run lm-eval on this process's arguments."""
    hide_broken_torchaudio()
    try:
        lm_eval = import_module("lm_eval.__main__")
    except ModuleNotFoundError as error:
        print(f"{error}; in the folder of this program's source, `pip install '.[evaluation]'`", file=sys.stderr)
        return 1
    lm_eval.cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
