"""The training's format of pairs as a chat template (Jinja), so that chat programs prompt the model as it was trained."""

import json

from nid_plugin.formatting import PairFormat

_TURNS = (
    "{{%- for message in messages %}}{{{{ message['content'] }}}}"
    "{{%- if not loop.last %}}{{{{ {between} }}}}{{%- endif %}}{{%- endfor %}}"
)
BETWEEN_TURNS = "\n\n"
"""What stands between the turns of a conversation where the format of pairs knows none."""


def chat_template(pair_format: PairFormat, *, begins_with_bos: bool) -> str | None:
    """Jinja that renders a conversation as the training's prompt; None where the tokenizer's own does (chat).

    plain: the contents of all messages with an empty line between them. template: the last message in the place of
    ``{prompt}``, what came before it with it.
    """
    bos = "{{- bos_token }}" if begins_with_bos else ""
    if pair_format.kind == "chat":
        return None
    turns = _TURNS.format(between=json.dumps(BETWEEN_TURNS))
    if pair_format.kind == "plain":
        return bos + turns
    assert pair_format.template is not None
    before, _, rest = pair_format.template.partition("{prompt}")
    behind = rest.partition("{completion}")[0]
    return f"{bos}{{{{- {json.dumps(before)} }}}}{turns}{{{{- {json.dumps(behind)} }}}}"
