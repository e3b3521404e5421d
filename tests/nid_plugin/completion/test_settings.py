"""What is asked, and the ids of requests."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nid_plugin.completion.settings import (
    Connection,
    Request,
    RequestIds,
    RequestSettings,
    body_of,
    prompt_token_bound,
    request_body,
)

PLAIN = RequestSettings(model="gpt-4-turbo")

CHANGES = {
    "model": "gpt-3.5-turbo",
    "api": "completions",
    "system": "You write.",
    "instruction": "Continue: ",
    "max_tokens": 3,
    "continue_length": 1,
    "sampling": {"temperature": 0.5},
    "extra": {"min_p": 0.1},
    "max_tokens_field": "max_completion_tokens",
}


def test_the_paper_s_way_is_the_first_half_as_it_stands() -> None:
    assert request_body(PLAIN, "Once upon") == {
        "model": "gpt-4-turbo",
        "messages": [{"role": "user", "content": "Once upon"}],
        "max_tokens": 1024,
    }


def test_a_body_with_everything() -> None:
    settings = RequestSettings(
        model="m",
        system="S",
        instruction="I: ",
        max_tokens=7,
        sampling={"temperature": 0.5, "stop": ["\n\n"]},
        extra={"min_p": 0.1},
        max_tokens_field="max_completion_tokens",
    )
    assert request_body(settings, "text", " so far") == {
        "model": "m",
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "I: text so far"}],
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "stop": ["\n\n"],
        "min_p": 0.1,
    }


def test_a_body_of_the_completions_api() -> None:
    assert request_body(replace(PLAIN, api="completions"), "text") == {
        "model": "gpt-4-turbo",
        "prompt": "text",
        "max_tokens": 1024,
    }


def test_every_setting_is_part_of_the_id() -> None:
    assert set(CHANGES) == {field.name for field in fields(RequestSettings)}
    plain = RequestIds(PLAIN)("key", "text")
    others = {RequestIds(replace(PLAIN, **{name: value}))("key", "text") for name, value in CHANGES.items()}
    others |= {RequestIds(PLAIN)("other", "text"), RequestIds(PLAIN)("key", "other"), RequestIds(PLAIN)("keyt", "ext")}
    assert len(others) == len(CHANGES) + 3
    assert plain not in others


def test_ids_stay_as_they_are_from_version_to_version() -> None:
    """Another value means that ledgers of earlier versions would be paid for again: raise REQUEST_FORM knowingly."""
    assert RequestIds(PLAIN)("0" * 32, "Once upon a time") == "88577d9bd7549c4ce8b413bfdc8e296e"


@given(st.text(), st.text(max_size=20))
def test_the_bound_is_never_below_a_byte_level_tokenizer(text: str, system: str) -> None:
    body = request_body(replace(PLAIN, system=system), text)
    assert prompt_token_bound(body) >= len(text.encode()) + len(system.encode())


def test_the_key_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Connection(api_key="secret"))


@pytest.mark.parametrize("text", ["a\ud800b", ""])
def test_any_text_has_an_id(text: str) -> None:
    assert len(RequestIds(PLAIN)("k", text)) == 32


def test_tools_count_as_part_of_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 1000}}]
    with_tools = RequestSettings(model="m", extra={"tools": tools, "top_k": 5})
    more = prompt_token_bound(request_body(with_tools, "a")) - prompt_token_bound(request_body(PLAIN, "a"))
    assert more >= 1000


def test_a_request_may_be_a_conversation_with_sampling_of_its_own() -> None:
    plain = Request("0", "text")
    assert body_of(PLAIN, plain, " so far") == request_body(PLAIN, "text", " so far")
    talk = Request("0", "c", (("user", "a"), ("assistant", "b"), ("user", "c")), {"temperature": 0.1})
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    settings = replace(PLAIN, sampling={"temperature": 0.9, "top_p": 0.5})
    body = body_of(settings, talk)
    assert body["messages"] == said and (body["temperature"], body["top_p"]) == (0.1, 0.5)
    system = {"role": "system", "content": "You write."}
    assert body_of(replace(PLAIN, system="You write."), talk)["messages"] == [system, *said]
    own = replace_messages(talk, (("system", "Mine."), *talk.messages))
    assert body_of(replace(PLAIN, system="You write."), own)["messages"][0]["content"] == "Mine."
    assert prompt_token_bound(body) >= 3 + 3 * 16


def replace_messages(request: Request, messages: tuple[tuple[str, str], ...]) -> Request:
    return replace(request, messages=messages)
