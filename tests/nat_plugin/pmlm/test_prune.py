"""Pruning a masked LM: rows, logits, fairseq's view of the dictionary; for every kind of source."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from transformers import AutoModelForMaskedLM, AutoTokenizer

from nat_plugin.pmlm.corpus_pieces import Corpus
from nat_plugin.pmlm.prune import gather_rows, largest_logit_difference, prune
from nat_plugin.pmlm.source_model import open_source
from plugin_common.errors import UserError
from plugin_common.hf_folder import check_pmlm_folder, read_config, save_pmlm

KINDS = ("xlm-roberta", "bert", "distilbert", "roberta", "bibert", "roberta-word-end-bpe")
every_kind = pytest.mark.parametrize("kind", KINDS)

Tiny = Callable[[str], Any]


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@every_kind
def test_folder_is_a_pmlm_folder_smaller_than_its_source(tiny: Tiny, kind: str) -> None:
    made = tiny(kind)
    check_pmlm_folder(made.output)
    assert 5 < len(made.pmlm.order.symbols) < made.source.rows
    config = read_config(made.output)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)


@every_kind
def test_symbol_of_fairseq_dictionary_is_row_and_tokenizer_id(tiny: Tiny, kind: str) -> None:
    made = tiny(kind)
    dictionary = Dictionary.load(str(made.output / "dict.txt"))
    tokenizer = AutoTokenizer.from_pretrained(made.output)
    model = AutoModelForMaskedLM.from_pretrained(made.output)
    assert len(dictionary) == len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings
    assert dictionary.symbols == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert dictionary.symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert dictionary.symbols[-1] == tokenizer.mask_token == "<mask>"


@every_kind
def test_saved_model_gives_the_logits_of_its_source(tiny: Tiny, kind: str, small_corpus: Path) -> None:
    """Source and PMLM folder each read the same padded batch with their own tokenizer, as a user would."""
    made = tiny(kind)
    lines = small_corpus.read_text(encoding="utf-8").splitlines()
    old_tokenizer = made.source
    new = AutoTokenizer.from_pretrained(made.output)(lines, padding=True, return_tensors="pt")
    old_ids = torch.tensor(made.pmlm.order.old_ids)[new["input_ids"]]
    model = AutoModelForMaskedLM.from_pretrained(made.output).eval()
    with torch.inference_mode():
        found = model(**new).logits
        source_inputs = {**new, "input_ids": old_ids}
        if kind == "bibert":  # its config's pad id is a piece of text, so the source cannot find padding by itself
            source_inputs["position_ids"] = (new["attention_mask"].cumsum(1) * new["attention_mask"]) + 1
        expected = old_tokenizer.model(**source_inputs).logits[..., made.pmlm.order.old_ids]
    real = new["attention_mask"].bool()
    assert relative_difference(found[real], expected[real]) <= 1e-5


@every_kind
def test_source_tokenizer_and_pruned_tokenizer_name_the_same_rows(tiny: Tiny, kind: str, small_corpus: Path) -> None:
    made = tiny(kind)
    loader = AutoTokenizer
    if kind == "bibert":
        from transformers import BertTokenizer as loader
    old, new = loader.from_pretrained(made.folder), AutoTokenizer.from_pretrained(made.output)
    for line in small_corpus.read_text(encoding="utf-8").splitlines():
        if "<s>" not in line:
            assert [made.pmlm.order.old_ids[i] for i in new(line)["input_ids"]] == old(line)["input_ids"]


@every_kind
def test_all_other_weights_are_untouched(tiny: Tiny, kind: str) -> None:
    made = tiny(kind)
    old, new = made.source.model.state_dict(), made.pmlm.model.state_dict()
    assert old.keys() == new.keys()
    changed = {name for name in old if old[name].shape != new[name].shape}
    if kind == "roberta-word-end-bpe":  # padding moved from row 0 to row 1, and the positions with it
        changed.remove("roberta.embeddings.position_embeddings.weight")
        old.pop("roberta.embeddings.position_embeddings.weight")
    assert changed == {name for name in old if old[name].shape[0] == made.source.rows}
    assert all(torch.equal(old[name], new[name]) for name in old.keys() - changed)


@every_kind
def test_no_prune_keeps_every_usable_piece(tiny: Tiny, kind: str) -> None:
    source = tiny(kind).source
    whole = prune(source, None, keep_all=True)
    assert len(whole.order.symbols) == len(source.ids) - len(whole.unusable)
    assert len(set(whole.order.old_ids)) == len(whole.order.old_ids)
    assert all(count == 0 for _, count in whole.entries)
    assert largest_logit_difference(source.model, whole.model, whole.order.old_ids) <= 1e-5


@pytest.mark.parametrize("architecture", ["xlm-roberta", "roberta", "bert", "distilbert"])
def test_untied_output_projection_is_gathered_too(save_tiny_model: Callable, tmp_path: Path, architecture: str) -> None:
    save_tiny_model(tmp_path, architecture, 40, tied=False)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert not torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    rows = [7, 3, 9, 8, 30, 12, 39]
    gathered = gather_rows(model, rows)
    assert torch.equal(gathered.get_output_embeddings().weight, model.get_output_embeddings().weight[rows])
    assert torch.equal(gathered.get_output_embeddings().bias, model.get_output_embeddings().bias[rows])
    gathered.save_pretrained(tmp_path / "again")
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "again").eval()
    assert largest_logit_difference(model, again, rows) <= 1e-5


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_positions_follow_the_padding_id(save_tiny_model: Callable, tmp_path: Path, padding: int) -> None:
    """RoBERTa counts positions from pad_token_id + 1: with padding moved to row 1, the vectors move along."""
    save_tiny_model(tmp_path, "roberta", 30, pad_token_id=padding)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    rows = [5, padding, 6, 7, 8, 9, 10, 11]
    gathered = gather_rows(model, rows)
    assert gathered.config.max_position_embeddings - 2 == model.config.max_position_embeddings - (padding + 1)
    assert largest_logit_difference(model, gathered, rows) <= 1e-5
    longest = gathered.config.max_position_embeddings - 2
    assert gathered(input_ids=torch.full((1, longest), 4)).logits.isfinite().all()


def test_logit_difference_sees_a_wrong_row(save_tiny_model: Callable, tmp_path: Path) -> None:
    save_tiny_model(tmp_path, "bert", 30)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    rows = [5, 0, 6, 7, 8, 9, 10, 11]
    assert largest_logit_difference(model, gather_rows(model, [*rows[:-1], 12]), rows) > 1e-2


def test_pieces_that_fairseq_cannot_have_are_left_out(tiny: Tiny) -> None:
    whole = prune(tiny("bert").source, None, keep_all=True)
    assert whole.unusable.with_white_space == ["a\u2028b"]
    assert whole.unusable.named_like_control_symbols == ["<s>"]
    assert whole.order.old_ids[0] == tiny("bert").source.ids["[CLS]"]


def test_min_count_drops_rare_pieces_but_no_character(tiny: Tiny, small_corpus: Path) -> None:
    source, all_kept = tiny("xlm-roberta").source, tiny("xlm-roberta").pmlm
    frequent = prune(source, Corpus([small_corpus]), min_count=2)
    assert set(frequent.order.symbols) < set(all_kept.order.symbols)
    count_of = dict(all_kept.entries)
    assert all(
        count_of[piece] < 2 and len(piece) > 1 for piece in set(all_kept.order.symbols) - set(frequent.order.symbols)
    )


def test_raw_characters_stay_where_normalisation_has_composed_them(tiny: Tiny, tmp_path: Path) -> None:
    """The corpus holds u only as part of a decomposed ü; text with a bare u must be spelled all the same."""
    path = tmp_path / "decomposed"
    path.write_text("fl\u0301 u\u0308\n", encoding="utf-8")
    source = tiny("roberta-word-end-bpe").source
    symbols = prune(source, Corpus([path])).order.symbols
    forms = {"ü", "ü</w>", "u", "u</w>"} & set(source.ids)
    assert {"ü", "u"} <= forms <= set(symbols)


def test_counts_are_those_of_the_corpus(tiny: Tiny, small_corpus: Path) -> None:
    made = tiny("bert")
    tokenizer = AutoTokenizer.from_pretrained(made.output, split_special_tokens=True)
    lines = small_corpus.read_text(encoding="utf-8").splitlines()
    expected = Counter(piece for line in lines for piece in tokenizer.tokenize(line))
    assert sum(expected.values()) == made.pmlm.pieces > 0
    assert {piece: count for piece, count in made.pmlm.entries if count} == expected


def test_pieces_to_keep_stay(tiny: Tiny, small_corpus: Path) -> None:
    made = tiny("bert")
    absent = next(p for p in made.source.ids if len(p) > 5 and p[0].isalpha() and p not in made.pmlm.order.symbols)
    assert absent in prune(made.source, Corpus([small_corpus]), keep=[absent]).order.symbols


def encoder_without_head(folder: Path, tiny: Tiny) -> None:
    """What a sentence encoder's folder holds: the tensors of BertModel, with a pooler, without the prefix ``bert.``."""
    from transformers import BertModel

    BertModel.from_pretrained(tiny("bert").folder).save_pretrained(folder)
    for file in tiny("bert").folder.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())


