"""What prompts and completions look like in each format."""

from typing import Any

import pytest

from nid_plugin.pair_texts import ChatTexts, PlainTexts, TemplateTexts
from plugin_common.errors import UserError
from tests.toy_causal_lm import make_tokenizer


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [("old", "town", " town"), ("old ", "town", "town"), ("old", "\ntown", "\ntown"), ("old\u00a0", "town", "town")],
)
def test_a_space_goes_where_there_is_no_white_space(prompt: str, completion: str, expected: str) -> None:
    assert PlainTexts(space=True).completions([prompt], [completion], [prompt]) == [expected]
    assert PlainTexts(space=False).completions([prompt], [completion], [prompt]) == [completion]


def test_spaces_of_a_template_go_with_the_completion() -> None:
    texts = TemplateTexts("Q: {prompt}\nA:  {completion} end", bos="<s>")
    assert (texts.head, texts.lead, texts.tail) == ("Q: ", "  ", " end")
    assert texts.prompts(["{completion}?"]) == ["Q: {completion}?\nA:"]
    assert texts.completions(["why"], ["so"], [""]) == ["  so"]


@pytest.mark.parametrize(("template", "expected"), [("<s>{prompt}{completion}", False), ("{prompt}{completion}", True)])
def test_bos_comes_once(template: str, expected: bool) -> None:
    assert TemplateTexts(template, bos="<s>").begins_with_bos is expected
    assert TemplateTexts(template, bos=None).begins_with_bos


def _chat(template: str | None) -> Any:
    tokenizer = make_tokenizer(chat_template=False)
    tokenizer.chat_template = template
    return tokenizer


def test_a_conversation_is_split_where_the_answer_begins() -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"  # noqa: E501
    texts = ChatTexts(_chat(template), "toy")
    assert (texts.head, texts.lead, texts.tail) == ("[INST] ", " ", " </s>")
    begun = texts.prompts([" why "])
    assert begun == ["[INST] why [/INST]"]
    assert texts.completions([" why "], ["so"], begun) == [" so"]


def test_no_chat_template() -> None:
    with pytest.raises(UserError, match=r"folder: its tokenizer has no chat template; take `--pair-format plain`"):
        ChatTexts(_chat(None), "folder")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages | length }}{{ messages[0].content }}", "but with the answer it goes on otherwise"),
        ("{{ messages[0].content }}", "leaves out the answer"),
        ("{{ raise_exception('only for doctors') }}", r"fails \(only for doctors\)"),
        ("{{ messages[0] }", "its chat template fails"),
    ],
)
def test_templates_that_do_not_fit(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ChatTexts(_chat(template), "toy")


def test_an_ending_that_depends_on_the_answer() -> None:
    template = (
        "{{ messages[0].content }}{% if messages[1] %}{{ messages[1].content }}{{ messages[1].content[:1] }}{% endif %}"
    )
    texts = ChatTexts(_chat(template), "toy")
    with pytest.raises(UserError, match="ends not all answers in 'q'"):
        texts.completions(["why"], ["so"], texts.prompts(["why"]))
