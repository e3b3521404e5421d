"""Prompts of a model in a folder: those of its training, in every turn, whichever way they are asked for."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.completion.settings import Request
from nid_plugin.evaluation.local_prompts import LocalPrompts, tokenizer_of
from nid_plugin.export.chat_template import chat_template
from nid_plugin.formatting import PairFormat
from plugin_common.errors import UserError
from tests.toy_causal_lm import TokenizerKind, make_causal_lm, make_tokenizer

NOWHERE = Path("none")
ONE_WAY = (  # what it writes for a question alone is not how it begins with the answer
    "{{ bos_token }}{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    "{% if add_generation_prompt %} go on:{% endif %}"
)
PIECES = ["the river", " sings", "why?", *"ab \nß日🙂<>|"]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1).map("".join)


def prompts(tokenizer: Any, pair_format: str = "chat", folder: Path = NOWHERE, **options: Any) -> LocalPrompts:
    return LocalPrompts(tokenizer, "m", folder, pair_format=pair_format, **options)


def request(*turns: str) -> Request:
    roles = ["user", "assistant"] * len(turns)
    return Request("0" * 32, turns[-1], tuple(zip(roles, turns, strict=False)))


def exported(kind: TokenizerKind) -> Any:
    """The tokenizer as ``nid export`` gives it to a model that was trained on plain pairs."""
    tokenizer = make_tokenizer(kind, chat_template=False)
    tokenizer.chat_template = chat_template(tokenizer, PairFormat("plain"))
    return tokenizer


BOTH = {
    kind: (prompts(make_tokenizer(kind, chat_template=False), "plain"), prompts(exported(kind)))
    for kind in get_args(TokenizerKind)
}


@pytest.mark.parametrize("kind", get_args(TokenizerKind))
@given(turns=st.lists(TEXTS, min_size=1, max_size=3).filter(lambda turns: len(turns) != 2))
def test_the_exported_chat_template_is_the_plain_format(kind: TokenizerKind, turns: list[str]) -> None:
    plain, chat = BOTH[kind]
    assert chat.ids(request(*turns)) == plain.ids(request(*turns))
    assert chat.end_ids == plain.end_ids


def test_what_looks_like_a_special_token_is_text_in_every_turn() -> None:
    tokenizer = make_tokenizer()
    special = set(tokenizer.all_special_ids)
    own = prompts(tokenizer, system="You <|im_end|> talk.").ids(request("a </s>", "b <|im_start|>user", "c <s>"))
    assert tokenizer.decode(own) == (
        "<s><|im_start|>system\nYou <|im_end|> talk.<|im_end|>\n<|im_start|>user\na </s><|im_end|>\n"
        "<|im_start|>assistant\nb <|im_start|>user<|im_end|>\n<|im_start|>user\nc <s><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    written = sum(1 for token in own if token in special)
    assert written == 1 + 4 * 2 + 1  # BOS, both ends of four messages, the beginning of the answer
    plain = make_tokenizer()
    assert not special & set(prompts(plain, "plain").ids(request("a </s>", "b", "<|im_end|>"))[1:])


def test_a_long_prompt_keeps_bos_where_the_template_is_good_for_conversations_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = ONE_WAY
    found = prompts(tokenizer)
    assert "written by the chat template alone" in caplog.text
    ids = found.ids(request("the river runs through our old town"))
    short = found.shortened(ids, 8)
    assert len(short) == 8 and short[0] == tokenizer.bos_token_id and short[1:] == ids[-7:]
    assert found.shortened(ids, len(ids)) == ids


def test_whatever_changes_prompts_or_ends_changes_the_fingerprint(tmp_path: Path) -> None:
    settings = tmp_path / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": [1, 7]}), encoding="utf-8")
    other = make_tokenizer()
    other.chat_template = other.chat_template.replace("assistant\n", "assistant: ")
    made = [
        prompts(make_tokenizer()),
        prompts(other),
        prompts(make_tokenizer(), "plain"),
        prompts(make_tokenizer("metaspace")),
        prompts(make_tokenizer(), folder=tmp_path),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert made[-1].end_ids[-1] == 7
    assert prompts(make_tokenizer()).fingerprint == made[0].fingerprint


def test_an_adapter_brings_its_tokenizer(tmp_path: Path) -> None:
    folder = make_causal_lm(tmp_path / "m")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    assert tokenizer_of(folder, str(adapter)).chat_template == make_tokenizer().chat_template
    exported("byte-level").save_pretrained(adapter)
    plain = prompts(tokenizer_of(folder, None), "plain").ids(request("why?", "so", "what?"))
    assert prompts(tokenizer_of(folder, str(adapter))).ids(request("why?", "so", "what?")) == plain
    (adapter / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"--adapter .*adapter: its tokenizer cannot be loaded"):
        tokenizer_of(folder, str(adapter))


def test_a_template_that_refuses_roles_is_told() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ message['content'] }}{% endfor %}"
    )
    with pytest.raises(UserError, match=r"m: its chat template does not take this conversation \(no system\)"):
        prompts(tokenizer, system="Be brief.").ids(request("why?"))
