import json
import pickle
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nat_plugin.pmlm.piece_tokenizer import PieceTokenizer
from plugin_common.errors import UserError

TEXT = """The translator reads a whole sentence and writes a whole sentence.
Der Übersetzer liest einen ganzen Satz und schreibt einen ganzen Satz.
Traducătorul citește o propoziție întreagă și scrie o propoziție întreagă.
Two of them, (maybe) three: "yes" or 'no'? 0123456789 %!
abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ äöüß ăâîșț .,;:?!-+*/=<>[]{}()&%$#@_|~^\\
""".splitlines()
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

# What a corpus may hold: anything but control characters.
any_line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=60)
known_line = st.text(st.sampled_from(sorted({*"".join(TEXT), "\u00a0", "\u2028", " "})), max_size=60)


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=SPECIALS,
        unk_token="<unk>",
        initial_alphabet=sorted(set("".join(TEXT)) - {" "}),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 5, trainer)
    return tokenizer


def wordpiece() -> Tokenizer:
    characters = sorted(set("".join(TEXT)) - {" "})
    pieces = [*SPECIALS, *characters, *(f"##{character}" for character in characters), "the", "end", "##ing"]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


def byte_level_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT * 5, trainer)
    return tokenizer


KINDS = {"unigram": unigram, "wordpiece": wordpiece, "byte_level_bpe": byte_level_bpe}
LIBRARY = {name: make() for name, make in KINDS.items()}
OURS = {name: PieceTokenizer(tokenizer.to_str()) for name, tokenizer in LIBRARY.items()}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def library_pieces(kind: str, line: str) -> str:
    encoding = LIBRARY[kind].encode(line, add_special_tokens=False)
    return " ".join(LIBRARY[kind].id_to_token(index) for index in encoding.ids)


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None)
@given(line=any_line)
def test_pieces_are_the_librarys(name, line):
    if not any(special in line for special in SPECIALS):
        assert OURS[name].encode(line) == library_pieces(name, line)


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None)
@given(lines=st.lists(any_line, max_size=8))
def test_lines_in_are_lines_out_and_each_stays_one_line(name, lines):
    token_texts = OURS[name].encode_lines(lines)
    assert token_texts == [OURS[name].encode(line) for line in lines]
    assert len(token_texts) == len(lines)
    for token_text in token_texts:
        assert " ".join(token_text.split()) == token_text  # fairseq's way to split it
        assert set(token_text.split()) <= OURS[name].words
    plain = OURS[name].decode_lines(token_texts)
    assert len(plain) == len(lines)
    assert all(len(text.splitlines()) <= 1 and text == text.strip() for text in plain)


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None)
@given(lines=st.lists(any_line, max_size=5))
def test_ids_are_the_places_of_the_pieces(name, lines):
    tokenizer, symbols = OURS[name], OURS[name].symbols
    for parallel in (True, False):
        found = tokenizer.encode_ids(lines, parallel=parallel)
        assert [" ".join(symbols[index] for index in ids) for ids in found] == tokenizer.encode_lines(lines)
        assert all(ids.dtype == np.int64 for ids in found)
    assert [tokenizer.decode_ids(ids) for ids in found] == tokenizer.decode_lines(tokenizer.encode_lines(lines))


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_any_ids_decode_as_their_symbols_do(name, data):
    tokenizer, symbols = OURS[name], OURS[name].symbols
    assert tokenizer.highest_id < len(symbols) == LIBRARY[name].get_vocab_size()
    ids = np.array(data.draw(st.lists(st.integers(0, len(symbols) - 1), max_size=12)), dtype=np.int64)
    assert tokenizer.decode_ids(ids) == tokenizer.decode(" ".join(symbols[index] for index in ids))


def test_special_symbols_and_foreign_ids(kind):
    symbols = OURS[kind].symbols
    assert [symbols[LIBRARY[kind].token_to_id(special)] for special in SPECIALS] == SPECIALS
    assert OURS[kind].decode_ids(np.array([LIBRARY[kind].token_to_id(special) for special in SPECIALS])) == "⁇"
    assert OURS[kind].decode_ids(np.array([len(symbols), len(symbols) + 7])).replace(" ", "") == "⁇⁇"


@settings(deadline=None)
@given(line=known_line)
def test_unigram_round_trip_gives_the_normalised_text(line):
    normalised = " ".join(unicodedata.normalize("NFKC", line).split())
    assert OURS["unigram"].decode(OURS["unigram"].encode(line)) == normalised


@settings(deadline=None)
@given(line=any_line)
def test_byte_level_round_trip_gives_the_text(line):
    expected = line.replace("\u2028", " ").replace("\u2029", " ").strip()
    assert OURS["byte_level_bpe"].decode(OURS["byte_level_bpe"].encode(line)) == expected


def test_known_characters_give_no_unknown_token_in_fairseq(kind, tmp_path):
    from fairseq.data import Dictionary

    tokenizer = OURS[kind]
    words = sorted(tokenizer.words - set(SPECIALS))
    (tmp_path / "dict.txt").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    dictionary = Dictionary.load(str(tmp_path / "dict.txt"))

    @settings(deadline=None)
    @given(line=known_line)
    def check(line):
        token_text = tokenizer.encode(line)
        ids = dictionary.encode_line(token_text, add_if_not_exist=False, append_eos=False)
        assert dictionary.unk() not in ids.tolist()
        assert dictionary.string(ids) == token_text

    check()


