"""What a current Python, torch and transformers need before fairseq and transformers are used together.

Each function mends one thing at run time and can be called any number of times; :func:`apply` calls them all. Nothing
of fairseq is copied; a cure goes once the fault is gone upstream (each has a test that fails without it).
"""

import argparse
import functools
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plugin_common.compat_interactive import read_interactive_lines_exactly
from plugin_common.compat_precision import save_master_weights
from plugin_common.compat_sharding import train_sharded_models
from plugin_common.compat_trainer import (
    explain_foreign_checkpoints,
    explain_fp16_overflow_on_cpu,
    leave_absent_parameters_alone,
    put_empty_batches_first,
    train_as_one_under_torchrun,
    wrap_cpu_models_in_ddp,
)
from plugin_common.errors import UserError, raise_all, show_user_errors_plainly
from plugin_common.patching import replace_once


def apply() -> None:
    """Mend all; called by a plugin's ``register()``."""
    hide_broken_torchaudio()
    silence_hydra_notices()
    silence_torch_notices()
    from plugin_common.checkpoint_files import allow_scalar_globals

    allow_scalar_globals()
    train_sharded_models()  # the check below reads the file first
    check_checkpoints_before_loading()
    copy_checkpoints_atomically()
    refuse_missing_restore_file()
    refuse_missing_model_files()
    mend_the_argument_parser()
    explain_fp16_overflow_on_cpu()
    put_empty_batches_first()
    leave_absent_parameters_alone()
    save_master_weights()
    explain_foreign_checkpoints()
    train_as_one_under_torchrun()
    wrap_cpu_models_in_ddp()
    read_interactive_lines_exactly()
    show_user_errors_plainly()


def hide_broken_torchaudio() -> None:
    """Count torchaudio as absent where it cannot load its libraries (a CUDA build beside a CPU torch).

    transformers imports it wherever it is installed, and fails with OSError in unrelated classes such as XLM-R's.
    """
    if "torchaudio" in sys.modules:
        return
    try:
        importlib.import_module("torchaudio")
    except ImportError:
        return
    except OSError:
        for name in [n for n in sys.modules if n == "torchaudio" or n.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
        imported = sys.modules.get("transformers.utils.import_utils")
        if imported is not None:  # it may have looked already, and it remembers the answer
            imported.is_torchaudio_available.cache_clear()


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


def silence_torch_notices() -> None:
    """fairseq asks torch for pinned memory on every device, and for some things by their old names.

    FSDP2 warns of models that return a view, which none here changes in place.
    """
    warnings.filterwarnings("ignore", message=r"'pin_memory' argument is set as true but no", category=UserWarning)
    warnings.filterwarnings("ignore", message=r"`torch.cuda.amp.autocast", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`broadcast_buffers` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view", category=UserWarning)


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

    replace_once(checkpoint_utils, "load_checkpoint_to_cpu", make)


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

    replace_once(PathManager, "copy", make)


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

    replace_once(checkpoint_utils, "load_checkpoint", make)


def refuse_missing_model_files() -> None:
    """``--path`` naming files that are not there: all of them in one message instead of a traceback for the first."""
    from fairseq import checkpoint_utils
    from fairseq.file_io import PathManager

    def make(load: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(load)
        def checked(
            filenames: Sequence[str],
            arg_overrides: dict[str, Any] | None = None,
            task: Any = None,
            strict: bool = True,
            suffix: str = "",
            num_shards: int = 1,
            state: dict[str, Any] | None = None,
        ) -> Any:
            if state is None and not suffix and num_shards == 1:
                raise_all(
                    f"--path {name}: no such checkpoint; `ls {Path(name).parent}` shows what is there"
                    for name in filenames
                    if not PathManager.exists(name)
                )
            return load(filenames, arg_overrides, task, strict, suffix, num_shards, state)

        return checked

    replace_once(checkpoint_utils, "load_model_ensemble_and_task", make)


def mend_the_argument_parser() -> None:
    """Three faults of fairseq's argument parser.

    ``--bf16`` also sets ``tpu``, which crashes off a TPU. ``--fp16`` flattens gradients into CUDA memory, also on a
    CPU, where ``--fp16-no-flatten-grads`` does the same without. ``--help`` is answered by the first of two parses,
    before the options of the task, model and criterion are known; here it waits for the second.
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

    replace_once(options, "parse_args_and_arch", make)


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
                    action.__class__ = _MutedHelp  # type: ignore[assignment]
                continue
            if isinstance(action, _MutedHelp) and len(calls) > 1:
                action.__class__ = argparse._HelpAction  # type: ignore[assignment]

    return modify


class _MutedHelp(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the help is printed once all options are known."""
