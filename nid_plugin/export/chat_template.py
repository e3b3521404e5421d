"""The training's format of pairs as a chat template (Jinja): chat programs then prompt the model as it was trained."""

import json
import logging
from typing import Any

from nid_plugin.formatting import Formatter, PairFormat

logger = logging.getLogger(__name__)

_TURNS = (
    "{{%- for message in messages %}}{{{{ message['content'] }}}}"
    "{{%- if not loop.last %}}{{{{ {between} }}}}{{%- endif %}}{{%- endfor %}}"
)
BETWEEN_TURNS = "\n\n"
"""What stands between the turns of a conversation where the format of pairs knows none."""


_PROMPTS_TO_COMPARE = ("The first words", "a\n\nb", " after a space")
# The space in front of a text that some tokenizers leave out behind BOS: never, always, where the text has none.
_LEADS = (
    "",
    "{{- ' ' }}",
    "{%- if messages[0]['content'][:1] != ' ' %}{{- ' ' }}{%- endif %}",
)


def chat_template(tokenizer: Any, pair_format: PairFormat) -> str | None:
    """Jinja that renders a conversation as the training's prompt; None where the tokenizer's own does (chat).

    plain: the contents of all messages with an empty line between them. template: the last message in the place of
    ``{prompt}``, what came before it with it.

    Chat programs tokenize the rendered text, BOS included, at once. Some tokenizers then leave out the space that they
    put in front of a text: where that is so, the template brings it.
    """
    if pair_format.kind == "chat":
        return None
    expected = Formatter(tokenizer, pair_format, "the base").prompt_ids(_PROMPTS_TO_COMPARE)
    bos = tokenizer.bos_token if expected[0][:1] == [tokenizer.bos_token_id] else None
    candidates = [_rendering(pair_format, bos=bos is not None, lead=lead) for lead in _LEADS]
    for template in candidates:
        if [_tokenized(tokenizer, template, prompt) for prompt in _PROMPTS_TO_COMPARE] == expected:
            return template
    logger.warning("chat programs will tokenize the beginning of a prompt a little differently than the training did")
    return candidates[0]


def _tokenized(tokenizer: Any, template: str, prompt: str) -> list[int]:
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _rendering(pair_format: PairFormat, *, bos: bool, lead: str) -> str:
    front = ("{{- bos_token }}" if bos else "") + lead
    turns = _TURNS.format(between=json.dumps(BETWEEN_TURNS))
    if pair_format.kind == "plain":
        return front + turns
    assert pair_format.template is not None
    before, _, rest = pair_format.template.partition("{prompt}")
    behind = rest.partition("{completion}")[0].rstrip(" ")  # spaces in front of a completion are part of it
    return f"{front}{{{{- {json.dumps(before)} }}}}{turns}{{{{- {json.dumps(behind)} }}}}"
