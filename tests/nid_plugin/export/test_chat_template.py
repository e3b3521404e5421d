"""The exported chat template prompts the model as its training did."""

from pathlib import Path

import pytest

from nid_plugin.causal_lm import source
from nid_plugin.export.chat_template import chat_template
from nid_plugin.formatting import Formatter, PairFormat
from tests.toy_causal_lm import make_causal_lm

PROMPTS = ["the old town", 'it\'s {{ odd }} {% if %} "quoted" \\ back\nand a line', " begins with space"]
FORMATS = [
    PairFormat(),
    PairFormat("template", '### Text:\n{prompt}\n### "Rest" \\n{{ it }}:\n{completion}'),
    PairFormat("template", "Q: {prompt}\nA: {completion}"),  # the space is the completion's
    PairFormat("chat"),
]


@pytest.mark.parametrize("pair_format", FORMATS, ids=lambda pair_format: pair_format.kind)
@pytest.mark.parametrize("kind", ["byte-level", "metaspace", "prepend"])
def test_rendered_messages_are_the_trainings_prompts(tmp_path: Path, pair_format: PairFormat, kind: str) -> None:
    folder = make_causal_lm(tmp_path / "lm", tokenizer=kind)  # type: ignore[arg-type]
    tokenizer = source.load_tokenizer(folder)
    expected = Formatter(tokenizer, pair_format, "toy").prompt_ids(PROMPTS)
    template = chat_template(tokenizer, pair_format)
    if template is not None:
        tokenizer.chat_template = template
    for prompt, ids in zip(PROMPTS, expected, strict=True):
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids


def test_turns_have_an_empty_line_between(tmp_path: Path) -> None:
    tokenizer = source.load_tokenizer(make_causal_lm(tmp_path / "lm"))
    tokenizer.chat_template = chat_template(tokenizer, PairFormat())
    messages = [{"role": role, "content": role[0]} for role in ("user", "assistant", "user")]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<s>u\n\na\n\nu"
