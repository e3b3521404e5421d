"""The options about a teacher, all problems in one error."""

import argparse
from pathlib import Path

import pytest

from nid_plugin.completion.options import add_teacher_options, teacher_settings
from nid_plugin.completion.prices import Price
from plugin_common.errors import UserError

LOCAL = ["--base-url", "http://localhost:8000/v1"]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_teacher_options(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_of_a_local_server() -> None:
    teacher = teacher_settings(parsed(*LOCAL), "m")
    assert teacher.request.sampling == {} and teacher.request.max_tokens == 1024
    assert teacher.connection.api_key == "" and teacher.connection.concurrency == 16
    assert teacher.price is None and teacher.max_cost is None


def test_sampling_settings_are_sent_only_if_they_are_given() -> None:
    words = ["--temperature", "0", "--top-p", "0.9", "--stop", "a", "--stop", "b", "--teacher-seed", "3"]
    teacher = teacher_settings(parsed(*LOCAL, *words, "--extra-body", '{"min_p": 0.1}'), "m")
    assert teacher.request.sampling == {"temperature": 0.0, "top_p": 0.9, "seed": 3, "stop": ["a", "b"]}
    assert teacher.request.extra == {"min_p": 0.1}


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert teacher_settings(parsed(), "m").connection.base_url == "http://127.0.0.1:1/v1"


def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", " secret\n")
    assert teacher_settings(parsed("--api-key-env", "OTHER"), "gpt-4-turbo").connection.api_key == "secret"


@pytest.mark.parametrize("words", [[], ["--base-url", "https://api.example.com/v1"]])
def test_no_key(words: list[str]) -> None:
    with pytest.raises(UserError, match="no API key: the environment variable OPENAI_API_KEY is empty"):
        teacher_settings(parsed(*words), "m")
    teacher_settings(parsed(*words), "m", needs_key=False)


def test_a_key_with_blanks_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abc def")
    with pytest.raises(UserError, match="holds blanks") as caught:
        teacher_settings(parsed(), "m")
    assert "abc" not in str(caught.value)


def test_every_problem_at_once() -> None:
    words = ["--concurrency", "0", "--temperature", "3", "--top-p", "0", "--timeout", "-1", "--attempts", "0"]
    words += ["--base-url", "localhost:80", "--extra-body", "{", "--max-cost", "5", "--max-tokens", "0"]
    words += ["--api", "completions", "--system", "x", "--longest-wait", "nan"]
    with pytest.raises(UserError) as caught:
        teacher_settings(parsed(*words), "m")
    text = str(caught.value)
    assert text.startswith("12 problems:")
    for option in [word for word in words if word.startswith("--") and word != "--api"]:
        assert option in text, option


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://", "http://[::1", "x"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UserError, match="--base-url"):
        teacher_settings(parsed("--base-url", url), "m", needs_key=False)


@pytest.mark.parametrize("url", ["https://x/v1?key=hidden", "https://x/v1#hidden"])
def test_a_query_in_the_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UserError, match="give the address alone") as caught:
        teacher_settings(parsed("--base-url", url), "m", needs_key=False)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("option", ["--system", "--stop"])
def test_bytes_that_are_no_text(option: str) -> None:
    with pytest.raises(UserError, match=f"{option}: holds bytes that are no UTF-8"):
        teacher_settings(parsed(*LOCAL, option, "a\udcff"), "m")


def test_numbers_that_are_none() -> None:
    with pytest.raises(UserError, match="--presence-penalty nan"):
        teacher_settings(parsed(*LOCAL, "--presence-penalty", "nan"), "m")


def test_a_key_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match="holds a user name or password") as caught:
        teacher_settings(parsed("--base-url", "https://me:hidden@example.com/v1"), "m", needs_key=False)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    ["[1]", '{"model": "x"}', '{"temperature": 1}', '{"stream": true}', '{"n": 2}', '{"best_of": 2}', '{"x": NaN}'],
)
def test_fields_that_have_options_of_their_own(body: str) -> None:
    with pytest.raises(UserError, match="--extra-body"):
        teacher_settings(parsed(*LOCAL, "--extra-body", body), "m")


def test_a_prices_file_that_cannot_be_read_is_one_of_several_problems(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 problems:(.|\n)*--top-p(.|\n)*the prices cannot be read"):
        teacher_settings(parsed(*LOCAL, "--top-p", "0", "--prices", str(tmp_path)), "m")


def test_prices() -> None:
    assert teacher_settings(parsed(*LOCAL), "gpt-4-turbo").price == Price(10, 30, 0.5)
    assert teacher_settings(parsed(*LOCAL, "--price", "1", "2"), "gpt-4-turbo").price == Price(1, 2)
    with pytest.raises(UserError, match="--price -1"):
        teacher_settings(parsed(*LOCAL, "--price", "-1", "2"), "m")
    with pytest.raises(UserError, match=r"price of 'm' is unknown.*gpt-4-turbo"):
        teacher_settings(parsed(*LOCAL, "--max-cost", "1"), "m")
