import unicodedata

import pytest
import regex
import sentencex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from nid_plugin.documents.boundaries import is_cluster_boundary, sentence_cut, token_cut, word_cut

PROSE = (
    "Dr. Smith went to the U.S. in Jan. 2020, i.e. last winter. He paid $3.50 for it. “Really?” he asked. It was so! "
    "The firm of Weber & Co. Ltd. sold 2.1.3 of them, see fig. 4. J. R. R. Tolkien did not. Nor did e. e. cummings. "
)
PIECES = st.sampled_from(
    [
        "word",
        "a",
        " ",
        "  ",
        "\n\n",
        ". ",
        "! ",
        "Mr. ",
        "漢字",
        "。",
        "ไทย",
        "e\u0301",
        "👩‍👩‍👧",
        "🇩🇪",
        "\u3000",
        "…",
        "“",
        "x.y",
        "น้ำ",
        "‼️",
        "A\xa0. ",
        "\r\n",
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=400).map("".join).filter(str.strip)


def nearest(ends, text, smallest) -> int | None:
    """The definition, over the ends of the whole text."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    middle, low = (first + last) // 2, max(first + 1, int(smallest * len(text)))
    allowed = [end for end in ends if low <= end <= min(last - 1, len(text) - low)]
    return min(allowed, key=lambda end: (abs(end - middle), end), default=None)


def all_word_ends(text) -> list[int]:
    """White space follows, and the character before is none; or both sides are of a script without spaces."""
    script = regex.compile(r"[\p{Han}\p{Thai}]")
    return [
        place
        for place in range(1, len(text))
        if (text[place].isspace() and not text[place - 1].isspace())
        or (script.match(text[place]) and script.match(text[place - 1]) and text[place] not in "\u0e49ำ")
    ]


@settings(deadline=None)
@given(TEXTS, st.sampled_from([0.0, 0.25, 0.45]))
def test_word_cut_is_the_nearest_word_end_of_all(text, smallest):
    assert word_cut(text, smallest) == nearest(all_word_ends(text), text, smallest)


@settings(deadline=None)
@given(TEXTS, st.sampled_from([0.0, 0.25]))
@example("A. " + "b" * 5000, 0.0)
def test_sentence_cut_leaves_two_sound_halves(text, smallest):
    cut = sentence_cut(text, "en", smallest)
    if cut is not None:
        assert text[:cut].strip()
        assert text[cut:].strip()
        assert not text[cut - 1].isspace()
        assert min(cut, len(text) - cut) >= int(smallest * len(text))
        assert is_cluster_boundary(text, cut)


@pytest.mark.parametrize("repeats", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("shift", range(0, 200, 7))
def test_sentence_cut_is_that_of_the_whole_text(repeats, shift):
    text = (PROSE * repeats)[shift:]
    ends, place = [], 0
    for sentence in sentencex.segment("en", text):
        ends.append(place + len(sentence.rstrip()))
        place += len(sentence)
    assert sentence_cut(text, "en", 0.0) == nearest(ends, text, 0.0)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("He met Dr. Who. She met Mr. X.", "He met Dr. Who."),
        ("It cost 3.50 in the U.S. market. Nobody paid.", "It cost 3.50 in the U.S. market."),
        ("First.  \n\n Second.", "First."),
        ("我们今天去北京。天气很好!", "我们今天去北京。"),
        ("क्या हुआ? कुछ नहीं।", "क्या हुआ?"),
        ("Wer? Ich.", "Wer?"),
    ],
)
def test_sentence_cut(text, prompt):
    cut = sentence_cut(text, "en", 0.25)
    assert cut is not None
    assert text[:cut] == prompt


@pytest.mark.parametrize("text", ["One sentence only", "One sentence only. ", "A. " + "b " * 100, "x" * 3000])
def test_no_sentence_end_near_the_middle(text):
    assert sentence_cut(text, "en", 0.25) is None


def test_a_far_sentence_end_is_found_where_it_may_be():
    text = "They go. Then" + " so" * 3000
    assert sentence_cut(text, "en", 0.0) == 8
    assert sentence_cut(text, "en", 0.01) is None


def test_word_cut_of_one_word():
    assert word_cut("word", 0.0) is None
    assert word_cut("  word ", 0.0) is None
    assert word_cut(" a b ", 0.0) == 2


@settings(deadline=None)
@given(TEXTS)
def test_word_cut_never_parts_what_a_reader_sees_as_one_character(text):
    cut = word_cut(text, 0.0)
    if cut is not None:
        assert is_cluster_boundary(text, cut)
        assert not unicodedata.category(text[cut]).startswith("M")


@settings(deadline=None)
@given(TEXTS)
def test_cluster_boundaries_are_those_of_the_whole_text(text):
    ends = {match.end() for match in regex.finditer(r"\X", text)}
    for place in range(1, len(text)):
        assert is_cluster_boundary(text, place) == (place in ends), place


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Byte-level BPE as GPT-2's: tokens carry the space before the word, and may be parts of a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([PROSE] * 5, trainer)
    return tokenizer


@settings(deadline=None)
@given(TEXTS)
def test_token_cut_leaves_two_sound_halves(byte_tokenizer, text):
    cut = token_cut(text, byte_tokenizer, 0.0)
    if cut is not None:
        assert text[:cut].strip()
        assert text[cut:].strip()
        assert not text[cut - 1].isspace()
        assert is_cluster_boundary(text, cut)


def test_token_cut_is_in_the_middle_of_the_tokens(byte_tokenizer):
    text = PROSE * 5
    cut = token_cut(text, byte_tokenizer, 0.25)
    first, second = (len(byte_tokenizer.encode(part).ids) for part in (text[:cut], text[cut:]))
    assert abs(first - second) <= 1
    assert first + second == len(byte_tokenizer.encode(text).ids)  # the cut changes no token


def test_token_cut_passes_characters_of_several_tokens(byte_tokenizer):
    assert len(byte_tokenizer.encode("👩‍👩‍👧").ids) > 5
    assert token_cut("👩‍👩‍👧", byte_tokenizer, 0.0) is None
    assert token_cut("👩‍👩‍👧👩‍👩‍👧", byte_tokenizer, 0.0) == 5


def test_token_cut_of_one_token(byte_tokenizer):
    assert token_cut("a", byte_tokenizer, 0.0) is None
    assert token_cut(" a ", byte_tokenizer, 0.0) is None


@pytest.mark.parametrize("white", "\xa0\u2028\u3000\u202f\x85")
@pytest.mark.parametrize("language", ["en", "fr", "ja", "fi", "xx"])
def test_white_space_that_the_library_panics_at(white, language):
    text = f"They told us of vitamin A{white}. It went on. There was more of it."
    assert text[: sentence_cut(text, language, 0.0)].endswith(("on.", f"A{white}."))
    initial = f"Then came J{white}. Smith and nobody else. Then came the others, too."
    assert text[: sentence_cut(initial, language, 0.0)]


def test_a_panic_of_the_library_costs_one_document(monkeypatch):
    class PanicException(BaseException):
        """As the library's: no `Exception`, and of a module that cannot be imported."""

    def panic(language, text):
        raise PanicException if "odd" in text else KeyboardInterrupt

    monkeypatch.setattr(sentencex, "segment", panic)
    assert sentence_cut("One odd. Two.", "en", 0.0) is None
    with pytest.raises(KeyboardInterrupt):
        sentence_cut("One. Two.", "en", 0.0)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (f"It was so (as we {'really ' * 30}knew.) Then it went on. {'So ' * 50}", "knew.)"),
        (f"“It was so, as we {'really ' * 30}knew.” Then it went on. {'So ' * 50}", "knew.”"),
        (f"{'So ' * 30}it went. It is stored in the .Xauthority file by socket.SOCK_DGRAM, {'so ' * 20}", "went."),
        (f"{'So ' * 30}it went. See fsck.<msg-id> and “/.’ and more {'so ' * 20}", "went."),
        (f"{'So ' * 10}it went on and on‼️ Then it {'stopped ' * 5}", "on‼️"),
        ("He asked: 好吗?天气很好。", "He asked: 好吗?"),
    ],
)
def test_ends_without_white_space(text, prompt):
    cut = sentence_cut(text, "en", 0.1)
    assert cut is not None
    assert text[:cut].endswith(prompt)


def test_sentence_cut_never_parts_an_exclamation_mark_from_its_selector():
    assert sentence_cut("‼️", "en", 0.0) is None


def test_word_cut_never_parts_thai_and_lao_vowels():
    for text in ("เขาดื่มน้ำทุกวันและทำงาน", "ນ້ຳທຳນຳ"):
        tails = [text[start:] for start in range(len(text))]
        cuts = [(tail, cut) for tail in tails if (cut := word_cut(tail, 0.0)) is not None]
        assert cuts
        assert all(is_cluster_boundary(tail, cut) for tail, cut in cuts)


@pytest.mark.parametrize("letters", range(5, 40))
def test_of_two_tokens_as_near_the_first_is_taken(byte_tokenizer, letters):
    text = "é" * letters  # some letters are several tokens
    count = len(byte_tokenizer.encode(text).ids)
    ends = [end for _, end in byte_tokenizer.encode(text).offsets]
    starts = [start for start, _ in byte_tokenizer.encode(text).offsets]
    places = [place for place in range(1, count) if ends[place - 1] <= starts[place]]
    expected = min(places, key=lambda place: (abs(place - count // 2), place))
    assert token_cut(text, byte_tokenizer, 0.0) == starts[expected]
