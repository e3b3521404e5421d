"""The text of prompts and completions in each format, before it becomes token ids."""

from collections.abc import Sequence
from typing import Any, Protocol

from plugin_common.errors import UserError

PROMPT_FIELD = "{prompt}"
COMPLETION_FIELD = "{completion}"


class PairTexts(Protocol):
    """How a format writes pairs.

    Attributes:
        head: the constant text in front of the prompt.
        lead: the constant text in front of the completion that belongs to it.
        tail: the constant text that ends the completion.
        begins_with_bos: whether what the tokenizer puts in front of a text is put in front of the prompt.
        all_content: whether there is no text but the pair's own.
    """

    head: str
    lead: str
    tail: str
    begins_with_bos: bool
    all_content: bool

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        """What is fed to the model to go on from."""

    def completions(self, prompts: Sequence[str], completions: Sequence[str], begun: Sequence[str]) -> list[str]:
        """What it should go on with after ``begun``, which :meth:`prompts` gave, without :attr:`tail`."""


class PlainTexts:
    """Prompt and completion as they stand, or with one space between them where there is no white space."""

    head = lead = tail = ""
    begins_with_bos = all_content = True

    def __init__(self, *, space: bool) -> None:
        """``space``: whether a space is put between."""
        self._space = space

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        """They themselves."""
        return list(prompts)

    def completions(self, prompts: Sequence[str], completions: Sequence[str], begun: Sequence[str]) -> list[str]:
        """They themselves, after a space where one is needed."""
        return [
            " " + completion if self._space and not (prompt[-1:].isspace() or completion[:1].isspace()) else completion
            for prompt, completion in zip(prompts, completions, strict=True)
        ]


class TemplateTexts:
    """A text with two places to fill.

    Spaces just in front of the completion belong to it, since tokenizers make a space part of the word that follows.
    """

    all_content = False

    def __init__(self, template: str, *, bos: str | None) -> None:
        """``template`` holds one ``{prompt}`` and, after it, one ``{completion}``; ``bos`` is BOS as it is written."""
        self.head, _, rest = template.partition(PROMPT_FIELD)
        between, _, self.tail = rest.partition(COMPLETION_FIELD)
        self._between = between.rstrip(" ")
        self.lead = between[len(self._between) :]
        self.begins_with_bos = not (bos and self.head.startswith(bos))

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        """The template's text up to the completion."""
        return [f"{self.head}{prompt}{self._between}" for prompt in prompts]

    def completions(self, prompts: Sequence[str], completions: Sequence[str], begun: Sequence[str]) -> list[str]:
        """The completions, after the spaces in front of them."""
        return [self.lead + completion for completion in completions]


_PROMPT_PROBE, _COMPLETION_PROBE = "q7Prompt7q", "q8Completion8q"


class ChatTexts:
    """A question of a user and an answer, as the tokenizer's own chat template writes them.

    Raises:
        UserError: there is no template, it fails, or what it writes for a question alone is not how it begins with the
            answer.
    """

    begins_with_bos = all_content = False

    def __init__(self, tokenizer: Any, name: str) -> None:
        """``name`` says in messages whose template it is."""
        self._tokenizer, self._name = tokenizer, name
        if not tokenizer.chat_template:
            raise UserError(
                f"{name}: its tokenizer has no chat template; take `--pair-format plain`, or `template` with a file"
            )
        self.tail = ""  # not known yet: the probe's completion shows it
        begun = self.prompts([_PROMPT_PROBE])
        self.head = begun[0].partition(_PROMPT_PROBE)[0] if _PROMPT_PROBE in begun[0] else ""
        completion = self.completions([_PROMPT_PROBE], [_COMPLETION_PROBE], begun)[0]
        self.lead, found, self.tail = completion.partition(_COMPLETION_PROBE)
        if not found:
            raise UserError(f"{name}: its chat template leaves out the answer; {_OTHERWISE}")

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        """The conversation up to where the answer begins."""
        return self._rendered([[{"role": "user", "content": prompt}] for prompt in prompts], add_generation_prompt=True)

    def completions(self, prompts: Sequence[str], completions: Sequence[str], begun: Sequence[str]) -> list[str]:
        """What the whole conversation has more."""
        whole = self._rendered(
            [
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
                for prompt, completion in zip(prompts, completions, strict=True)
            ],
            add_generation_prompt=False,
        )
        for before, after in zip(begun, whole, strict=True):
            if not after.startswith(before):
                raise UserError(
                    f"{self._name}: what its chat template writes for a question alone ends in {before[-40:]!r}, but "
                    f"with the answer it goes on otherwise; {_OTHERWISE}"
                )
            if not after.endswith(self.tail):
                raise UserError(f"{self._name}: its chat template ends not all answers in {self.tail!r}; {_OTHERWISE}")
        return [after[len(before) : len(after) - len(self.tail)] for before, after in zip(begun, whole, strict=True)]

    def _rendered(self, conversations: list[list[dict[str, str]]], *, add_generation_prompt: bool) -> list[str]:
        try:
            return list(
                self._tokenizer.apply_chat_template(
                    conversations, add_generation_prompt=add_generation_prompt, tokenize=False
                )
            )
        except Exception as error:  # a template may raise anything
            raise UserError(f"{self._name}: its chat template fails ({error}); {_OTHERWISE}") from error


_OTHERWISE = "take `--pair-format plain`, or `template` with a file"
