"""Put requests into the input files of batches."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from nid_plugin.completion.batch_options import BatchOptions
from nid_plugin.completion.prices import Price
from nid_plugin.completion.settings import Api, Request, RequestSettings, body_of, prompt_token_bound
from nid_plugin.completion.spending import Spending

ENDPOINTS: dict[Api, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


class Packer:
    """Deals requests out to input files, in order.

    Args:
        requests: to be dealt out.
        settings: of all of them.
        price: of the model, None where it is unknown.
        spending: its limit ends a file.
        options: the largest file.
        too_long: called with a request that fits into no file, and the bytes of its line.

    Attributes:
        most: US dollars that the requests of the current file can cost at most.
        no_money: whether the limit allows no further request, as far as is known now.
    """

    def __init__(
        self,
        requests: Iterator[Request],
        settings: RequestSettings,
        price: Price | None,
        spending: Spending,
        options: BatchOptions,
        too_long: Callable[[Request, int], None],
    ) -> None:
        self._requests, self._settings, self._price = requests, settings, price
        self._spending, self._options, self._too_long = spending, options, too_long
        self._next: tuple[bytes, float] | None = None
        self.most = 0.0
        self.no_money = False

    def more(self) -> bool:
        """Whether there is a request for a new file; begins it."""
        self.most = 0.0
        return self._peek() is not None and self._affordable()

    def lines(self) -> Iterator[bytes]:
        """The lines of one file; ``most`` is complete after the last."""
        count = size = 0
        while (found := self._peek()) is not None and self._affordable():
            line, most = found
            if count == self._options.requests or size + len(line) > self._options.size:
                return
            count, size, self.most, self._next = count + 1, size + len(line), self.most + most, None
            yield line

    def _peek(self) -> tuple[bytes, float] | None:
        while self._next is None:
            request = next(self._requests, None)
            if request is None:
                return None
            line, body = input_line(self._settings, request)
            if len(line) > self._options.size:
                self._too_long(request, len(line))
            else:
                self._next = line, most_of(body, self._settings, self._price)
        return self._next

    def _affordable(self) -> bool:
        assert self._next is not None  # the callers looked
        limit = self._spending.limit
        self.no_money = limit is not None and self._spending.total + self.most + self._next[1] > limit + 1e-9
        return not self.no_money


def input_line(settings: RequestSettings, request: Request) -> tuple[bytes, dict[str, Any]]:
    """A request as a line of an input file, and its body."""
    body = body_of(settings, request)
    line = {"custom_id": request.id, "method": "POST", "url": ENDPOINTS[settings.api], "body": body}
    return json.dumps(line).encode() + b"\n", body


def most_of(body: dict[str, Any], settings: RequestSettings, price: Price | None) -> float:
    """US dollars that a request can cost at most in a batch; 0 where the price is unknown."""
    return 0.0 if price is None else price.of(prompt_token_bound(body), settings.max_tokens, batch=True)
