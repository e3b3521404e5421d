"""What the outcome of one attempt means."""

import asyncio
import json
import socket
import threading
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from nid_plugin.completion.redaction import redactor
from nid_plugin.completion.settings import Connection, RequestSettings, request_body
from nid_plugin.completion.teacher import (
    Again,
    Answer,
    AnswerError,
    Refused,
    Teacher,
    Unusable,
    read_answer,
    retry_after,
)
from plugin_common.errors import UserError
from tests.toy_teacher import Asked, Reply, answer, error, plain_answer, toy_teacher

KEY = "sk-test-0123456789abcdef"


def ask(base_url: str, *, api: Any = "chat", timeout: float = 5.0) -> Answer:
    """One attempt."""
    settings = RequestSettings(model="toy", api=api, max_tokens=5)

    async def one() -> Answer:
        async with Teacher(Connection(base_url=base_url, api_key=KEY, timeout=timeout), api, "toy") as teacher:
            return await teacher.ask(request_body(settings, "Once"))

    return asyncio.run(one())


def outcome(reply: Reply) -> Exception:
    """What one attempt raises where the endpoint replies so."""
    with toy_teacher(lambda asked: reply) as teacher, pytest.raises((Again, Refused, Unusable)) as caught:
        ask(teacher.base_url)
    return caught.value


def test_a_good_answer_of_a_chat() -> None:
    with toy_teacher(lambda asked: answer(" upon a time", finish_reason="length")) as teacher:
        got = ask(teacher.base_url)
    assert got == Answer(
        " upon a time", "length", {"prompt_tokens": 10, "completion_tokens": 5}, "toy-2026-01-01", False
    )
    (asked,) = teacher.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {"model": "toy", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 5}


def test_a_good_answer_of_the_completions_api() -> None:
    with toy_teacher(lambda asked: plain_answer(" upon")) as teacher:
        assert ask(teacher.base_url, api="completions").text == " upon"
    assert teacher.asked[0].path == "/v1/completions"
    assert teacher.asked[0].body["prompt"] == "Once"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass(status: int) -> None:
    caught = outcome(error(status, "busy", retry_after="1.5"))
    assert isinstance(caught, Again)
    assert (caught.reason, caught.retry_after, caught.billed) == (f"http {status}", 1.5, False)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_will_not_pass_for_this_request(status: int) -> None:
    caught = outcome(error(status, "the prompt is too long"))
    assert isinstance(caught, Refused)
    assert (caught.reason, str(caught)) == (f"http {status}", f"HTTP {status}: the prompt is too long")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "Incorrect API key provided"), "does not accept the API key"),
        (error(403, "no"), "does not allow"),
        (error(404, "The model `toy` does not exist", "model_not_found"), "does not know the model 'toy'"),
        (error(404, "nothing here"), "--base-url"),
        (error(400, "no such model", "model_not_found"), "does not know the model"),
        (error(429, "You exceeded your current quota", "insufficient_quota"), "no money left"),
        (error(402, "pay"), "no money left"),
    ],
)
def test_what_concerns_all_requests(reply: Reply, words: str) -> None:
    caught = outcome(reply)
    assert isinstance(caught, Unusable)
    assert words in str(caught)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "malformed answer"),
        (b"\xff", "malformed answer"),
        (b"[]", "malformed answer"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": null}', "no choices"),
        (b'{"choices": [{"message": null}]}', "malformed answer"),
        (b'{"choices": [{"message": {"content": 3}}]}', "malformed answer"),
        (b'{"error": {"message": "overloaded"}}', "error in the answer"),
    ],
)
def test_answers_that_are_none_may_have_been_billed(body: bytes, reason: str) -> None:
    caught = outcome((200, {}, body))
    assert isinstance(caught, Again)
    assert (caught.reason, caught.billed) == (reason, True)


def test_an_error_that_is_no_json() -> None:
    caught = outcome((502, {"content-type": "text/html"}, b"<html>Bad\n Gateway</html>"))
    assert str(caught) == "HTTP 502: <html>Bad Gateway</html>"


def test_half_a_response() -> None:
    caught = outcome((200, {"content-length": "1000", "connection": "close"}, b'{"choices": '))
    assert isinstance(caught, Again)
    assert (caught.reason, caught.billed) == ("connection broken", True)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Again) as caught:
            ask(f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    assert (caught.value.reason, caught.value.billed) == ("unreachable", False)


def test_no_answer_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Again, match=r"no answer within 0\.2 seconds") as caught:
            ask(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.2)
    assert (caught.value.reason, caught.value.billed) == ("timeout", True)


