"""Conversations as the token ids that a model in a folder was trained on, and what it generates as text."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nid_plugin.causal_lm.source import load_tokenizer
from nid_plugin.completion.settings import Request
from nid_plugin.evaluation.conversations import joined
from nid_plugin.evaluation.formats import CHAT
from nid_plugin.formatting import Formatter, PairFormat
from nid_plugin.text_encoder import TextEncoder
from plugin_common.errors import UserError
from plugin_common.hf_folder import TOKENIZER_CONFIG_FILE, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILE = "tokenizer.json"
GENERATION_CONFIG_FILE = "generation_config.json"

log = logging.getLogger(__name__)


def tokenizer_of(folder: Path, adapter: str | None) -> "PreTrainedTokenizerBase":
    """An adapter's own tokenizer where its folder has one, for its chat template is what it was trained on; else the
    model's.

    Raises:
        UserError: it cannot be used.
    """
    if adapter is not None and all(
        (Path(adapter) / name).is_file() for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE)
    ):
        return load_tokenizer(Path(adapter), option="--adapter")
    return load_tokenizer(folder)


class LocalPrompts:
    """How requests become a model's token ids, and its token ids answers.

    Text of a conversation that looks like a special token is tokenized as text, in every turn.

    Args:
        tokenizer: of the model.
        name: of the model, for messages.
        folder: of the model; its generation settings name further end tokens.
        pair_format: ``chat`` (the tokenizer's chat template), ``plain`` or ``template``.
        template: file, for ``template``.
        system: system prompt, for chats.

    Attributes:
        end_ids: tokens that end an answer: the format's, the tokenizer's, and those that the generation settings name.
        fingerprint: changes with anything that changes prompts or where answers end.

    Raises:
        UserError: the tokenizer or the template file cannot do it.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        name: str,
        folder: Path,
        *,
        pair_format: str,
        template: str | None = None,
        system: str | None = None,
    ) -> None:
        self._tokenizer, self._name, self._system = tokenizer, name, system
        self._chat = pair_format == CHAT
        self._encoder = TextEncoder(tokenizer, name)
        self._formatter = _formatter(tokenizer, name, pair_format, template)
        trained = [] if self._formatter is None else self._formatter.end_ids[-1:]
        self.end_ids: list[int] = list(dict.fromkeys([*trained, tokenizer.eos_token_id, *_generation_ends(folder)]))
        form = json.dumps(
            [
                self._encoder.fingerprint,
                None if self._formatter is None else self._formatter.fingerprint,
                tokenizer.chat_template if self._chat else None,
                self.end_ids,
            ]
        )
        self.fingerprint = hashlib.sha256(form.encode()).hexdigest()[:32]

    def ids(self, request: Request) -> list[int]:
        """The tokens that ask for an answer.

        Raises:
            UserError: the chat template does not take the conversation.
        """
        if not self._chat and self._formatter is not None:
            return list(self._formatter.prompt_ids([joined(request.messages)])[0])
        system = [] if self._system is None else [("system", self._system)]
        roles, texts = zip(*system, *request.messages, strict=True)
        marked, marks = self._encoder.marked(texts)
        messages = [{"role": role, "content": text} for role, text in zip(roles, marked, strict=True)]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates refuse roles that they do not know, in their own ways
            raise UserError(
                f"{self._name}: its chat template does not take this conversation ({first_line(error)})"
            ) from error
        return self._encoder.ids_with_marks([str(text)], [marks], begins=True)[0]

    def shortened(self, ids: list[int], room: int) -> list[int]:
        """At most ``room`` ids: the beginning goes, but for what the format puts in front (BOS at least)."""
        if len(ids) <= room:
            return ids
        bos = self._encoder.bos_ids
        head = len(bos) if bos and ids[: len(bos)] == bos else 0
        if self._formatter is not None:
            head = max(head, self._formatter.head_of(ids))
        head = min(head, room - 1)
        return ids[:head] + ids[len(ids) - room + head :]

    def text(self, ids: Sequence[int]) -> str:
        """What generated ids say, without an end token."""
        if self._formatter is not None:
            return str(self._formatter.completion_text(ids))
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _formatter(
    tokenizer: "PreTrainedTokenizerBase", name: str, pair_format: str, template: str | None
) -> Formatter | None:
    """What makes prompts as training does; None for a chat template that is good for conversations alone."""
    if pair_format == CHAT and not tokenizer.chat_template:
        raise UserError(
            f"{name}: its tokenizer has no chat template; give --pair-format plain for a model that was trained on "
            "plain text"
        )
    try:
        return Formatter(tokenizer, PairFormat.from_options(pair_format, template, "space"), name)
    except UserError as error:
        if pair_format != CHAT:
            raise
        log.warning("conversations are written by the chat template alone (%s)", first_line(error))
        return None


def _generation_ends(folder: Path) -> list[int]:
    try:
        named = json.loads((folder / GENERATION_CONFIG_FILE).read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return [named] if isinstance(named, int) else list(named or [])
