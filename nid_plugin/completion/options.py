"""Command-line options for asking a teacher; shared by every command that asks one."""

import argparse
import json
import math
import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nid_plugin.completion.prices import Price, price_of, read_prices
from nid_plugin.completion.settings import APIS, Connection, RequestSettings
from plugin_common.errors import UserError, raise_all

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop")
OWN_FIELDS = {"model", "messages", "prompt", "stream", "n", "best_of", "max_tokens", "max_completion_tokens", *SAMPLING}
"""What ``--extra-body`` cannot give: it has an option, or an answer would cost more than is set aside for it."""


@dataclass(frozen=True)
class TeacherSettings:
    """What the options of a command say about its teacher.

    Attributes:
        request: what is asked.
        connection: how; its key is empty where none is needed (or none was looked for).
        price: of the model, None where it is unknown.
        max_cost: US dollars, None for no limit.
    """

    request: RequestSettings
    connection: Connection
    price: Price | None
    max_cost: float | None


def add_teacher_options(
    parser: argparse.ArgumentParser, *, max_tokens: int | None = 1024, max_tokens_default: str = "%(default)s"
) -> None:
    """Add the options about the endpoint, the request, limits and costs (not the one that names the model).

    Args:
        parser: gets them.
        max_tokens: default of ``--max-tokens``; None where the command finds one itself before it asks.
        max_tokens_default: that default in words, for the help text.
    """
    _add_endpoint(parser.add_argument_group("endpoint (none of these changes an answer or a request's id)"))
    _add_request(
        parser.add_argument_group("request (each of these is part of a request's id)"), max_tokens, max_tokens_default
    )
    _add_cost(parser.add_argument_group("cost"))


def _add_endpoint(endpoint: argparse._ArgumentGroup) -> None:
    endpoint.add_argument(
        "--base-url",
        metavar="URL",
        help="of an OpenAI-compatible server, e.g. http://localhost:8000/v1 (default: $OPENAI_BASE_URL, else OpenAI's)",
    )
    endpoint.add_argument(
        "--api-key-env",
        metavar="NAME",
        default="OPENAI_API_KEY",
        help="environment variable that holds the API key; a server on this machine needs none (default: %(default)s)",
    )
    endpoint.add_argument(
        "--concurrency", type=int, default=16, metavar="N", help="requests in flight (default: %(default)s)"
    )
    endpoint.add_argument("--requests-per-minute", type=int, metavar="N", help="limit of the endpoint (default: none)")
    endpoint.add_argument(
        "--tokens-per-minute",
        type=int,
        metavar="N",
        help="limit of the endpoint, prompt (about 3 bytes a token) and --max-tokens together (default: none)",
    )
    endpoint.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="for one attempt in all (default: %(default)s)"
    )
    endpoint.add_argument(
        "--attempts",
        type=int,
        default=12,
        metavar="N",
        help="how often a request is sent before it counts as failed; waits grow from a tenth of a second to a "
        "minute, Retry-After is honoured (default: %(default)s)",
    )
    endpoint.add_argument(
        "--longest-wait",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="stop where the endpoint asks to wait longer (default: %(default)s)",
    )


def _add_request(request: argparse._ArgumentGroup, max_tokens: int | None, max_tokens_default: str) -> None:
    request.add_argument(
        "--api", choices=APIS, default="chat", help="/chat/completions or /completions (default: %(default)s)"
    )
    request.add_argument("--system", metavar="TEXT", help="system prompt of a chat (default: none)")
    request.add_argument(
        "--max-tokens",
        type=int,
        default=max_tokens,
        metavar="N",
        help=f"longest answer (default: {max_tokens_default})",
    )
    request.add_argument(
        "--max-tokens-field",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
        help="what the endpoint calls it (default: %(default)s)",
    )
    request.add_argument(
        "--temperature", type=float, metavar="T", help="default: the endpoint's, as with all sampling settings"
    )
    request.add_argument("--top-p", type=float, metavar="P")
    request.add_argument("--frequency-penalty", type=float, metavar="X")
    request.add_argument("--presence-penalty", type=float, metavar="X")
    request.add_argument(
        "--stop", action="append", metavar="TEXT", help="end the answer before this text; may be given several times"
    )
    request.add_argument("--teacher-seed", type=int, metavar="N", help="`seed` of the request")
    request.add_argument("--extra-body", metavar="JSON", help="further fields of the request, e.g. '{\"min_p\": 0.05}'")


def _add_cost(cost: argparse._ArgumentGroup) -> None:
    cost.add_argument(
        "--price",
        type=float,
        nargs=2,
        metavar=("INPUT", "OUTPUT"),
        help="of the model, dollars for a million tokens; 0 0 for a server of your own",
    )
    cost.add_argument(
        "--prices",
        metavar="FILE",
        help="prices by model, TOML (default: the file completion/prices.toml of the package)",
    )
    cost.add_argument(
        "--max-cost",
        type=float,
        metavar="DOLLARS",
        help="stop before this is passed, earlier runs on the same ledger included; needs the price",
    )


