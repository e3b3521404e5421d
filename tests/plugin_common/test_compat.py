"""Each cure beside the fault: what fairseq does by itself (``__wrapped__``), and what it does mended."""

import argparse
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer

import nat_plugin
from plugin_common import compat
from plugin_common.checkpoint_files import check_and_load
from plugin_common.errors import UserError
from tests.toy import SHAPE, TRAIN, Toy

nat_plugin.register()


def training_options(*words: str) -> list[str]:
    return ["data", "--task", "ctc_nat", "--cpu", *SHAPE, *TRAIN, "--batch-size", "4", *words]


def test_applying_all_cures_again_changes_nothing() -> None:
    compat.apply()  # another test may have set a hook of torch's in between
    cured = [Trainer.train_step, Trainer.load_checkpoint, options.parse_args_and_arch, sys.excepthook]
    compat.apply()
    assert [Trainer.train_step, Trainer.load_checkpoint, options.parse_args_and_arch, sys.excepthook] == cured


# ---- before anything loads -------------------------------------------------------------------------------------------


def test_torchaudio_that_cannot_load_its_libraries_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object')")
    (tmp_path / "torchaudio-2.11.0.dist-info").mkdir()
    (tmp_path / "torchaudio-2.11.0.dist-info" / "METADATA").write_text("Name: torchaudio\nVersion: 2.11.0\n")
    script = textwrap.dedent("""
        import os, sys, torch
        from plugin_common.compat import hide_broken_torchaudio

        child = os.fork()
        if child:
            os.waitpid(child, 0)
            hide_broken_torchaudio()
        try:
            from transformers import XLMRobertaForMaskedLM
        except Exception as error:
            print("mended" if child else "alone", "libcudart" in str(error))
        else:
            print("mended" if child else "alone", XLMRobertaForMaskedLM.__name__)
    """)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(Path(nat_plugin.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout == "alone True\nmended XLMRobertaForMaskedLM\n", done.stderr


def test_hydra_notices_are_silenced_and_other_warnings_not() -> None:
    def warned(cure: Callable[[], None]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            warnings.simplefilter("always")
            cure()
            args = options.parse_args_and_arch(options.get_training_parser(), training_options())
            convert_namespace_to_omegaconf(args)
            warnings.warn("something else", UserWarning, stacklevel=1)
        return [str(one.message) for one in caught if one.category is UserWarning]

    assert len(warned(lambda: None)) > 1
    assert warned(compat.silence_hydra_notices) == ["something else"]


def test_torch_notices_that_fairseq_provokes_are_silenced() -> None:
    def warned(cure: Callable[[], None]) -> list[type[Warning]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            warnings.simplefilter("always")
            cure()
            list(torch.utils.data.DataLoader([1], pin_memory=True))  # type: ignore[arg-type]
            torch.cuda.amp.autocast(enabled=False)
        return [one.category for one in caught]

    assert FutureWarning in warned(lambda: None)
    assert warned(compat.silence_torch_notices) == []


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints_with_bleu_need_the_allowed_globals(toy: Toy) -> None:
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match=r"Unsupported global"):
            torch.load(toy.best, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(before)
    compat.apply()
    assert "model" in checkpoint_utils.load_checkpoint_to_cpu(str(toy.best))


def test_a_flipped_bit_is_loaded_by_fairseq_and_refused_here(toy: Toy, tmp_path: Path) -> None:
    weight = check_and_load(toy.best)["model"]["masked_lm.lm.lm_head.dense.weight"]
    data = bytearray(toy.best.read_bytes())
    data[data.index(weight.numpy().tobytes()) + 6] ^= 64
    (tmp_path / "flipped.pt").write_bytes(data)
    load = checkpoint_utils.load_checkpoint_to_cpu
    loaded = load.__wrapped__(str(tmp_path / "flipped.pt"))["model"]["masked_lm.lm.lm_head.dense.weight"]
    assert not torch.equal(loaded, weight)
    with pytest.raises(UserError, match=r"flipped.pt: the checkpoint is damaged: the checksum"):
        load(str(tmp_path / "flipped.pt"))


def test_a_foreign_file_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "foreign.pt")
    with pytest.raises(KeyError, match=r"best_loss"):
        checkpoint_utils.load_checkpoint_to_cpu.__wrapped__(str(tmp_path / "foreign.pt"))
    with pytest.raises(UserError, match=r"foreign.pt: not a checkpoint"):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "foreign.pt"))


def test_killed_while_copying_the_last_checkpoint_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, last = tmp_path / "checkpoint2.pt", tmp_path / "checkpoint_last.pt"
    new.write_bytes(b"second epoch")

    def dies_halfway(source: str, destination: str) -> None:
        Path(destination).write_bytes(Path(source).read_bytes()[:6])
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", dies_halfway)
    for copy, left in ((PathManager.copy.__wrapped__, b"second"), (PathManager.copy, b"first epoch")):
        last.write_bytes(b"first epoch")
        with pytest.raises(KeyboardInterrupt):
            copy(str(new), str(last), overwrite=True)
        assert last.read_bytes() == left
    monkeypatch.undo()
    assert PathManager.copy(str(new), str(last), overwrite=True)
    assert last.read_bytes() == b"second epoch"


def test_a_missing_restore_file_is_refused(toy: Toy, set_up_training: Any, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pt")
    training = set_up_training(toy.bin, "--restore-file", missing, "--save-dir", str(tmp_path))
    state, _ = checkpoint_utils.load_checkpoint.__wrapped__(training.cfg.checkpoint, training.trainer)
    assert state is None, "fairseq starts from scratch without a word"
    with pytest.raises(UserError, match=rf"--restore-file {missing}: no such file; give an existing checkpoint"):
        checkpoint_utils.load_checkpoint(training.cfg.checkpoint, training.trainer)


def test_missing_model_files_are_all_named() -> None:
    load = checkpoint_utils.load_model_ensemble_and_task
    with pytest.raises(OSError, match=r"Model file not found: no/a.pt"):
        load.__wrapped__(["no/a.pt", "b.pt"])
    with pytest.raises(UserError, match=r"(?s)--path no/a.pt: no such checkpoint; `ls no`.*--path b.pt: .* `ls \.`"):
        checkpoint_utils.load_model_ensemble(["no/a.pt", "b.pt"])


# ---- the argument parser ---------------------------------------------------------------------------------------------


def parsed(words: list[str], parse: Callable[..., Any] = options.parse_args_and_arch) -> argparse.Namespace:
    return parse(options.get_training_parser(), words)


def test_bf16_is_not_tpu() -> None:
    words = training_options("--bf16")
    assert parsed(words, options.parse_args_and_arch.__wrapped__).tpu
    assert not parsed(words).tpu
    assert parsed([*words, "--tpu"]).tpu
    assert not parsed(training_options("--memory-efficient-bf16")).tpu


def test_fp16_on_a_cpu_does_not_flatten_gradients_into_cuda_memory() -> None:
    words = training_options("--fp16")
    assert not parsed(words, options.parse_args_and_arch.__wrapped__).fp16_no_flatten_grads
    assert parsed(words).fp16_no_flatten_grads
    assert not parsed(training_options()).fp16_no_flatten_grads


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_the_options_of_task_model_and_criterion(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = training_options(flag)
    plugin_options = ("--upsample-ratio", "--blank-symbol", "--impossible-targets", "--ctc-chunk-rows")

    def help_text(parse: Callable[..., Any]) -> str:
        with pytest.raises(SystemExit) as end:
            parsed(words, parse)
        assert end.value.code == 0
        return capsys.readouterr().out

    assert not any(option in help_text(options.parse_args_and_arch.__wrapped__) for option in plugin_options)
    shown = help_text(options.parse_args_and_arch)
    assert all(option in shown for option in (*plugin_options, "--max-tokens", "--lr-scheduler"))
    assert "pmlm-config" not in shown
    assert "dictionary-digest" not in shown


def test_a_missing_architecture_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "--task", "ctc_nat", "--optimizer", "adam"]
    with pytest.raises(RuntimeError) as bare:
        parsed(words, options.parse_args_and_arch.__wrapped__)
    assert str(bare.value) == ""
    with pytest.raises(SystemExit) as end:
        parsed(words)
    assert end.value.code == 2
    assert "--arch is missing: give the architecture, for example --arch ctc_pmlm" in capsys.readouterr().err


def test_help_without_an_architecture_is_still_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parsed(["data", "--help"])
    assert end.value.code == 0
    assert "--max-tokens" in capsys.readouterr().out
