"""Text to ids and back, at the beginning of a sequence and within it."""

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nid_plugin.text_encoder import Marks, TextEncoder
from plugin_common.errors import UserError
from tests.toy_causal_lm import TokenizerKind, make_tokenizer

KINDS = get_args(TokenizerKind)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return make_tokenizer(request.param)


def test_the_beginning_of_a_sequence_is_tokenized_as_the_tokenizer_does(tokenizer: Any) -> None:
    texts = ["the river runs", "日本 </s> 🙂", "a"]
    encoder = TextEncoder(tokenizer, "toy")
    own = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert encoder.ids(texts, begins=True, plain=False) == own
    plain = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts]
    assert encoder.ids(texts, begins=True, plain=True) == plain
    assert plain[1] != own[1]


def test_what_goes_on_gets_no_space_of_its_own(tokenizer: Any) -> None:
    encoder = TextEncoder(tokenizer, "toy")
    begun, more = encoder.ids(["the ri"], begins=True, plain=True)[0], encoder.ids(["ver"], begins=False, plain=True)[0]
    assert tokenizer.decode(begun + more) == "the river"
    assert encoder.text_after(more) == "ver"
    assert encoder.text_after(encoder.ids([" ver"], begins=False, plain=True)[0]) == " ver"


@settings(deadline=None, max_examples=60)
@given(text=st.text(min_size=1, max_size=30).filter(lambda text: "▁" not in text), kind=st.sampled_from(KINDS))
def test_text_that_goes_on_comes_back_as_it_was(text: str, kind: Any) -> None:
    encoder = _encoder(kind)
    assert encoder.text_after(encoder.ids([text], begins=False, plain=True)[0]) == text


_ENCODERS = {kind: TextEncoder(make_tokenizer(kind), kind) for kind in KINDS}


def _encoder(kind: Any) -> TextEncoder:
    return _ENCODERS[kind]


def test_bos_and_eos(tokenizer: Any) -> None:
    encoder = TextEncoder(tokenizer, "toy")
    assert encoder.bos_ids == [tokenizer.bos_token_id]
    assert encoder.eos_id == tokenizer.eos_token_id
    assert encoder.size == len(tokenizer)


def test_no_bos_where_the_tokenizer_puts_none() -> None:
    tokenizer = make_tokenizer()
    from tokenizers.processors import ByteLevel

    tokenizer.backend_tokenizer.post_processor = ByteLevel()
    assert TextEncoder(tokenizer, "toy").bos_ids == []


def test_eos_that_the_tokenizer_puts_behind_is_left_out() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    ids = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    assert TextEncoder(tokenizer, "toy").bos_ids == [tokenizer.bos_token_id]


def test_marks_keep_special_tokens_apart(tokenizer: Any) -> None:
    encoder = TextEncoder(tokenizer, "toy")
    (content,), marks = encoder.marked(["old </s> town"])
    assert marks is not None
    rendered = f"<|im_start|>{content}<|im_end|>"
    ids = encoder.ids_with_marks(["the river", rendered], [None, marks], begins=True)
    assert ids[0] == encoder.ids(["the river"], begins=True, plain=False)[0]
    assert tokenizer.eos_token_id not in ids[1]
    assert [ids[1][0], ids[1][-1]] == tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    # a tokenizer of the older form puts a space behind each special token, too
    assert encoder.text_after(ids[1]).replace("<|im_start|> ", "<|im_start|>") == "<|im_start|>old </s> town<|im_end|>"


def test_marks_avoid_characters_that_the_text_holds() -> None:
    encoder = _encoder("byte-level")
    text = "\ufdd0 </s> \ufdd1"
    (marked,), marks = encoder.marked([text])
    assert marks is not None
    assert marks.removed(marked) == text
    assert encoder.text_after(encoder.ids_with_marks([marked], [marks], begins=False)[0]) == text


def test_a_text_of_all_noncharacters_is_refused() -> None:
    with pytest.raises(UserError, match=r"toy: a text holds nearly all of U\+FDD0"):
        TextEncoder(make_tokenizer(), "toy").marked(["</s>" + "".join(map(chr, range(0xFDD0, 0xFDF0)))])


def test_lone_marks_are_left_out() -> None:
    marks = Marks("<", ">")
    assert marks.pieces("a<b>c") == [("a", False), ("b", True), ("c", False)]
    assert marks.pieces("a>b<c") == [("abc", False)]
    assert marks.pieces("<a>") == [("a", True)]


def test_special_tokens_at_the_end_go() -> None:
    tokenizer = make_tokenizer(pad=True)
    encoder = TextEncoder(tokenizer, "toy")
    ids = encoder.ids(["old town"], begins=False, plain=True)[0]
    assert encoder.without_special_end([*ids, 1, tokenizer.pad_token_id, encoder.size, encoder.size + 7]) == ids
    assert encoder.without_special_end([0, 1]) == []


def test_the_fingerprint_tells_tokenizers_apart() -> None:
    made = [make_tokenizer(kind) for kind in KINDS]
    made.append(make_tokenizer())
    made[-1].add_tokens(["rivers"])
    prints = [TextEncoder(tokenizer, "toy").fingerprint for tokenizer in made]
    assert all(a != b for a, b in itertools.combinations(prints, 2))
    cut = make_tokenizer()
    cut.backend_tokenizer.enable_truncation(5)  # left over from another use
    assert TextEncoder(cut, "other name").fingerprint == prints[0]
    assert len(TextEncoder(cut, "toy").ids(["the river " * 9], begins=True, plain=True)[0]) > 5


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match=r"folder/: its tokenizer has no tokenizer.json"):
        TextEncoder(SimpleNamespace(), "folder/")


FORK = """
import os
from nid_plugin.text_encoder import TextEncoder
from tests.toy_causal_lm import make_tokenizer

encoder = TextEncoder(make_tokenizer(), "toy")
texts = ["the river runs"] * 999
own = encoder.ids(texts, begins=True, plain=True)
child = os.fork()
if child == 0:
    os._exit(0 if encoder.ids(texts, begins=True, plain=True) == own else 1)
assert os.waitpid(child, 0)[1] == 0
print(os.environ.get("TOKENIZERS_PARALLELISM"))
"""


@pytest.mark.parametrize("asked", [None, "true"])
def test_forked_processes_tokenize_without_waiting_or_warning(asked: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    environment |= {} if asked is None else {"TOKENIZERS_PARALLELISM": asked}
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout.strip() == str(asked)
    assert "forked" not in done.stderr
