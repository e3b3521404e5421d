"""What decides an answer (and so a request's id), and how the endpoint is asked (which may change between runs)."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Api = Literal["chat", "completions"]
APIS: tuple[Api, ...] = ("chat", "completions")

REQUEST_FORM = 1
"""Version of how a request's body is made from its settings and text; part of each id."""


@dataclass(frozen=True)
class RequestSettings:
    """Everything that decides what the teacher is asked; a change gives other ids.

    Attributes:
        model: as the endpoint names it.
        api: ``chat`` (``/chat/completions``) or ``completions`` (``/completions``).
        system: system prompt of a chat; none where it is None.
        instruction: put before the text as it stands; empty by default (the paper's way).
        max_tokens: longest answer, in the model's tokens.
        continue_length: how many further requests may continue an answer that ``max_tokens`` cut.
        sampling: temperature, top_p, … as the API names them; what is not named is left to the endpoint.
        extra: further fields of the body, for options of one server alone.
        max_tokens_field: how the endpoint calls ``max_tokens``.
    """

    model: str
    api: Api = "chat"
    system: str | None = None
    instruction: str = ""
    max_tokens: int = 1024
    continue_length: int = 0
    sampling: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    max_tokens_field: str = "max_tokens"

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON has them; equal settings give equal dictionaries."""
        return asdict(self)


@dataclass(frozen=True)
class Connection:
    """How the endpoint is asked; none of it changes an answer or an id.

    Attributes:
        base_url: of the endpoint, ending in ``/v1`` as a rule; None is the ``openai`` client's default.
        api_key: never written anywhere; kept out of ``repr``.
        concurrency: requests in flight.
        requests_per_minute, tokens_per_minute: limits of the endpoint; None is no limit.
        timeout: seconds that one attempt may take in all.
        attempts: how often a request is sent before it counts as failed.
        longest_wait: seconds; where the endpoint asks to wait longer (``Retry-After``), the run stops.
    """

    base_url: str | None = None
    api_key: str = field(default="", repr=False)
    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float = 120.0
    attempts: int = 12
    longest_wait: float = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the teacher.

    Attributes:
        id: 32 hexadecimal digits (see :class:`RequestIds`).
        text: what is asked; of a completion request the document's first half.
        messages: a conversation, (role, content) pairs, asked in place of ``text``; ``chat`` alone has them.
        sampling: of this request, over those of the settings.
    """

    id: str
    text: str
    messages: tuple[tuple[str, str], ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict, hash=False)


class RequestIds:
    """Names requests by what is asked: settings (every field), the key of what the text was made from, the text."""

    def __init__(self, settings: RequestSettings) -> None:
        form = json.dumps([REQUEST_FORM, settings.as_dict()], sort_keys=True)
        self._settings = hashlib.sha256(form.encode())

    def __call__(self, key: str, text: str) -> str:
        """32 hexadecimal digits.

        Args:
            key: what the text was made from (a document's hash, the version of a prompt).
            text: what is asked.
        """
        digest = self._settings.copy()
        digest.update(hashlib.sha256(key.encode()).digest())
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()[:32]


def request_body(settings: RequestSettings, text: str, answered: str = "") -> dict[str, Any]:
    """The JSON body that asks for an answer to ``text``.

    Args:
        settings: of the request.
        text: what is asked.
        answered: what an earlier, cut answer holds already; it follows the text, so that the model goes on from there.
    """
    asked = settings.instruction + text + answered
    body: dict[str, Any] = {"model": settings.model}
    if settings.api == "chat":
        system = [] if settings.system is None else [{"role": "system", "content": settings.system}]
        body["messages"] = [*system, {"role": "user", "content": asked}]
    else:
        body["prompt"] = asked
    return body | {settings.max_tokens_field: settings.max_tokens} | settings.sampling | settings.extra


def body_of(settings: RequestSettings, request: Request, answered: str = "") -> dict[str, Any]:
    """As :func:`request_body`, for a request that may be a conversation and have sampling settings of its own.

    A conversation that begins with a system prompt keeps it in place of the settings' one; it cannot be continued from
    ``answered``.
    """
    body = request_body(settings, request.text, answered) | request.sampling
    if request.messages:
        own = request.messages[0][0] == "system" or settings.system is None
        conversation = request.messages if own else (("system", settings.system), *request.messages)
        body["messages"] = [{"role": role, "content": content} for role, content in conversation]
    return body


def prompt_token_bound(body: dict[str, Any]) -> int:
    """No tokenizer makes more prompt tokens of a body than this: a token is at least one byte of UTF-8.

    Sixteen tokens a message are added for the chat template's own. What else may become part of the prompt (tools, a
    schema) counts as its JSON.
    """
    texts = [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]
    further = [value for name, value in body.items() if isinstance(value, dict | list) and name != "messages"]
    bound = sum(len(text.encode("utf-8", "surrogatepass")) + 16 for text in texts) + 16
    return bound + sum(len(json.dumps(value)) for value in further)
