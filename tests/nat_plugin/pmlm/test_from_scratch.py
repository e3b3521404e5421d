"""A vocabulary learned from text and a random model around it."""

import random
from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, AutoTokenizer

from nat_plugin.pmlm.corpus_pieces import Corpus
from nat_plugin.pmlm.from_scratch import Shape, learn_pieces, make_pmlm, normalizer
from nat_plugin.pmlm.prune import PMLM
from plugin_common.errors import UserError
from plugin_common.hf_folder import check_pmlm_folder, save_pmlm

TINY = Shape(layers=1, width=8, heads=2, ffn=16, max_positions=20)


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory, training_text: str) -> Path:
    path = tmp_path_factory.mktemp("text") / "joint.txt"
    draw, words = random.Random(1), training_text.split()
    lines = [" ".join(draw.choices(words, k=8)) for _ in range(200)]
    text = "\n".join([*lines, training_text, "", "block ▅ and e\u0301, \u00a0 ﬁne ½"])
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pmlm(corpus_file: Path) -> PMLM:
    return make_pmlm(Corpus([corpus_file]), 150, TINY, seed=2)


def test_folder_loads_and_fits_fairseq(pmlm: PMLM, tmp_path: Path) -> None:
    output = tmp_path / "small"
    save_pmlm(pmlm.model, pmlm.tokenizer, pmlm.entries, output)
    check_pmlm_folder(output)
    dictionary = Dictionary.load(str(output / "dict.txt"))
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = AutoModelForMaskedLM.from_pretrained(output)
    assert type(model).__name__ == "XLMRobertaForMaskedLM"
    assert len(dictionary) == model.config.vocab_size == 150
    assert dictionary.symbols == tokenizer.convert_ids_to_tokens(range(150))
    assert tokenizer("der Hund").tokens()[0] == "<s>"
    assert model(input_ids=torch.full((1, 20), 5)).logits.shape == (1, 20, 150)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_text_comes_back_normalised(pmlm: PMLM, corpus_file: Path, data: st.DataObject) -> None:
    alphabet = sorted(set(corpus_file.read_text(encoding="utf-8")) - {"\n"})
    text = data.draw(st.text(alphabet=alphabet, max_size=30))
    ids = pmlm.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    normalised = normalizer().normalize_str(text)
    if set(normalised) - {" "} <= set(pmlm.order.symbols):  # the corpus has ´ only inside of é
        assert not {0, 1, 2, 3, len(pmlm.tokenizer) - 1} & set(ids)
        assert pmlm.tokenizer.decode(ids) == normalised


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("", ""),
        (" \t  ", ""),
        ("a\u00a0 \u2028 b\u0085", "a b"),
        ("x\x00y\x01z", "xyz"),
        ("▁low▁line", "low line"),
        ("ﬁ ½ Ａ e\u0301", "fi 1⁄2 A é"),
    ],
)
def test_normalisation(text: str, normalised: str) -> None:
    assert normalizer().normalize_str(text) == normalised


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=20))
def test_normalised_text_has_single_plain_spaces_and_stays_as_it_is(text: str) -> None:
    once = normalizer().normalize_str(text)
    assert once == " ".join(once.split())
    assert normalizer().normalize_str(once) == once


def test_every_character_of_the_corpus_is_a_piece(pmlm: PMLM, corpus_file: Path) -> None:
    text = normalizer().normalize_str(corpus_file.read_text(encoding="utf-8"))
    assert set(text) - {" "} | {"▁"} <= set(pmlm.order.symbols)
    assert pmlm.unknown == 0
    assert sum(count for _, count in pmlm.entries) == pmlm.pieces > 0


def test_control_symbols_in_text_are_spelled(pmlm: PMLM) -> None:
    ids = pmlm.tokenizer.encode("<s>a</s> <mask><pad>", add_special_tokens=False, split_special_tokens=True)
    assert pmlm.tokenizer.decode(ids) == "<s>a</s> <mask><pad>"
    assert set(ids).isdisjoint({0, 1, 2, 3, len(pmlm.tokenizer) - 1})


def test_same_input_gives_the_same_folder(pmlm: PMLM, corpus_file: Path) -> None:
    again = make_pmlm(Corpus([corpus_file]), 150, TINY, seed=2)
    assert again.tokenizer.backend_tokenizer.to_str() == pmlm.tokenizer.backend_tokenizer.to_str()
    assert again.entries == pmlm.entries
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), pmlm.model.parameters(), strict=True))


def test_another_seed_gives_other_weights_but_the_same_pieces(pmlm: PMLM, corpus_file: Path) -> None:
    other = make_pmlm(Corpus([corpus_file]), 150, TINY, seed=3)
    assert other.order == pmlm.order
    assert not torch.equal(other.model.get_input_embeddings().weight, pmlm.model.get_input_embeddings().weight)


def test_smallest_possible_vocabulary(corpus_file: Path) -> None:
    with pytest.raises(UserError, match=r"--vocab-size 20 is too small: the corpus has \d+ distinct") as error:
        learn_pieces(Corpus([corpus_file]), 20)
    needed = int(str(error.value).rsplit(" ", 1)[1])
    assert len(learn_pieces(Corpus([corpus_file]), needed)) == needed - 5
    with pytest.raises(UserError, match=f"at least {needed}"):
        learn_pieces(Corpus([corpus_file]), needed - 1)


def test_small_corpus_gives_fewer_pieces(tmp_path: Path) -> None:
    path = tmp_path / "few"
    path.write_text("ab ab\nba\n", encoding="utf-8")
    pieces = [piece for piece, _ in learn_pieces(Corpus([path]), 1000)]
    assert {"a", "b", "▁"} < set(pieces)
    assert len(pieces) == len(set(pieces)) < 40


@pytest.mark.parametrize("text", ["▅\n", "<s>\n", "a\n", "▁\nx\n"])
def test_odd_little_corpora(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd"
    path.write_text(text, encoding="utf-8")
    made = make_pmlm(Corpus([path]), 60, TINY)
    assert made.unknown == 0


def test_corpus_of_invisible_characters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "invisible"
    path.write_text("\u200b\n", encoding="utf-8")
    with pytest.raises(UserError, match="nothing is left of its text after normalisation"):
        learn_pieces(Corpus([path]), 60)


def test_all_wrong_sizes_are_named() -> None:
    wrong = list(Shape(layers=0, width=10, heads=3, ffn=-1, max_positions=2).problems())
    assert [problem.split()[0] for problem in wrong] == ["--layers", "--ffn", "--max-positions", "--width"]
    assert not list(Shape().problems())
