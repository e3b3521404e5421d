import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

import nat_plugin

nat_plugin.register()

from nat_plugin.models.ctc_pmlm import CtcPmlmConfig  # noqa: E402
from nat_plugin.models.masked_lm import config_from_json  # noqa: E402
from nat_plugin.tasks.ctc_nat import CtcNatConfig, CtcNatTask  # noqa: E402
from nat_plugin.tasks.pmlm_loading import check_dictionary, dictionary_digest  # noqa: E402
from plugin_common.errors import UserError  # noqa: E402
from tests.toy import Pieces  # noqa: E402


@pytest.fixture
def folder(pieces: Pieces, tmp_path: Path) -> Path:
    """A copy of the PMLM folder that a test may spoil."""
    return Path(shutil.copytree(pieces.pmlm, tmp_path / "pmlm"))


def config(pmlm: Path | str | None, **options: Any) -> Any:
    cfg = OmegaConf.structured(CtcPmlmConfig(pmlm=None if pmlm is None else str(pmlm), **options))
    OmegaConf.update(cfg, "_name", "ctc_pmlm", force_add=True)
    return cfg


def build(pmlm: Path | str, dictionary: Path | Dictionary, **options: Any) -> Any:
    data = dictionary if isinstance(dictionary, Dictionary) else Dictionary.load(str(dictionary))
    return CtcNatTask(CtcNatConfig(), data, data).build_model(config(pmlm, **options)).eval()


def error_of(pmlm: Path | str, dictionary: Path | Dictionary) -> str:
    with pytest.raises(UserError) as caught:
        build(pmlm, dictionary)
    return str(caught.value)


# ---- what is loaded -------------------------------------------------------------------------------------------------


def test_the_model_starts_with_the_folders_weights(folder: Path) -> None:
    from transformers import AutoModelForMaskedLM

    model = build(folder, folder / "dict.txt", upsample_ratio=1.0)
    reference = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokens = torch.tensor([[5, 9, 17, 30, 2], [8, 2, 1, 1, 1]])
    with torch.no_grad():
        output = model(tokens, torch.tensor([5, 2]))
        expected = reference(input_ids=torch.tensor([[0, 5, 9, 17, 30]])).logits[0, 1:]
    torch.testing.assert_close(model.logits(output)[0], expected, rtol=1e-5, atol=1e-5)


def test_random_init_takes_the_shape_alone(folder: Path) -> None:
    torch.manual_seed(1)
    trained, fresh = build(folder, folder / "dict.txt"), build(folder, folder / "dict.txt", random_init=True)
    assert {n: p.shape for n, p in trained.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}
    assert not torch.equal(trained.masked_lm.weight, fresh.masked_lm.weight)


def test_the_configuration_that_travels_in_the_checkpoint(folder: Path) -> None:
    model = build(folder, folder / "dict.txt")
    assert config_from_json(model.cfg.pmlm_config).hidden_size == 64
    assert model.cfg.dictionary_digest == dictionary_digest(Dictionary.load(str(folder / "dict.txt")).symbols)


# ---- folders that are broken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "dict.txt"]
)
def test_a_missing_file_is_named(folder: Path, name: str, pieces: Pieces) -> None:
    (folder / name).unlink()
    assert f"{folder} lacks {name}; make a PMLM folder with `nat prepare-pmlm" in error_of(
        folder, pieces.pmlm / "dict.txt"
    )


def test_all_problems_at_once(folder: Path, pieces: Pieces) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes(b"no weights")
    message = error_of(folder, pieces.pmlm / "dict.txt")
    assert "lacks tokenizer.json" in message
    assert "damaged or not a safetensors file" in message


def test_a_foreign_architecture(folder: Path, pieces: Pieces) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 73}))
    assert "architecture 'gpt2' is not supported; use a masked LM of one of xlm-roberta" in error_of(
        folder, pieces.pmlm / "dict.txt"
    )


def test_rows_that_are_not_those_of_its_dictionary(folder: Path, pieces: Pieces) -> None:
    lines = (folder / "dict.txt").read_text().splitlines()
    (folder / "dict.txt").write_text("\n".join([*lines[:-1], "more 1", lines[-1]]) + "\n")
    message = error_of(folder, pieces.pmlm / "dict.txt")
    assert f"has 73 embedding rows, but dict.txt has {len(lines) + 1} entries" in message
    assert "both files must come from one run of `nat prepare-pmlm`" in message


def test_a_missing_folder(pieces: Pieces, tmp_path: Path) -> None:
    message = error_of(tmp_path / "missing", pieces.pmlm / "dict.txt")
    assert message.startswith(f"--pmlm {tmp_path}/missing: no such folder; make a PMLM folder with `nat prepare-pmlm")


