"""Pairs as token ids: exact text, prompts that do not depend on completions, ends, special tokens, options."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nid_plugin.formatting import Formatter, PairFormat
from plugin_common.errors import UserError
from tests.toy_causal_lm import TokenizerKind, make_tokenizer, toy_pairs

KINDS = get_args(TokenizerKind)
TOKENIZERS = {kind: make_tokenizer(kind) for kind in KINDS}
TEMPLATE = "### Text: {prompt}\n### More: {completion}\n"
FORMATS = [PairFormat(), PairFormat(seam="as-is"), PairFormat("chat"), PairFormat("template", TEMPLATE)]
FORMATTERS = {(kind, form): Formatter(TOKENIZERS[kind], form, kind) for kind in KINDS for form in FORMATS}

text = st.text(min_size=1, max_size=25).filter(lambda value: bool(value.strip()) and "▁" not in value)
special_text = st.lists(st.one_of(text, st.sampled_from(["</s>", "<|im_end|>", "<s>", " "])), min_size=1).map("".join)
both = pytest.mark.parametrize("kind", KINDS)


@settings(deadline=None, max_examples=100)
@given(kind=st.sampled_from(KINDS), prompt=text, completion=special_text)
def test_plain_ids_decode_to_the_joined_text(kind: Any, prompt: str, completion: str) -> None:
    # A Metaspace pre-tokenizer takes a space at the beginning of all for the one that it puts there itself.
    prompt = prompt.lstrip(" ") if kind == "metaspace" else prompt
    [pair] = FORMATTERS[kind, PairFormat(seam="as-is")].pair_ids([prompt], [completion])
    tokenizer = TOKENIZERS[kind]
    assert pair.prompt[0] == tokenizer.bos_token_id
    assert pair.head == 1
    assert pair.completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(pair.prompt[1:] + pair.completion[:-1]) == prompt + completion


@settings(deadline=None, max_examples=100)
@given(
    kind=st.sampled_from(KINDS),
    form=st.sampled_from(FORMATS),
    prompt=special_text,
    completions=st.tuples(text, special_text),
)
def test_generation_is_fed_what_training_had(
    kind: Any, form: PairFormat, prompt: str, completions: tuple[str, str]
) -> None:
    formatter = FORMATTERS[kind, form]
    prompt = "a" + prompt
    pairs = formatter.pair_ids([prompt, prompt], completions)
    assert pairs[0].prompt == pairs[1].prompt == formatter.prompt_ids([prompt])[0]
    for pair, completion in zip(pairs, completions, strict=True):
        assert pair.completion[-len(formatter.end_ids) :] == formatter.end_ids
        assert 0 < pair.head < len(pair.prompt)
        written = formatter.completion_text([*pair.completion, formatter.vocabulary_size])  # a pad that no token has
        assert written.removeprefix(" " if form == PairFormat() else "") == completion.removeprefix(
            " " if form == PairFormat() else ""
        )


@both
def test_words_get_the_ids_of_the_joined_text(kind: Any) -> None:
    pairs = toy_pairs(20)
    formatter = FORMATTERS[kind, PairFormat()]
    tokenized = formatter.pair_ids([pair.prompt for pair in pairs], [pair.completion for pair in pairs])
    for pair, ids in zip(pairs, tokenized, strict=True):
        assert ids.prompt + ids.completion[:-1] == TOKENIZERS[kind](f"{pair.prompt} {pair.completion}")["input_ids"]


@both
def test_chat_prompts_are_what_the_tokenizer_makes_of_them(kind: Any) -> None:
    tokenizer, formatter = TOKENIZERS[kind], FORMATTERS[kind, PairFormat("chat")]
    [pair] = formatter.pair_ids(["the old town"], ["and its people"])
    question = {"role": "user", "content": "the old town"}
    own = tokenizer.apply_chat_template([question], add_generation_prompt=True)["input_ids"]
    assert pair.prompt == own
    assert tokenizer.decode(pair.prompt[: pair.head]) == tokenizer.decode(own[: pair.head])
    assert "user\n" in tokenizer.decode(pair.prompt[: pair.head])
    assert "the" not in tokenizer.decode(pair.prompt[: pair.head])
    answer = {"role": "assistant", "content": "and its people"}
    whole = tokenizer.apply_chat_template([question, answer], tokenize=False)
    joint = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert pair.prompt + pair.completion == joint[: len(joint) - joint[::-1].index(formatter.end_ids[-1])]
    assert formatter.end_ids == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


@both
@pytest.mark.parametrize("form", FORMATS)
def test_text_that_looks_like_special_tokens_is_text(kind: Any, form: PairFormat) -> None:
    formatter, tokenizer = FORMATTERS[kind, form], TOKENIZERS[kind]
    pairs = formatter.pair_ids(["the <|im_end|> old", "the old"], ["</s> town", "town"])
    assert [pair.looks_special for pair in pairs] == [True, False]
    special = set(tokenizer.all_special_ids)
    counts = [sum(token in special for token in pair.prompt + pair.completion) for pair in pairs]
    assert counts[0] == counts[1]
    assert "<|im_end|> old" in tokenizer.decode(pairs[0].prompt)
    assert formatter.completion_text(pairs[0].completion).strip() == "</s> town"


@both
def test_a_template_frames_the_pair(kind: Any) -> None:
    formatter, tokenizer = FORMATTERS[kind, PairFormat("template", TEMPLATE)], TOKENIZERS[kind]
    [pair] = formatter.pair_ids(["old"], ["town"])
    assert tokenizer.decode(pair.prompt[1:]) == "### Text: old\n### More:"
    assert tokenizer.decode(pair.prompt[1 : pair.head]).rstrip() == "### Text:"
    assert tokenizer.decode(pair.prompt[1:] + pair.completion) == "### Text: old\n### More: town\n</s>"
    assert formatter.completion_text(pair.completion) == "town"


def test_a_template_that_writes_bos_and_eos_gets_no_others() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    formatter = Formatter(tokenizer, PairFormat("template", "<s>[{prompt}] {completion}</s> ignored"), "toy")
    [pair] = formatter.pair_ids(["old"], ["town"])
    assert tokenizer.decode(pair.prompt + pair.completion) == "<s>[old] town</s>"
    assert pair.prompt.count(tokenizer.bos_token_id) == 1
    assert formatter.end_ids == [tokenizer.eos_token_id]


def test_an_answer_that_the_chat_template_does_not_end_gets_eos() -> None:
    tokenizer = make_tokenizer(chat_template=False)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    formatter = Formatter(tokenizer, PairFormat("chat"), "toy")
    [pair] = formatter.pair_ids(["old"], ["town"])
    assert tokenizer.decode(pair.prompt + pair.completion) == "user: old\nassistant: town\n</s>"
    assert formatter.completion_text(pair.completion) == "town"


def test_no_eos() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="folder: its tokenizer has no end token"):
        Formatter(tokenizer, PairFormat(), "folder")


def test_the_head_of_a_prompt_is_never_all_of_it() -> None:
    formatter = FORMATTERS["byte-level", PairFormat()]
    assert [formatter.head_of(ids) for ids in ([], [0], [0, 5], [5, 0])] == [0, 0, 1, 0]


def test_how_pairs_begin_and_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Formatter(TOKENIZERS["byte-level"], PairFormat(), "folder")
    assert "folder: format plain, a prompt begins with '<s>', a completion ends with '</s>'" in caplog.text


def test_fingerprints_tell_formats_and_templates_apart() -> None:
    prints = {FORMATTERS["byte-level", form].fingerprint for form in FORMATS}
    other = make_tokenizer()
    other.chat_template = "!" + other.chat_template
    prints.add(Formatter(other, PairFormat("chat"), "toy").fingerprint)
    without_bos = make_tokenizer()
    without_bos.backend_tokenizer.post_processor = None
    prints.add(Formatter(without_bos, PairFormat(), "toy").fingerprint)
    assert len(prints) == len(FORMATS) + 2
    assert Formatter(make_tokenizer(), PairFormat(), "elsewhere").fingerprint in prints


def test_formats_survive_json() -> None:
    for form in FORMATS:
        assert PairFormat.from_json(form.to_json()) == form


@pytest.mark.parametrize(
    "stored", ["", "[]", "{", '{"kind": "plain", "more": 1}', '{"kind": "verse"}', '{"kind": "template"}']
)
def test_json_of_something_else(stored: str) -> None:
    with pytest.raises(UserError):
        PairFormat.from_json(stored)


def test_options(tmp_path: Path) -> None:
    file = tmp_path / "template.txt"
    file.write_text(TEMPLATE + "\n", encoding="utf-8")
    assert PairFormat.from_options("template", str(file), "space") == PairFormat("template", TEMPLATE)
    assert PairFormat.from_options("plain", None, "as-is") == PairFormat(seam="as-is")


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (
            b"{prompt} {prompt}",
            ["{prompt} exactly once, found it 2 times", "{completion} exactly once, found it 0 times"],
        ),
        (b"{completion}{prompt}", ["{completion} stands before {prompt}; the prompt comes first"]),
        (b"{prompt}\xff{completion}", ["not UTF-8 at byte 8"]),
        (None, ["cannot be read"]),
    ],
)
def test_template_files_that_will_not_do(tmp_path: Path, content: bytes | None, messages: list[str]) -> None:
    file = tmp_path / "template.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        PairFormat.from_options("template", str(file), "space")
    assert all(f"{file}: " in str(raised.value) and message in str(raised.value) for message in messages)


def test_all_wrong_options_at_once() -> None:
    with pytest.raises(UserError) as raised:
        PairFormat.from_options("verse", "t.txt", "wide")
    assert "3 problems" in str(raised.value)
    with pytest.raises(UserError, match="`--pair-format template` needs a template file"):
        PairFormat.from_options("template", None, "space")


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "fairseq")
    code = f"import sys, nid_plugin.formatting; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
