"""What a run will cost and how long it must take, before anything is sent."""

from collections.abc import Iterator
from dataclasses import dataclass

from nid_plugin.completion.prices import Price
from nid_plugin.completion.settings import Connection, RequestSettings

BYTES_PER_TOKEN = 4.0
"""Of English text, about, in the vocabularies of today's models; used where no tokenizer is named."""


@dataclass(frozen=True)
class Estimate:
    """Tokens of the requests that are left.

    Attributes:
        requests: how many.
        prompt_tokens: in all.
        answer_tokens: if each answer is as long as the document's second half, but no longer than ``max_tokens``.
        most_answer_tokens: if each answer is ``max_tokens`` long.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int
    most_answer_tokens: int

    def lines(self, price: Price | None, connection: Connection, *, batch: bool = False) -> Iterator[str]:
        """The estimate for a reader: tokens, dollars, minutes."""
        yield f"requests left: {self.requests:,}"
        yield (
            f"tokens: {self.prompt_tokens:,} in prompts; {self.answer_tokens:,} in answers if they are as long as the "
            f"second halves, at most {self.most_answer_tokens:,}"
        )
        if price is None:
            yield "cost: unknown, for the model has no price (--price, --prices)"
        else:
            likely = price.of(self.prompt_tokens, self.answer_tokens, batch=batch)
            most = price.of(self.prompt_tokens, self.most_answer_tokens, batch=batch)
            kind = ", as a batch" if batch else ""
            yield (
                f"cost: about {likely:,.2f} dollars, at most {most:,.2f} (at {price.input:g} and {price.output:g} "
                f"dollars for a million tokens of prompt and answer{kind})"
            )
        limits = (
            (connection.requests_per_minute, self.requests, "requests"),
            (connection.tokens_per_minute, self.prompt_tokens + self.most_answer_tokens, "tokens"),
        )
        for limit, amount, unit in limits:
            if limit is not None and not batch:
                yield f"time: at least {amount / limit:,.0f} minutes at {limit:,} {unit} a minute"


def estimate(sizes: Iterator[tuple[int, int]], settings: RequestSettings) -> Estimate:
    """Sum up requests.

    Args:
        sizes: for each request the tokens of its prompt and of the document's second half.
        settings: of the requests. Continued answers are counted as if each part were ``max_tokens`` long.
    """
    requests = prompts = answers = 0
    longest = settings.max_tokens * (1 + settings.continue_length)
    for prompt, second in sizes:
        requests += 1
        prompts += prompt
        answers += min(second, longest)
    return Estimate(requests, prompts, answers, requests * longest)


def tokens_of_bytes(text: str) -> int:
    """Tokens of a text, estimated from its length in UTF-8; at least 1."""
    return max(1, round(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN))
