"""Runs fairseq's commands in forks of one process that has imported fairseq and transformers already.

Each command is the real one: its console script is run as ``__main__`` with its own arguments, folder and streams, and
an exception leaves it the way it leaves the interpreter. Only the five seconds of imports are shared. The plugins are
not among them: each fork imports them by ``--user-dir`` as a fresh process does.

Reads one JSON object a line from standard input, answers each with its exit status.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from typing import Any

PRELOADED = (
    "fairseq_cli.train",
    "fairseq_cli.generate",
    "fairseq_cli.preprocess",
    "fairseq_cli.validate",
    "sacrebleu",
    "transformers.models.xlm_roberta.modeling_xlm_roberta",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
)
TIME_LIMIT = 150  # seconds


def main() -> None:
    """Serve until standard input ends."""
    answers = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115, PTH123
    os.dup2(2, 1)  # what the imports print is no answer
    from plugin_common.compat import hide_broken_torchaudio

    hide_broken_torchaudio()
    for module in PRELOADED:
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(command: dict[str, Any]) -> None:
    signal.alarm(TIME_LIMIT)
    for number, mode, name in ((0, os.O_RDONLY, "stdin"), (1, os.O_WRONLY, "stdout"), (2, os.O_WRONLY, "stderr")):
        opened = os.open(command[name], mode)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    os.chdir(command["cwd"])
    os.environ.update(command["env"])
    sys.argv = command["argv"]
    status = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = _status_of(end)
    except BaseException:
        kind, error, trace = sys.exc_info()
        assert kind is not None and error is not None
        try:
            sys.excepthook(kind, error, trace)
        except BaseException:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
