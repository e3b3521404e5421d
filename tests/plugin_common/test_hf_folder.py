"""PMLM folders: what is wrong with them is said completely; saving is all or nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from plugin_common import compat
from plugin_common.dictionary_file import FAIRSEQ_SYMBOLS, MASK, write_dictionary
from plugin_common.errors import UserError
from plugin_common.hf_folder import (
    PMLM_FILES,
    check_output_folder,
    check_pmlm_folder,
    embedding_rows,
    load_masked_lm,
    looks_like_path,
    read_config,
    save_pmlm,
)
from plugin_common.masked_lm_families import FAMILIES

compat.hide_broken_torchaudio()

SYMBOLS = [*FAIRSEQ_SYMBOLS, "a", "b", "c", MASK]
ENTRIES = [(symbol, 1) for symbol in SYMBOLS[4:]]
SMALL = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}


def tiny_model(architecture: str = "xlm-roberta", rows: int = len(SYMBOLS)):
    from transformers import AutoConfig, AutoModelForMaskedLM

    sizes = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8} if architecture == "distilbert" else SMALL
    torch.manual_seed(1)
    config = AutoConfig.for_model(architecture, vocab_size=rows, max_position_embeddings=12, **sizes)
    return AutoModelForMaskedLM.from_config(config).eval()


def tiny_tokenizer(symbols: list[str] = SYMBOLS):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram([(symbol, -1.0) for symbol in symbols], unk_id=3, byte_fallback=False))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": MASK}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent") / "pmlm"
    save_pmlm(tiny_model(), tiny_tokenizer(), ENTRIES, folder, provenance={"source": "a test"})
    return folder


@pytest.fixture
def pmlm(made_once: Path, tmp_path: Path) -> Path:
    """A sound PMLM folder that the test may spoil."""
    return Path(shutil.copytree(made_once, tmp_path / "pmlm"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_sound_folder_passes_and_loads(pmlm: Path) -> None:
    check_pmlm_folder(pmlm)
    check_pmlm_folder(str(pmlm))
    assert read_config(pmlm).vocab_size == len(SYMBOLS)
    model = load_masked_lm(pmlm)
    assert not model.training
    assert model.dtype == torch.float32
    assert load_masked_lm(str(pmlm), torch.bfloat16).dtype == torch.bfloat16
    assert json.loads((pmlm / "pmlm.json").read_text(encoding="utf-8")) == {"source": "a test"}


def test_saved_weights_and_tokenizer_are_those_given(pmlm: Path) -> None:
    from transformers import AutoTokenizer

    saved, given = load_masked_lm(pmlm).state_dict(), tiny_model().state_dict()
    assert saved.keys() == given.keys()
    assert all(torch.equal(saved[name], given[name]) for name in given)
    assert AutoTokenizer.from_pretrained(pmlm).get_vocab() == {symbol: row for row, symbol in enumerate(SYMBOLS)}


def test_tokenizer_config_names_a_class_that_takes_the_file_as_it_is(made_once: Path) -> None:
    """The class must exist in transformers 4 and 5 and must not rebuild the normaliser from defaults of its own."""
    config = json.loads((made_once / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_all_files_may_be_read_by_whoever_may_read_one(made_once: Path) -> None:
    assert len({file.stat().st_mode for file in made_once.iterdir()}) == 1


@pytest.mark.parametrize("architecture", FAMILIES)
def test_rows_of_every_family_are_found(architecture: str, tmp_path: Path) -> None:
    tiny_model(architecture, rows=11).save_pretrained(tmp_path)
    assert embedding_rows(tmp_path / "model.safetensors", FAMILIES[architecture]) == 11


def test_missing_folder() -> None:
    for function in (check_pmlm_folder, read_config, load_masked_lm):
        with pytest.raises(UserError, match=r"/no/such/folder: no such folder"):
            function("/no/such/folder")


def test_all_missing_files_are_named_with_the_command_that_makes_them(pmlm: Path) -> None:
    for name in PMLM_FILES[1:]:
        (pmlm / name).unlink()
    with pytest.raises(UserError) as error:
        check_pmlm_folder(pmlm)
    assert str(error.value).startswith(
        f"{pmlm} lacks model.safetensors, tokenizer.json, tokenizer_config.json, dict.txt; make a PMLM folder with "
        "`nat prepare-pmlm --pmlm FOLDER-OR-NAME --corpus FILE … --output DIR`"
    )


@pytest.mark.parametrize("name", PMLM_FILES)
def test_each_missing_file_is_named(pmlm: Path, name: str) -> None:
    (pmlm / name).unlink()
    with pytest.raises(UserError, match=f"lacks {name};"):
        check_pmlm_folder(pmlm)


def test_several_problems_come_together(pmlm: Path) -> None:
    (pmlm / "tokenizer.json").unlink()
    (pmlm / "dict.txt").write_text("a 1\nb\n", encoding="utf-8")
    edit_json(pmlm / "config.json", model_type="gpt2")
    with pytest.raises(UserError) as error:
        check_pmlm_folder(pmlm)
    text = str(error.value)
    assert text.startswith("3 problems:")
    assert "lacks tokenizer.json" in text
    assert "dict.txt, line 2: expected `symbol count`" in text
    assert "'gpt2' is not supported" in text


@pytest.mark.parametrize("model_type", ["gpt2", "t5", "camembert"])
def test_foreign_architecture_is_named_with_the_supported_ones(pmlm: Path, model_type: str) -> None:
    edit_json(pmlm / "config.json", model_type=model_type)
    for function in (check_pmlm_folder, load_masked_lm):
        with pytest.raises(UserError) as error:
            function(pmlm)
        assert f"architecture {model_type!r} is not supported" in str(error.value)
        assert "xlm-roberta, roberta, bert, distilbert" in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a":\n 1,,}', "line 2: invalid JSON"),
        ("[]", "`model_type` is missing"),
        ("{}", "`model_type` is missing"),
        ('{"model_type": "no-such-model"}', "architecture 'no-such-model' is not supported"),
        ('{"model_type": "bert", "vocab_size": "many"}', "'bert' configuration"),
    ],
)
def test_broken_config(pmlm: Path, content: str, problem: str) -> None:
    (pmlm / "config.json").write_text(content, encoding="utf-8")
    for function in (read_config, check_pmlm_folder):
        with pytest.raises(UserError, match=problem):
            function(pmlm)


def test_config_that_is_no_text(pmlm: Path) -> None:
    (pmlm / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_config(pmlm)


def test_dictionary_with_more_entries_than_rows(pmlm: Path) -> None:
    write_dictionary(pmlm / "dict.txt", [*ENTRIES[:-1], ("d", 1), ENTRIES[-1]])
    with pytest.raises(UserError) as error:
        check_pmlm_folder(pmlm)
    assert "model.safetensors has 8 embedding rows, but dict.txt has 5 entries (9 with fairseq's 4)" in str(error.value)
    assert "disagree on 2 of 9 symbols, first on 'd': row 7 of the dictionary, id None" in str(error.value)


def test_dictionary_of_another_folder(pmlm: Path) -> None:
    write_dictionary(pmlm / "dict.txt", [("b", 1), ("a", 1), *ENTRIES[2:]])
    with pytest.raises(UserError, match=r"disagree on 2 of 8 symbols, first on 'b': row 4 .* id 5"):
        check_pmlm_folder(pmlm)


def test_dictionary_without_mask_at_the_end(pmlm: Path) -> None:
    write_dictionary(pmlm / "dict.txt", [ENTRIES[-1], *ENTRIES[:-1]])
    with pytest.raises(UserError, match="the last entry must be <mask>, found 'c'"):
        check_pmlm_folder(pmlm)


def test_tokenizer_with_more_symbols_than_the_dictionary(pmlm: Path) -> None:
    tiny_tokenizer([*SYMBOLS, "z"]).backend_tokenizer.save(str(pmlm / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer\.json has 9 symbols, dict\.txt \(with fairseq's 4\) 8"):
        check_pmlm_folder(pmlm)


def test_config_that_belongs_to_other_weights(pmlm: Path) -> None:
    edit_json(pmlm / "config.json", vocab_size=9)
    with pytest.raises(UserError, match=r"config\.json says vocab_size 9, model\.safetensors has 8 embedding rows"):
        check_pmlm_folder(pmlm)
    with pytest.raises(UserError, match="cannot be loaded as a masked LM"):
        load_masked_lm(pmlm)


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"junk" * 99])
def test_damaged_weights(pmlm: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = pmlm / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        check_pmlm_folder(pmlm)
    with pytest.raises(UserError, match="cannot be loaded as a masked LM"):
        load_masked_lm(pmlm)


def test_weights_of_another_architecture(pmlm: Path) -> None:
    tiny_model("bert").save_pretrained(pmlm / "bert")
    (pmlm / "bert/model.safetensors").replace(pmlm / "model.safetensors")
    with pytest.raises(UserError, match=r"the tensor roberta\.embeddings\.word_embeddings\.weight is missing"):
        check_pmlm_folder(pmlm)
    with pytest.raises(UserError, match="its weights lack"):
        load_masked_lm(pmlm)


def test_tokenizer_file_that_is_none(pmlm: Path) -> None:
    (pmlm / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer file"):
        check_pmlm_folder(pmlm)


def test_name_that_the_hub_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:
        load_masked_lm("nobody/such-a-model")
    text = str(error.value)
    assert text.startswith(
        "nobody/such-a-model: there is no such folder here, and it could not be loaded from the model"
    )
    assert text.endswith("check the name, or fetch the model on a machine with access and give its folder")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("bert-base", False),
        ("owner/name", False),
        ("/x", True),
        ("./x", True),
        ("~/x", True),
        ("a/b/c", True),
        ("x/", True),
    ],
)
def test_what_is_a_path(name: str, path: bool) -> None:
    assert looks_like_path(name) is path


def test_output_that_is_not_empty_is_refused(pmlm: Path) -> None:
    before = {file.name: file.read_bytes() for file in pmlm.iterdir()}
    with pytest.raises(UserError, match="exists and is not empty; give another folder, or add --overwrite"):
        save_pmlm(tiny_model(), tiny_tokenizer(), ENTRIES, pmlm)
    assert {file.name: file.read_bytes() for file in pmlm.iterdir()} == before


def test_overwriting_replaces_the_folder_and_spares_what_others_put_there(pmlm: Path) -> None:
    (pmlm / "theirs").touch()
    save_pmlm(
        tiny_model(rows=7), tiny_tokenizer([*SYMBOLS[:6], MASK]), [("a", 1), ("b", 1), (MASK, 0)], pmlm, overwrite=True
    )
    check_pmlm_folder(pmlm)
    assert (pmlm / "theirs").exists()
    assert read_config(pmlm).vocab_size == 7
    assert list(pmlm.parent.iterdir()) == [pmlm]


def test_overwriting_spares_other_folders(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="replaces PMLM folders only"):
        check_output_folder(tmp_path, overwrite=True)


def test_output_that_is_a_file_is_refused_and_an_empty_folder_taken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        check_output_folder(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    save_pmlm(tiny_model(), tiny_tokenizer(), ENTRIES, tmp_path / "empty")
    check_pmlm_folder(tmp_path / "empty")


def test_parts_that_do_not_fit_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 9 embedding rows"):
        save_pmlm(tiny_model(rows=9), tiny_tokenizer(), ENTRIES, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_failure_while_writing_keeps_the_old_folder(pmlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in pmlm.iterdir()}

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    model = tiny_model()
    monkeypatch.setattr(model, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_pmlm(model, tiny_tokenizer(), ENTRIES, pmlm, overwrite=True)
    assert {file.name: file.read_bytes() for file in pmlm.iterdir()} == before
    assert list(pmlm.parent.iterdir()) == [pmlm]
