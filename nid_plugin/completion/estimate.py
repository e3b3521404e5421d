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
        prompt_tokens: in all, those included that continue an answer of the expected length.
        answer_tokens: if each answer is as long as expected (the document's second half, say), but no longer than
            ``max_tokens``.
        most_prompt_tokens: if each answer is continued as often as it may be.
        most_answer_tokens: if each answer is ``max_tokens`` long, and each part that continues it.
        expected: how long answers are taken to be, in words.
    """

    requests: int
    prompt_tokens: int
    answer_tokens: int
    most_prompt_tokens: int
    most_answer_tokens: int
    expected: str = "as long as the second halves"

    def lines(self, price: Price | None, connection: Connection, *, batch: bool = False) -> Iterator[str]:
        """The estimate for a reader: tokens, dollars, minutes."""
        yield f"requests left: {self.requests:,}"
        yield (
            f"tokens: {self.prompt_tokens:,} in prompts; {self.answer_tokens:,} in answers if they are "
            f"{self.expected}, at most {self.most_answer_tokens:,}"
        )
        if price is None:
            yield "cost: unknown, for the model has no price (--price, --prices)"
        else:
            likely = price.of(self.prompt_tokens, self.answer_tokens, batch=batch)
            most = price.of(self.most_prompt_tokens, self.most_answer_tokens, batch=batch)
            kind = ", as a batch" if batch else ""
            yield (
                f"cost: about {likely:,.2f} dollars, at most {most:,.2f} (at {price.input:g} and {price.output:g} "
                f"dollars for a million tokens of prompt and answer{kind})"
            )
        limits = (
            (connection.requests_per_minute, self.requests, "requests"),
            (connection.tokens_per_minute, self.most_prompt_tokens + self.most_answer_tokens, "tokens"),
        )
        for limit, amount, unit in limits:
            if limit is not None and not batch:
                yield f"time: at least {amount / limit:,.0f} minutes at {limit:,} {unit} a minute"


def estimate(sizes: Iterator[tuple[int, int]], settings: RequestSettings) -> Estimate:
    """Sum up requests.

    Args:
        sizes: for each request the tokens of its prompt and of the document's second half.
        settings: of the requests. An answer is continued where it is longer than ``max_tokens``; each further request
            holds the prompt and the answer so far.
    """
    requests = prompts = most_prompts = answers = 0
    part, most_parts = settings.max_tokens, 1 + settings.continue_length
    for prompt, second in sizes:
        requests += 1
        answers += min(second, part * most_parts)
        prompts += _prompts(prompt, min(most_parts, max(1, -(-second // part))), part)
        most_prompts += _prompts(prompt, most_parts, part)
    return Estimate(requests, prompts, answers, most_prompts, requests * part * most_parts)


def _prompts(prompt: int, parts: int, part: int) -> int:
    """Prompt tokens of an answer in parts: the prompt for each, and before each all parts so far."""
    return prompt * parts + part * (parts * (parts - 1) // 2)


def tokens_of_bytes(text: str) -> int:
    """Tokens of a text, estimated from its length in UTF-8; at least 1."""
    return max(1, round(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN))
