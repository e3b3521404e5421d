"""``fairseq-hydra-train`` with a configuration file."""

from pathlib import Path

import pytest

from tests.commands import PLUGIN, Runner
from tests.toy import POSITIONS, TASK, Toy

pytestmark = pytest.mark.slow

CONFIGURATION = """
common: {{user_dir: {plugin}, cpu: true, log_format: simple, log_interval: 1000}}
task: {{_name: ctc_nat, data: {data}, eval_bleu: true}}
model:
  {{_name: ctc_pmlm_tiny, encoder_layers: 1, encoder_positions: {positions}, upsample_ratio: {ratio}, dropout: 0.0}}
criterion: {{_name: ctc_nat_loss}}
optimizer: {{_name: adam, adam_betas: "(0.9,0.98)"}}
lr_scheduler: {{_name: fixed}}
optimization: {{lr: [0.002], max_epoch: 6, clip_norm: 1.0}}
dataset: {{max_tokens: 300}}
checkpoint: {{save_dir: {save}, best_checkpoint_metric: bleu, maximize_best_checkpoint_metric: true}}
"""


def configure(folder: Path, toy: Toy, ratio: float = 2.0) -> tuple[str, ...]:
    settings = {"plugin": PLUGIN, "data": toy.bin, "positions": POSITIONS, "save": folder / "run", "ratio": ratio}
    (folder / "nat.yaml").write_text("# @package _global_\n" + CONFIGURATION.format(**settings))
    return ("fairseq-hydra-train", "--config-dir", str(folder), "--config-name", "nat", f"hydra.run.dir={folder}/hydra")


def test_a_configuration_file_with_a_preset_trains_a_translator(run: Runner, toy: Toy, tmp_path: Path) -> None:
    done = run(*configure(tmp_path, toy), cwd=tmp_path)
    (shape,) = [line for line in done.log.split("\n") if "num. shared model params" in line]
    assert 200_000 < int(shape.split("params: ")[1].split()[0].replace(",", "")) < 300_000, "128 wide, one layer"
    checkpoint = tmp_path / "run" / "checkpoint_best.pt"
    generated = run("fairseq-generate", toy.bin, *TASK, "--path", checkpoint, "--scoring", "sacrebleu")
    right = sum(generated.translations()[i] == line for i, line in enumerate(toy.read("test.de")))
    assert right >= 20


def test_bad_input_is_told(run: Runner, toy: Toy, tmp_path: Path) -> None:
    done = run(*configure(tmp_path, toy, ratio=0.5), cwd=tmp_path, expect=None)
    assert done.status == 1
    assert "--upsample-ratio 0.5: the up-sampling ratio must be a number of at least 1, got 0.5" in done.log