def teacher_settings(args: argparse.Namespace, model: str, *, needs_key: bool = True) -> TeacherSettings:
    """What the options say; all that is wrong with them in one error.

    Args:
        args: with the options of :func:`add_teacher_options`; ``instruction`` and ``continue_length`` where the command
            has them.
        model: as the endpoint names it.
        needs_key: look for the API key (a dry run needs none).

    Raises:
        UserError: an option's value, a missing key, an unknown price with ``--max-cost``.
    """
    base_url = args.base_url or os.environ.get("OPENAI_BASE_URL") or None
    extra, problem = _extra_body(args.extra_body)
    price, unknown = _price(args, model)
    key = os.environ.get(args.api_key_env, "").strip()
    problems = [*_numbers(args), *_address(base_url), *filter(None, [problem, unknown])]
    problems += _texts(args, model)
    if needs_key:
        problems += _key(key, base_url, args.api_key_env)
    if not model.strip():
        problems.append("the model's name is empty")
    raise_all(problems)
    sampling = {
        "temperature": args.temperature,
        "top_p": args.top_p,
        "frequency_penalty": args.frequency_penalty,
        "presence_penalty": args.presence_penalty,
        "seed": args.teacher_seed,
        "stop": args.stop,
    }
    request = RequestSettings(
        model=model,
        api=args.api,
        system=args.system,
        instruction=getattr(args, "instruction", ""),
        max_tokens=args.max_tokens,
        continue_length=getattr(args, "continue_length", 0),
        sampling={name: value for name, value in sampling.items() if value is not None},
        extra=extra,
        max_tokens_field=args.max_tokens_field,
    )
    connection = Connection(
        base_url=base_url,
        api_key=key,
        concurrency=args.concurrency,
        requests_per_minute=args.requests_per_minute,
        tokens_per_minute=args.tokens_per_minute,
        timeout=args.timeout,
        attempts=args.attempts,
        longest_wait=args.longest_wait,
    )
    return TeacherSettings(request, connection, price, args.max_cost)


def _numbers(args: argparse.Namespace) -> Iterator[str]:
    at_least_one = ("concurrency", "requests_per_minute", "tokens_per_minute", "attempts", "max_tokens")
    for name in at_least_one:
        value = getattr(args, name)
        if value is not None and value < 1:
            yield f"{_option(name)} {value}: at least 1 is expected"
    for name in ("timeout", "longest_wait", "max_cost"):
        value = getattr(args, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            yield f"{_option(name)} {value}: a number above 0 is expected"
    if args.temperature is not None and not 0 <= args.temperature <= 2:
        yield f"--temperature {args.temperature}: 0 to 2 is expected"
    for name in ("frequency_penalty", "presence_penalty"):
        value = getattr(args, name)
        if value is not None and not math.isfinite(value):
            yield f"{_option(name)} {value}: a finite number is expected"
    if args.top_p is not None and not 0 < args.top_p <= 1:
        yield f"--top-p {args.top_p}: above 0, at most 1 is expected"
    if getattr(args, "continue_length", 0) < 0:
        yield f"--continue-length {args.continue_length}: 0 or more is expected"
    if args.api == "completions" and args.system is not None:
        yield "--system: only a chat has a system prompt; leave it out, or use --api chat"


def _texts(args: argparse.Namespace, model: str) -> Iterator[str]:
    texts = {"--model": [model], "--system": [args.system], "--instruction": [getattr(args, "instruction", None)]}
    texts |= {"--stop": args.stop or [], "--extra-body": [args.extra_body]}
    for option, given in texts.items():
        try:
            "".join(filter(None, given)).encode()
        except UnicodeEncodeError:
            yield f"{option}: holds bytes that are no UTF-8"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _address(base_url: str | None) -> Iterator[str]:
    if base_url is None:
        return
    try:
        parts = urllib.parse.urlsplit(base_url)
        host, with_key = parts.hostname, parts.username or parts.password
        _ = parts.port
    except ValueError as error:
        yield f"--base-url: not a URL ({error})"
        return
    if with_key:
        yield "--base-url: holds a user name or password; give the key in the environment (--api-key-env)"
    elif parts.query or parts.fragment:
        yield "--base-url: ends in ?… or #…; give the address alone, as https://HOST/v1, and the key in the environment"
    elif parts.scheme not in ("http", "https") or not host:
        yield f"--base-url {base_url}: http://HOST:PORT/v1 or https://… is expected"


def _key(key: str, base_url: str | None, variable: str) -> Iterator[str]:
    if not key and (base_url is None or urllib.parse.urlsplit(base_url).hostname not in LOCAL_HOSTS):
        yield (
            f"no API key: the environment variable {variable} is empty; `export {variable}=…` before the command, or "
            "name another one with --api-key-env (a server that wants none takes any text)"
        )
    elif not all(" " < character <= "~" for character in key):
        yield f"the API key in {variable} holds blanks or characters outside ASCII; copy it again"


def _extra_body(text: str | None) -> tuple[dict[str, Any], str | None]:
    if text is None:
        return {}, None
    try:
        extra = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return {}, f"--extra-body: not valid JSON ({error})"
    if not isinstance(extra, dict):
        return {}, f"--extra-body: a JSON object is expected, found {type(extra).__name__}"
    own = sorted(OWN_FIELDS & set(extra))
    if own:
        return {}, f"--extra-body: {', '.join(own)} cannot be given here; sampling settings have options of their own"
    return extra, None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _price(args: argparse.Namespace, model: str) -> tuple[Price | None, str | None]:
    if args.price is not None:
        if not all(value >= 0 and math.isfinite(value) for value in args.price):
            return (
                None,
                f"--price {args.price[0]} {args.price[1]}: dollars for a million tokens, 0 or more, are expected",
            )
        return Price(*args.price), None
    try:
        prices = read_prices(Path(args.prices)) if args.prices else read_prices()
    except UserError as error:
        return None, str(error)
    price = price_of(model, prices)
    if price is None and args.max_cost is not None:
        return None, (
            f"--max-cost: the price of {model!r} is unknown; give --price INPUT OUTPUT, or a file with --prices "
            f"(known: {', '.join(sorted(prices))})"
        )
    return price, None