def test_names_of_special_tokens_in_text_are_text(kind):
    for name in [*SPECIALS, "[SEP]", "[CLS]", "[PAD]"]:
        for line in (name, f"a {name} b", f"a{name}b"):
            token_text = OURS[kind].encode(line)
            assert not set(token_text.split()) & set(SPECIALS), (line, token_text)
            assert OURS[kind].decode(token_text).replace(" ", "") == line.replace(" ", "")


def test_special_tokens_named_as_in_bert_are_text_too():
    definition = json.loads(LIBRARY["wordpiece"].to_str().replace('"<unk>"', '"[UNK]"').replace('"<mask>"', '"[MASK]"'))
    definition["pre_tokenizer"] = {"type": "WhitespaceSplit"}  # keeps [MASK] in one word
    tokenizer = PieceTokenizer(json.dumps(definition))
    assert tokenizer.encode("[MASK] [UNK]") not in ("[MASK] [UNK]", "<unk> <unk>", "")
    assert tokenizer.decode(tokenizer.encode("[MASK] [UNK]")) == "[MASK] [UNK]"
    assert tokenizer.encode("日") == "<unk>"
    assert tokenizer.decode("a [MASK] b") == "a b"


def test_unknown_characters():
    assert OURS["unigram"].encode("日 a") == "▁ <unk> ▁a"
    assert OURS["unigram"].decode("▁ <unk> ▁a") == "⁇ a"
    assert OURS["wordpiece"].encode("a日 a") == "a <unk> a"
    assert OURS["wordpiece"].decode("a <unk> a") == "a ⁇ a"
    assert OURS["byte_level_bpe"].decode("a <unk> b") == "a⁇b"


def test_empty_and_blank_lines(kind):
    assert OURS[kind].encode("") == ""
    assert OURS[kind].decode("") == ""
    assert OURS[kind].decode(OURS[kind].encode(" \u00a0 ")) == ""
    assert OURS[kind].encode_lines([]) == []


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_decode_takes_any_sequence_of_words(name, data):
    words = [*sorted(OURS[name].words), *SPECIALS, "unheard-of", "##", "▁", "##s", "⁇"]
    token_text = " ".join(data.draw(st.lists(st.sampled_from(words), max_size=30)))
    plain = OURS[name].decode(token_text)
    assert len(plain.splitlines()) <= 1
    assert not any(special in plain for special in ("<s>", "<pad>", "</s>", "<mask>")) or "<" in token_text.split()


def test_decode_of_sequences_that_no_text_gives():
    assert OURS["wordpiece"].decode("##ing ##s the") == "ings the"
    assert OURS["wordpiece"].decode("<s> the <mask> ##s </s> <pad>") == "thes"
    assert OURS["byte_level_bpe"].decode("a Ã Ġ Ċ a") == "a\ufffd  a"  # half a character; a newline
    assert OURS["unigram"].decode("▁ ▁ ▁") == ""


def test_settings_beside_segmentation_have_no_effect(kind):
    tokenizer = Tokenizer.from_str(LIBRARY[kind].to_str())
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=50)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    assert PieceTokenizer(tokenizer.to_str()).encode_lines(TEXT) == OURS[kind].encode_lines(TEXT)


def test_added_words_stay_and_unusable_pieces_become_unknown():
    tokenizer = Tokenizer.from_str(LIBRARY["unigram"].to_str())
    tokenizer.add_tokens(["XLIFF", "no\u00a0break"])
    ours = PieceTokenizer(tokenizer.to_str())
    assert ours.encode("a XLIFF").split() == [*library_pieces("unigram", "a ").split(), "XLIFF"]
    assert ours.encode("no\u00a0break") == "<unk>"


def test_without_a_decoder_pieces_are_joined_by_spaces():
    definition = json.loads(LIBRARY["wordpiece"].to_str())
    definition["decoder"] = None
    assert PieceTokenizer(json.dumps(definition)).decode("the end <unk>") == "the end ⁇"


def test_pickled_copy_and_threads_give_the_same(kind):
    copy = pickle.loads(pickle.dumps(OURS[kind]))
    expected = OURS[kind].encode_lines(TEXT)
    plain = OURS[kind].decode_lines(expected)
    assert copy.encode_lines(TEXT) == expected
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda k: (copy.encode(TEXT[k % 5]), copy.decode(expected[k % 5])), range(400))
        assert list(found) == [(expected[k % 5], plain[k % 5]) for k in range(400)]


def test_needs_neither_torch_nor_transformers_nor_fairseq():
    code = (
        "import sys, nat_plugin.pmlm.piece_tokenizer;"
        "assert not {'torch', 'transformers', 'fairseq'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}/tokenizer\.json: no such file.*nat prepare-pmlm"):
        PieceTokenizer.from_folder(tmp_path)
    for content in ("", "{", "[]", "{}", '{"model": {"vocab": {}}}', '{"model": {"type": "X", "vocab": []}}', "\udcff"):
        (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match=rf"{tmp_path}/tokenizer\.json: not a tokenizer.*nat prepare-pmlm"):
            PieceTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(LIBRARY["unigram"].to_str(), encoding="utf-8")
    assert PieceTokenizer.from_folder(tmp_path).encode("a") == OURS["unigram"].encode("a")
