"""What a current Python, torch and transformers need before fairseq and transformers are used together.

Each function mends one thing at run time and can be called any number of times; :func:`apply` calls them all. Nothing
of fairseq is copied; a cure goes once the fault is gone upstream (each has a test that fails without it).
"""

import argparse
import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError, show_user_errors_plainly

logger = logging.getLogger(__name__)


def apply() -> None:
    """Mend all; called by a plugin's ``register()``."""
    hide_broken_torchaudio()
    silence_hydra_notices()
    from plugin_common.checkpoint_files import allow_scalar_globals

    allow_scalar_globals()
    check_checkpoints_before_loading()
    copy_checkpoints_atomically()
    refuse_missing_restore_file()
    mend_the_argument_parser()
    explain_fp16_overflow_on_cpu()
    train_on_cpu_under_torchrun()
    wrap_cpu_models_in_ddp()
    read_interactive_lines_exactly()
    show_user_errors_plainly()


def _once(target: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace ``target.name`` by ``make(original)`` unless that was done before."""
    original = getattr(target, name)
    if getattr(original, "mended_by_plugin", False):
        return
    replacement = make(original)
    replacement.mended_by_plugin = True
    setattr(target, name, replacement)


def hide_broken_torchaudio() -> None:
    """Count torchaudio as absent where it cannot load its libraries (a CUDA build beside a CPU torch).

    transformers imports it wherever it is installed, and fails with OSError in unrelated classes such as XLM-R's.
    """
    if "torchaudio" in sys.modules:
        return
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        return
    except OSError:
        for name in [n for n in sys.modules if n == "torchaudio" or n.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio"] = None  # type: ignore[assignment]


def silence_hydra_notices() -> None:
    """fairseq calls hydra by its old names; the seven notices that each command prints of it help no user."""
    notices = (
        r"(?s).*hydra\.experimental\.",
        r"(?s).*The version_base parameter is not specified",
        r"(?s).*deprecated keyword in package header",
        r"(?s).*is validated against ConfigStore schema",
        r"(?s).*strict flag in the compose API is deprecated",
    )
    for notice in notices:
        warnings.filterwarnings("ignore", message=notice, category=UserWarning)
    logging.getLogger("hydra").setLevel(logging.INFO)


def check_checkpoints_before_loading() -> None:
    """Empty, truncated, bit-flipped or code-bearing checkpoints: a clear error instead of a traceback or silence."""
    from fairseq import checkpoint_utils

    from plugin_common.checkpoint_files import check_checkpoint_file, explain_load_error

    def make(load: Callable[..., dict]) -> Callable[..., dict]:
        @functools.wraps(load)
        def checked(path: str, *args: Any, **kwargs: Any) -> dict:
            check_checkpoint_file(path)
            try:
                return load(path, *args, **kwargs)
            except UserError:
                raise
            except Exception as error:
                raise explain_load_error(path, error) from error

        return checked

    _once(checkpoint_utils, "load_checkpoint_to_cpu", make)


def copy_checkpoints_atomically() -> None:
    """fairseq copies checkpoint_N.pt to checkpoint_last.pt in place: killed meanwhile, it leaves a half file."""
    from fairseq.file_io import IOPathManager, PathManager

    from plugin_common.checkpoint_files import copy_atomically

    if IOPathManager is not None:  # iopath has ways of its own for remote stores
        return

    def make(_copy: Callable[..., Any]) -> Any:
        def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
            copy_atomically(src_path, dst_path)
            return True

        return copy

    if not getattr(PathManager.copy, "mended_by_plugin", False):
        replacement = make(PathManager.copy)
        replacement.mended_by_plugin = True
        PathManager.copy = staticmethod(replacement)


def refuse_missing_restore_file() -> None:
    """``--restore-file`` naming a file that is not there must not silently start from scratch."""
    from fairseq import checkpoint_utils

    def make(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def checked(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
            wanted = cfg.restore_file
            if wanted != "checkpoint_last.pt" and not os.path.exists(wanted):  # noqa: PTH110
                raise UserError(
                    f"--restore-file {wanted}: no such file; give an existing checkpoint, or leave the option out to "
                    f"continue from {cfg.save_dir}/checkpoint_last.pt if there is one and from scratch otherwise"
                )
            return load(cfg, trainer, **kwargs)

        return checked

    _once(checkpoint_utils, "load_checkpoint", make)


def mend_the_argument_parser() -> None:
    """Three faults of fairseq's argument parser.

    ``--bf16`` also sets ``tpu``, which crashes off a TPU. ``--fp16`` flattens gradients into CUDA memory, also on a CPU,
    where ``--fp16-no-flatten-grads`` does the same without. ``--help`` is answered by the first of two parses, before the
    options of the task, model and criterion are known; here it waits for the second.
    """
    from fairseq import options

    def make(parse: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(parse)
        def mended(
            parser: argparse.ArgumentParser,
            input_args: list[str] | None = None,
            parse_known: bool = False,
            suppress_defaults: bool = False,
            modify_parser: Callable[[argparse.ArgumentParser], None] | None = None,
        ) -> Any:
            words = sys.argv[1:] if input_args is None else list(input_args)
            _require_arch(parser, words)
            if not suppress_defaults and {"-h", "--help"} & set(words):
                modify_parser = _help_at_the_second_parse(modify_parser)
            result = parse(parser, input_args, parse_known, suppress_defaults, modify_parser)
            args = result[0] if parse_known and not suppress_defaults else result
            if getattr(args, "bf16", False) and "--tpu" not in words:
                args.tpu = False
            if getattr(args, "fp16", False) and not _on_cuda(args):
                args.fp16_no_flatten_grads = True
            return result

        return mended

    _once(options, "parse_args_and_arch", make)


def explain_fp16_overflow_on_cpu() -> None:
    """After an fp16 overflow fairseq calls ``.cuda()`` whatever the device is; on a CPU that ends the training."""
    import torch
    from fairseq.trainer import Trainer

    def make(train_step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(train_step)
        def explained(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return train_step(self, *args, **kwargs)
            except (AssertionError, RuntimeError) as error:
                if self.cfg.common.fp16 and not self.cuda and "CUDA" in str(error):
                    raise UserError(
                        "--fp16: a gradient overflowed, which fairseq handles on CUDA devices only; on a CPU use --bf16, "
                        "or start from a smaller loss scale (--fp16-init-scale 1)"
                    ) from error
                raise

        return explained

    if not torch.cuda.is_available():
        _once(Trainer, "train_step", make)


def _on_cuda(args: argparse.Namespace) -> bool:
    import torch

    return torch.cuda.is_available() and not getattr(args, "cpu", False)


def _require_arch(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Without ``--arch`` fairseq-train ends in a bare ``RuntimeError()``."""
    arch = next((action for action in parser._actions if action.dest == "arch"), None)
    given = any(word in ("-a", "--arch") or word.startswith("--arch=") for word in words)
    if arch is None or arch.default is not None or given:
        return
    if {"-h", "--help"} & set(words):
        parser.parse_args(["--help"])
    parser.error("--arch is missing: give the architecture, for example --arch ctc_pmlm (all of them: --help)")


def _help_at_the_second_parse(
    modify_parser: Callable[[argparse.ArgumentParser], None] | None,
) -> Callable[[argparse.ArgumentParser], None]:
    """A ``modify_parser`` that mutes the help action when first called and restores it when called again."""
    calls: list[int] = []

    def modify(parser: argparse.ArgumentParser) -> None:
        if modify_parser is not None:
            modify_parser(parser)
        calls.append(1)
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction):
                if len(calls) == 1:
                    action.__class__ = _MutedHelp
                continue
            if isinstance(action, _MutedHelp) and len(calls) > 1:
                action.__class__ = argparse._HelpAction

    return modify


