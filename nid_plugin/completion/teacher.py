"""The teacher: one attempt at an OpenAI-compatible endpoint, and what its outcome means."""

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import aiohttp
import httpx2
import openai

from nid_plugin.completion.redaction import redactor
from nid_plugin.completion.settings import Api, Connection
from plugin_common.errors import UserError

PATHS: dict[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}
TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the endpoint gave it; ``usage`` is empty where it does not tell."""

    text: str
    finish_reason: str
    usage: dict[str, int]
    model: str
    refusal: bool


class Again(Exception):
    """This attempt failed, another may not.

    Attributes:
        reason: short name for counting.
        retry_after: seconds that the endpoint asks to wait, None where it does not say.
        billed: whether it may have cost something all the same.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None, billed: bool = False) -> None:
        super().__init__(message)
        self.reason, self.retry_after, self.billed = reason, retry_after, billed


class Refused(Exception):
    """The endpoint will not answer this request, whenever it is asked; ``reason`` is a short name for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unusable(Exception):
    """No request can succeed: a wrong key, an unknown model, no money left. The message is for the user."""


class Teacher:
    """A client of one endpoint. Used as an asynchronous context manager.

    Raises:
        UserError: the environment names a proxy that is none.
    """

    def __init__(self, connection: Connection, api: Api, model: str) -> None:
        self._connection = connection
        self._path = PATHS[api]
        self._model = model
        self._redact = redactor(connection.api_key)
        self._answered = False
        limits = httpx2.Limits(
            max_connections=connection.concurrency + 8, max_keepalive_connections=connection.concurrency + 8
        )
        timeout = httpx2.Timeout(connection.timeout, connect=min(30.0, connection.timeout))
        try:
            self._http = openai.DefaultAioHttpClient(limits=limits, timeout=timeout)
        except (httpx2.InvalidURL, ValueError) as error:
            raise UserError(
                f"a proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) cannot be used: {error}"
            ) from error
        self.client = openai.AsyncOpenAI(
            api_key=connection.api_key or "none",
            base_url=connection.base_url,
            max_retries=0,  # attempts are counted, spaced and paid for by asking.py
            timeout=timeout,
            http_client=self._http,
        )
        self.address = str(self.client.base_url).rstrip("/")
        headers = {**self.client.default_headers, **self.client.auth_headers}
        self._headers = httpx2.Headers({name: value for name, value in headers.items() if isinstance(value, str)})
        self._timeouts = {"timeout": timeout.as_dict()}

    async def __aenter__(self) -> "Teacher":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()

    async def ask(self, body: dict[str, Any]) -> Answer:
        """Send one request, once.

        Raises:
            Again, Refused, Unusable: as these say.
        """
        try:
            async with asyncio.timeout(self._connection.timeout):
                response = await self._post(body)
        except TimeoutError as error:
            raise self._timeout() from error
        except (httpx2.HTTPError, aiohttp.ClientError, OSError) as error:  # some of aiohttp's come through as they are
            raise self._broken(error) from error
        if not response.is_success:
            refusal = status_error(response)
            raise self._meaning(refusal) from refusal
        try:
            answer = read_answer(json.loads(response.content))
        except (ValueError, RecursionError) as error:
            raise Again("malformed answer", self._redact(f"not valid JSON: {error}"), billed=True) from error
        except AnswerError as error:
            raise Again(error.reason, self._redact(str(error)), billed=True) from error
        self._answered = True
        return answer

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        """Send a body with the client's headers over its connections.

        ``self.client.post`` does the same and spends twice the processor time, most of it on options that are the same
        each time; with 64 requests in flight that is what limits their number a second.
        """
        content = json.dumps(body).encode()
        url = self.address + self._path
        request = httpx2.Request("POST", url, headers=self._headers, content=content, extensions=self._timeouts)
        return await self._http.send(request)

    def _timeout(self) -> Again:
        return Again("timeout", f"no answer within {self._connection.timeout:g} seconds", billed=True)

    def _broken(self, error: Exception) -> Again:
        causes = list(_causes(error))
        message = self._redact(f"{type(causes[-1]).__name__}: {' '.join(str(causes[-1]).split())}"[:300])
        # The transport calls every lost connection a timeout: what aiohttp says itself tells them apart.
        if any(isinstance(cause, aiohttp.ClientConnectorError | httpx2.ConnectError) for cause in causes):
            return Again("unreachable", message)
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return self._timeout()
        return Again("connection broken", message, billed=True)

    def _meaning(self, error: openai.APIStatusError) -> Exception:
        status, code = error.status_code, str(error.code or "")
        message = self._redact(error_text(error))
        if status == 401:
            return Unusable(f"{self.address} does not accept the API key ({message})")
        if status == 403 and not self._answered:  # later it concerns one prompt, as where a filter refuses it
            return Unusable(f"{self.address} does not allow this ({message}); check the key's rights")
        if status == 402 or code in OUT_OF_MONEY:
            return Unusable(f"{self.address}: no money left ({message}); add some and run the same command again")
        if status in (404, 405) or code == "model_not_found":
            return Unusable(
                f"{self.address}{self._path} does not know the model {self._model!r} or the path ({message}); "
                f"see {self.address}/models, and --base-url, which ends in /v1 as a rule"
            )
        if status in TRANSIENT_STATUS or status >= 500:
            return Again(f"http {status}", message, retry_after=retry_after(error.response.headers))
        return Refused(f"http {status}", message)


def status_error(response: httpx2.Response) -> openai.APIStatusError:
    """What the client raises for a response that is an error."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body, message = None, response.text.strip() or f"Error code: {response.status_code}"
    else:
        message = f"Error code: {response.status_code} - {body}"
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    return openai.APIStatusError(message, response=response, body=inner)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what led to it, down to the first cause."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