def test_the_key_that_an_endpoint_echoes_is_hidden() -> None:
    def echo(asked: Asked) -> Reply:
        return error(401, f"Incorrect API key provided: {asked.headers['authorization']}, sk-test-***cdef")

    with toy_teacher(echo) as teacher, pytest.raises(Unusable) as caught:
        ask(teacher.base_url)
    assert KEY not in str(caught.value)
    assert "cdef" not in str(caught.value)
    assert "[key]" in str(caught.value)


def test_other_text_is_not_hidden() -> None:
    assert redactor(KEY)("the task-oriented sk-y") == "the task-oriented sk-y"
    assert redactor("")("nothing to hide") == "nothing to hide"


@pytest.mark.parametrize(
    ("message", "refusal", "text"),
    [
        ({"content": None, "refusal": "I cannot."}, True, "I cannot."),
        ({"content": "", "refusal": None}, False, ""),
        ({"content": "x"}, False, "x"),
    ],
)
def test_refusals(message: dict[str, Any], refusal: bool, text: str) -> None:
    got = read_answer({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (got.refusal, got.text, got.usage) == (refusal, text, {})


def test_a_content_filter_is_a_refusal() -> None:
    assert read_answer(json.loads(answer("part", finish_reason="content_filter")[2])).refusal


def test_an_answer_of_another_type() -> None:
    with pytest.raises(AnswerError, match="found str"):
        read_answer("x")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    assert retry_after({"retry-after": formatdate(time() + 30, usegmt=True)}) == pytest.approx(30, abs=2)


def raw_reply(data: bytes) -> Exception | Answer:
    """What one attempt comes to where the endpoint writes these bytes and hangs up."""

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(65536)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        try:
            return ask(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        except (Again, Refused, Unusable) as error:
            return error
        finally:
            thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "connection broken"),
        (b"\x00\x01 nonsense\r\n\r\n", "connection broken"),
        (b"HTTP/1.1 abc\r\n\r\n", "connection broken"),
        (HEAD + b"no colon\r\n\r\n", "connection broken"),
        (HEAD + b"content-length: -5\r\n\r\nabc", "connection broken"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", "connection broken"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n10\r\nabc", "connection broken"),
        (HEAD + b"x: " + b"y" * 100_000 + b"\r\n\r\n", "connection broken"),
        (HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", "connection broken"),
        (HEAD + b"content-length: 0\r\n\r\n", "malformed answer"),
        (HEAD + b"\r\n" + b"[" * 200_000, "malformed answer"),
        (HEAD + b'\r\n{"choices": [{}]}', "malformed answer"),
        (HEAD + b'\r\n{"choices": [{"message": {"content": ["x"]}}]}', "malformed answer"),
        (HEAD + b'\r\n{"choices": [{"error": {"code": 502}, "message": {"content": ""}}]}', "error in the answer"),
        (HEAD + b"\r\n\xff", "malformed answer"),
        (b"HTTP/1.1 500 X\r\nconnection: close\r\n\r\n" + b"[" * 200_000, "http 500"),
    ],
)
def test_whatever_comes_over_the_wire_is_one_failed_attempt(data: bytes, reason: str) -> None:
    error = raw_reply(data)
    assert isinstance(error, Again) and error.reason == reason
    assert len(str(error)) < 400 and "\n" not in str(error)


def test_an_answer_without_a_content_type() -> None:
    got = raw_reply(HEAD + b'\r\n{"choices": [{"message": {"content": "x"}, "finish_reason": null}], "usage": null}')
    assert got == Answer("x", "", {}, "", False)


@pytest.mark.parametrize("count", [True, -1, 1.5, None, "7", 10**400])
def test_counts_that_are_none_are_as_good_as_not_given(count: Any) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": count}
    assert read_answer({"choices": [{"text": "x"}], "usage": usage}).usage == {}


@pytest.mark.parametrize(
    "value",
    [
        "Thu, 01 Jan 0001 00:00:00 +2359",
        "Fri, 31 Dec 99999999999999999999 23:59:59",
        "Mon, 01 Jan 2024 00:00:00 +999999999999",
        "1e400",
        "\x00",
        ",,,",
    ],
)
def test_a_strange_retry_after_is_as_good_as_none(value: str) -> None:
    assert retry_after({"retry-after": value}) in (None, 0.0)


def test_a_path_that_the_endpoint_does_not_have() -> None:
    assert isinstance(outcome(error(405, "method not allowed")), Unusable)


@pytest.mark.parametrize("proxy", [":::bad", "ftp://x"])
def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UserError, match="HTTPS_PROXY"):
        ask("https://example.invalid/v1")
