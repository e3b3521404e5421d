"""fairseq-hydra-train: the same task, architecture and criterion from a YAML file."""

from pathlib import Path

import pytest

from plugin_common.checkpoint_files import check_and_load
from tests.conftest import PLUGIN, Runner, Toy

pytestmark = pytest.mark.slow

CONFIG = """\
# @package _global_
common: {{user_dir: {plugin}, cpu: true, log_format: simple}}
task: {{_name: ctc_nat, data: {data}, source_lang: en, target_lang: de, eval_bleu: true}}
model: {model}
criterion: {{_name: ctc_nat_loss}}
optimizer: {{_name: adam, adam_betas: "(0.9,0.98)"}}
lr_scheduler: {{_name: fixed}}
optimization: {{lr: [0.001], max_update: 4}}
dataset: {{max_tokens: 600}}
checkpoint: {{save_dir: {save}, best_checkpoint_metric: bleu, maximize_best_checkpoint_metric: true}}
"""


@pytest.mark.parametrize(
    ("model", "layers", "blank"),
    [
        ("{_name: ctc_pmlm_tiny}", 2, "<s>"),
        (
            "{_name: ctc_pmlm, random_init: true, encoder_layers: 1, encoder_embed_dim: 32, encoder_ffn_embed_dim: 64, "
            "encoder_attention_heads: 2, blank_symbol: <mask>, mask_placement: right}",
            1,
            "<mask>",
        ),
    ],
    ids=["preset", "by-shape"],
)
def test_trains_and_translates(run: Runner, toy: Toy, tmp_path: Path, model: str, layers: int, blank: str) -> None:
    (tmp_path / "nat.yaml").write_text(
        CONFIG.format(plugin=PLUGIN, data=toy.bin, model=model, save=tmp_path / "run"), encoding="utf-8"
    )
    run("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "nat", cwd=tmp_path)
    saved = check_and_load(tmp_path / "run" / "checkpoint_best.pt")["cfg"]["model"]
    assert (saved["encoder_layers"], saved["blank_symbol"]) == (layers, blank)
    done = run(
        "fairseq-generate", toy.bin, "--user-dir", PLUGIN, "--task", "ctc_nat", "--cpu", "--gen-subset", "test",
        "--path", tmp_path / "run" / "checkpoint_best.pt",
    )  # fmt: skip
    assert sorted(done.lines("H")) == list(range(29))