class AnswerError(Exception):
    """The body is no answer; ``reason`` is a short name for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_answer(body: Any) -> Answer:
    """An answer from the body of a response of either API.

    Raises:
        AnswerError: it is of another form.
    """
    if not isinstance(body, dict):
        raise AnswerError("malformed answer", f"an object was expected, found {type(body).__name__}")
    if body.get("error"):
        raise AnswerError("error in the answer", str(body["error"])[:300])
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise AnswerError("no choices", f"the answer has no choices: {str(body)[:300]}")
    choice = choices[0]
    if choice.get("error"):
        raise AnswerError("error in the answer", str(choice["error"])[:300])
    if "message" not in choice and "text" not in choice:
        raise AnswerError("malformed answer", f"the answer has no message: {str(body)[:300]}")
    message = choice.get("message", choice)
    if not isinstance(message, dict):
        raise AnswerError("malformed answer", f"the answer has no message: {str(body)[:300]}")
    text = message.get("content" if "message" in choice else "text")
    refusal = message.get("refusal")
    if not isinstance(text, str | None) or not isinstance(refusal, str | None):
        raise AnswerError("malformed answer", f"the answer's text is no text: {str(body)[:300]}")
    reason = str(choice.get("finish_reason") or "")
    return Answer(
        text=text or refusal or "",
        finish_reason=reason,
        usage=_usage(body.get("usage")),
        model=str(body.get("model") or ""),
        refusal=bool(refusal) or reason == "content_filter",
    )


def _usage(usage: Any) -> dict[str, int]:
    names = ("prompt_tokens", "completion_tokens")
    if not isinstance(usage, dict) or not all(_is_count(usage.get(name)) for name in names):
        return {}
    return {name: usage[name] for name in names}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def error_text(error: openai.APIStatusError, width: int = 300) -> str:
    """What the endpoint says about an error, in one line."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    text = " ".join(str(body or error.message).split())
    return f"HTTP {error.status_code}: {text if len(text) <= width else text[: width - 1] + '…'}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After`` (seconds or a date); None where there is neither."""
    try:
        seconds = float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        value = headers.get("retry-after", "")
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time()
            except (TypeError, ValueError, OverflowError, IndexError):
                return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
