import argparse
from pathlib import Path
from typing import Any

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from hydra.core.config_store import ConfigStore

import nat_plugin
from plugin_common.errors import UserError

nat_plugin.register()

from nat_plugin.models.presets import PRESETS  # noqa: E402
from tests.toy import OPTIMIZER  # noqa: E402

SMALL = ("--encoder-layers", "1", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "16",
         "--encoder-attention-heads", "2", "--encoder-positions", "24")  # fmt: skip


def parsed(arch: str, *words: str) -> argparse.Namespace:
    common = ["data", "--task", "ctc_nat", "--criterion", "ctc_nat_loss", *OPTIMIZER, "--batch-size", "2"]
    return options.parse_args_and_arch(options.get_training_parser(), [*common, "--arch", arch, *words])


def model_config(arch: str, *words: str) -> Any:
    return convert_namespace_to_omegaconf(parsed(arch, *words)).model


def test_the_architectures_that_documents_name() -> None:
    assert set(PRESETS) == {
        "ctc_pmlm_tiny", "ctc_xlmr_base", "ctc_xlmr_large", "ctc_mbert_base", "ctc_distilmbert_base"
    }  # fmt: skip


@pytest.mark.parametrize("arch", PRESETS)
def test_command_line_over_preset_over_default(arch: str) -> None:
    preset = PRESETS[arch]
    cfg = model_config(arch)
    assert {name: cfg[name] for name in preset.defaults} == preset.defaults
    assert (cfg.upsample_ratio, cfg.dropout) == (2.0, 0.1)
    cfg = model_config(arch, "--encoder-layers", "3", "--upsample-ratio", "1.5")
    assert (cfg.encoder_layers, cfg.upsample_ratio) == (3, 1.5)
    assert cfg.encoder_embed_dim == preset.shape["encoder_embed_dim"]


@pytest.mark.parametrize("arch", PRESETS)
def test_every_preset_trains_from_random_weights(arch: str, new_model: Any) -> None:
    cfg = model_config(arch, "--random-init", *SMALL)
    _, task = new_model()
    model = task.build_model(cfg)
    assert model.masked_lm.config.model_type == PRESETS[arch].shape["pmlm_type"]
    assert model.masked_lm.weight.shape == (65, 16)
    assert model.max_upsampled == 23
    assert cfg._name == arch
    assert cfg.pmlm is None


@pytest.mark.parametrize("arch", [name for name, preset in PRESETS.items() if preset.hub_name is not None])
def test_a_preset_without_folder_asks_for_the_model_by_its_hub_name(
    arch: str, new_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    _, task = new_model()
    hub_name = PRESETS[arch].hub_name
    with pytest.raises(
        UserError, match=rf"--pmlm {hub_name}: .*could not be loaded from the model hub .*give its folder"
    ):
        task.build_model(model_config(arch))


def test_a_folder_of_another_shape_names_every_difference(pieces: Any, new_model: Any) -> None:
    _, task = new_model()
    with pytest.raises(UserError) as caught:
        task.build_model(model_config("ctc_mbert_base", "--pmlm", str(pieces.pmlm)))
    message = str(caught.value)
    assert message.startswith("4 problems:")
    assert "pmlm_type is xlm-roberta, but --arch ctc_mbert_base stands for bert" in message
    assert "encoder_layers is 1, but --arch ctc_mbert_base stands for 12" in message
    assert "use --arch ctc_pmlm for a folder of any shape" in message


def test_without_preset_the_shape_is_that_of_the_folder(pieces: Any, load_models: Any) -> None:
    (model,), _ = load_models(pieces.bin, pieces.checkpoint)
    assert model.masked_lm.config.num_hidden_layers == 1
    assert model.masked_lm.config.hidden_size == 64
    assert model.max_upsampled == 63


@pytest.mark.parametrize("arch", PRESETS)
def test_hydra_finds_every_preset(arch: str) -> None:
    node = ConfigStore.instance().load(f"model/{arch}.yaml").node
    assert {name: node[name] for name in PRESETS[arch].defaults} == PRESETS[arch].defaults


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--blank-symbol", "</s>"), "argument --blank-symbol: invalid choice"),
        (("--mask-placement", "middle"), "argument --mask-placement: invalid choice"),
        (("--pmlm-type", "gpt2"), "argument --pmlm-type: invalid choice"),
        (("--upsample-ratio", "two"), "argument --upsample-ratio: invalid float value"),
    ],
)
def test_values_that_are_no_choice_are_wrong_use(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parsed("ctc_pmlm", *words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_shape_without_pmlm_must_be_consistent(new_model: Any) -> None:
    _, task = new_model()
    with pytest.raises(UserError, match=r"--encoder-embed-dim 16 is no multiple of --encoder-attention-heads 3"):
        task.build_model(model_config("ctc_pmlm_tiny", *SMALL, "--encoder-attention-heads", "3"))
    with pytest.raises(UserError, match=r"--pmlm is missing: give a folder .* or --random-init"):
        task.build_model(model_config("ctc_pmlm"))


def test_only_architectures_of_this_task(new_model: Any, tmp_path: Path) -> None:
    _, task = new_model()
    with pytest.raises(UserError, match=r"--task ctc_nat trains the architectures ctc_\*, not transformer"):
        task.build_model(model_config("transformer"))


def test_a_folder_given_to_the_tiny_preset_is_not_thrown_away() -> None:
    assert model_config("ctc_pmlm_tiny").random_init
    assert not model_config("ctc_pmlm_tiny", "--pmlm", "folder").random_init
    assert model_config("ctc_pmlm_tiny", "--pmlm", "folder", "--random-init").random_init