def test_missing_head_is_refused_and_named(tiny: Tiny, tmp_path: Path) -> None:
    encoder_without_head(tmp_path, tiny)
    with pytest.raises(UserError, match=r"(?s)cls\.predictions\.bias.*--init-missing-head"):
        open_source(str(tmp_path))


def test_missing_head_is_made_on_request(tiny: Tiny, tmp_path: Path, small_corpus: Path, caplog: Any) -> None:
    encoder_without_head(tmp_path, tiny)
    source = open_source(str(tmp_path), init_missing_head=True, seed=4)
    assert "tensors of the masked-LM head are random" in caplog.text
    pmlm = prune(source, Corpus([small_corpus]))
    assert pmlm.model.get_output_embeddings().weight is pmlm.model.get_input_embeddings().weight
    again = open_source(str(tmp_path), init_missing_head=True, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(source.model.parameters(), again.model.parameters(), strict=True))


def test_missing_layer_is_refused_even_so(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    encoder_without_head(tmp_path, tiny)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack bert\.encoder\.layer\.1\.output\.dense\.weight; give a complete"):
        open_source(str(tmp_path), init_missing_head=True)


def test_tokenizer_with_more_ids_than_rows_is_refused(tiny: Tiny, tmp_path: Path, save_tiny_model: Callable) -> None:
    for file in tiny("bert").folder.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_tiny_model(tmp_path, "bert", 100)
    with pytest.raises(UserError, match=r"ids up to \d+, its embedding 100 rows"):
        open_source(str(tmp_path))


def test_source_without_tokenizer_is_refused(tmp_path: Path, save_tiny_model: Callable) -> None:
    save_tiny_model(tmp_path, "roberta", 50)
    with pytest.raises(UserError, match=r"no tokenizer can be loaded .*vocab\.txt"):
        open_source(str(tmp_path))


def test_tokenizer_without_mask_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    made = tiny("roberta-word-end-bpe")
    made.source.model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(
        tokenizer_file=str(made.folder / "tokenizer.json"), bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]"
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no pad, mask token"):
        open_source(str(tmp_path))


def test_word_level_tokenizer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    made = tiny("bert")
    for file in made.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"] = {"type": "WordLevel", "vocab": content["model"]["vocab"], "unk_token": "[UNK]"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="of type 'WordLevel'; supported are Unigram, WordPiece, BPE"):
        open_source(str(tmp_path))


def test_weights_file_with_pickled_code_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    import pickle

    class Touch:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "code-ran",)

    made = tiny("bert")
    for file in made.folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(UserError, match="cannot be loaded as a masked LM"):
        open_source(str(tmp_path))
    assert not (tmp_path / "code-ran").exists()


def test_weights_in_a_bin_file_load(tiny: Tiny, tmp_path: Path) -> None:
    made = tiny("roberta")
    for file in made.folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(made.source.model.state_dict(), tmp_path / "pytorch_model.bin")
    source = open_source(str(tmp_path))
    assert all(
        torch.equal(a, b) for a, b in zip(source.model.parameters(), made.source.model.parameters(), strict=True)
    )


def test_pruning_a_pmlm_folder_again_works(tiny: Tiny, tmp_path: Path, small_corpus: Path) -> None:
    made = tiny("bert")
    again = prune(open_source(str(made.output)), Corpus([small_corpus]))
    save_pmlm(again.model, again.tokenizer, again.entries, tmp_path / "again")
    assert (tmp_path / "again/dict.txt").read_bytes() == (made.output / "dict.txt").read_bytes()
    assert (tmp_path / "again/model.safetensors").read_bytes() == (made.output / "model.safetensors").read_bytes()