# ---- dictionaries that do not fit -----------------------------------------------------------------------------------


def other_dictionary(folder: Path, change: Callable[[list[str]], list[str]]) -> Path:
    lines = (folder / "dict.txt").read_text().splitlines()
    (folder.parent / "other.txt").write_text("\n".join(change(lines)) + "\n")
    return folder.parent / "other.txt"


def test_the_dictionary_of_another_folder_with_as_many_symbols(folder: Path) -> None:
    lines = (folder / "dict.txt").read_text().splitlines()
    other = other_dictionary(folder, lambda lines: [*lines[:6], lines[7], lines[6], *lines[8:]])
    message = error_of(folder, other)
    first, second = lines[6].split()[0], lines[7].split()[0]
    assert f"the first difference is at row 10, '{first}' there and '{second}' in data-bin" in message
    assert f"`--srcdict {folder}/dict.txt --tgtdict {folder}/dict.txt`" in message


def test_a_dictionary_that_lacks_the_end(folder: Path) -> None:
    other = other_dictionary(folder, lambda lines: [*lines[:-5], lines[-1]])
    message = error_of(folder, other)
    assert "its dict.txt (73 symbols) is not the dictionary of data-bin (69 symbols)" in message


def test_a_dictionary_without_mask(folder: Path) -> None:
    message = error_of(folder, other_dictionary(folder, lambda lines: lines[:-1]))
    assert "the dictionary of data-bin has no <mask>; make dict.txt with `nat prepare-pmlm`" in message


def test_a_checkpoint_meets_its_own_dictionary_only() -> None:
    digest = dictionary_digest(["<s>", "a", "b"])
    check_dictionary(["<s>", "a", "b"], digest)
    check_dictionary(["whatever"], None)
    for other in (["<s>", "b", "a"], ["<s>", "a"], ["<s>", "a", "b", "c"]):
        with pytest.raises(UserError, match=rf"data-bin \({len(other)} symbols\) is not the one .* was trained with"):
            check_dictionary(other, digest)


def test_symbols_that_are_no_valid_unicode_have_a_digest_too() -> None:
    assert dictionary_digest(["\udc80"]) != dictionary_digest(["\udc81"])


# ---- models by their name on the hub --------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pieces: Pieces) -> Callable[[str, str], str]:
    """``hub(name, model_type)``: a model of the toy's size in the hub's local cache, without network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(name: str, model_type: str) -> str:
        root = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = root / "snapshots" / ("0" * 40)
        shutil.copytree(pieces.pmlm, snapshot, ignore=shutil.ignore_patterns("dict.txt"))
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0" * 40)
        settings = json.loads((snapshot / "config.json").read_text())
        (snapshot / "config.json").write_text(json.dumps({**settings, "model_type": model_type}))
        return name

    return add


def test_a_cached_model_of_the_hub_is_used_by_name(hub: Callable[[str, str], str], pieces: Pieces) -> None:
    named = build(hub("someone/tiny", "xlm-roberta"), pieces.pmlm / "dict.txt")
    local = build(pieces.pmlm, pieces.pmlm / "dict.txt")
    assert torch.equal(named.masked_lm.weight, local.masked_lm.weight)


def test_a_model_of_the_hub_needs_the_same_number_of_rows(hub: Callable[[str, str], str], folder: Path) -> None:
    other = other_dictionary(folder, lambda lines: lines[1:])
    message = error_of(hub("someone/tiny", "xlm-roberta"), other)
    assert "--pmlm someone/tiny has 73 rows, the dictionary of data-bin 72 symbols; run `nat prepare-pmlm" in message


def test_a_bert_of_the_hub_has_other_rows(hub: Callable[[str, str], str], pieces: Pieces) -> None:
    message = error_of(hub("someone/bert", "bert"), pieces.pmlm / "dict.txt")
    assert (
        "rows of a bert model do not stand in a fairseq dictionary's order; run `nat prepare-pmlm --no-prune" in message
    )


def test_a_foreign_model_of_the_hub(hub: Callable[[str, str], str], pieces: Pieces) -> None:
    message = error_of(hub("someone/else", "gpt2"), pieces.pmlm / "dict.txt")
    assert "--pmlm someone/else: architecture gpt2 is not one of xlm-roberta, roberta, bert, distilbert" in message


def test_an_unknown_name(hub: Callable[[str, str], str], pieces: Pieces) -> None:
    message = error_of("someone/unknown", pieces.pmlm / "dict.txt")
    assert (
        "--pmlm someone/unknown: there is no such folder here, and it could not be loaded from the model hub" in message
    )