class _MutedHelp(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the help is printed once all options are known."""


def train_on_cpu_under_torchrun() -> None:
    """``torchrun … fairseq-train`` without GPUs: one training over all processes, not N that overwrite each other.

    fairseq reads torchrun's environment only where it sees several CUDA devices. Resuming lets each process read the
    checkpoint itself, because broadcasting it fails under torch's safe loading.
    """
    from fairseq.distributed import utils as distributed_utils

    def make(call_main: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call_main)
        def mended(cfg: Any, main: Callable[..., Any], **kwargs: Any) -> Any:
            _join_torchrun_on_cpu(cfg)
            if cfg.distributed_training.distributed_world_size > 1:
                cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
            return call_main(cfg, main, **kwargs)

        return mended

    _once(distributed_utils, "call_main", make)


def _join_torchrun_on_cpu(cfg: Any) -> None:
    import torch

    torchrun = all(key in os.environ for key in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"))
    on_cpu = cfg.common.cpu or not torch.cuda.is_available()
    settings = cfg.distributed_training
    if not (torchrun and on_cpu) or settings.distributed_init_method is not None:
        return
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size == 1:
        return
    settings.distributed_init_method = "env://"
    settings.distributed_world_size = world_size
    settings.distributed_rank = int(os.environ["RANK"])
    settings.distributed_backend = "gloo"
    settings.distributed_no_spawn = True
    settings.device_id = 0
    logger.info("torchrun on CPUs: process %d of %d, backend gloo", settings.distributed_rank, world_size)


def wrap_cpu_models_in_ddp() -> None:
    """fairseq's default ``--ddp-backend pytorch_ddp`` names a CUDA device even where the model sits on the CPU."""
    from fairseq.models import distributed_fairseq_model

    def make(ddp: Callable[..., Any]) -> Callable[..., Any]:
        def on_any_device(*args: Any, **kwargs: Any) -> Any:
            if next(kwargs["module"].parameters()).device.type == "cpu":
                kwargs.update(device_ids=None, output_device=None)
            return ddp(*args, **kwargs)

        return on_any_device

    _once(distributed_fairseq_model, "DistributedDataParallel", make)


def read_interactive_lines_exactly() -> None:
    """``fairseq-interactive``: a line ends at ``\\n`` alone, and bytes that are no UTF-8 do not end the session.

    Python's text mode also breaks lines at a lone carriage return, after which output line k no longer belongs to
    input line k.
    """
    for name in ("fairseq_cli.interactive", "__main__"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "buffered_read"):
            module.buffered_read = _buffered_read  # type: ignore[attr-defined]


def _buffered_read(input: str, buffer_size: int) -> Iterator[list[str]]:  # fairseq's parameter names
    """Lists of at most ``buffer_size`` stripped lines of the file ``input`` (``-``: standard input)."""
    buffer: list[str] = []
    for line in _lines_with_replacements(input):
        buffer.append(line.strip())
        if len(buffer) >= buffer_size:
            yield buffer
            buffer = []
    if buffer:
        yield buffer


def _lines_with_replacements(path: str) -> Iterator[str]:
    """Lines of a byte stream split at ``\\n``; what is no UTF-8 becomes U+FFFD, with a warning that names the line."""
    with contextlib.ExitStack() as stack:
        if path == "-":
            stream = sys.stdin.buffer
        else:
            try:
                stream = stack.enter_context(Path(path).open("rb"))
            except OSError as error:
                raise UserError(
                    f"--input {path}: {error.strerror}; give a readable text file, or - for stdin"
                ) from error
        for number, raw in enumerate(stream, start=1):
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                logger.warning("input line %d: byte %d is no UTF-8; replaced by U+FFFD", number, error.start + 1)
                yield raw.decode("utf-8", errors="replace")
