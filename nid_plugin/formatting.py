"""From pairs of texts to token ids, one and the same in training, generation and evaluation.

The ids of a prompt never depend on its completion, so that a model is fed in generation what it was trained on.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

from nid_plugin.pair_texts import COMPLETION_FIELD, PROMPT_FIELD, ChatTexts, PairTexts, PlainTexts, TemplateTexts
from nid_plugin.text_encoder import Marks, TextEncoder
from plugin_common.errors import UserError, raise_all

logger = logging.getLogger(__name__)

Kind = Literal["plain", "chat", "template"]
Seam = Literal["space", "as-is"]
KINDS: tuple[str, ...] = get_args(Kind)
SEAMS: tuple[str, ...] = get_args(Seam)
VERSION = 1
"""Counts up when the same pair gets other ids, so that what was stored before is not taken for the same."""


@dataclass(frozen=True)
class PairFormat:
    """How a pair is written.

    Attributes:
        kind: ``plain``: BOS (if the tokenizer adds one), prompt, completion, EOS; ``chat``: the tokenizer's chat
            template, the prompt as the user's words; ``template``: a text with places for both.
        template: the text of ``template``, with one ``{prompt}`` and one ``{completion}`` after it.
        seam: of ``plain``: ``space`` puts one space between prompt and completion where neither has white space there;
            ``as-is`` joins them as they stand (halves that were cut within a word).
    """

    kind: Kind = "plain"
    template: str | None = None
    seam: Seam = "space"

    @classmethod
    def from_options(cls, kind: str, template_file: str | None, seam: str) -> "PairFormat":
        """The format that options ask for; one newline at the end of the template file is not part of it.

        Raises:
            UserError: lists all that is wrong: unknown words, a template file that is missing, not wanted or without
                its two places.
        """
        problems = _choice_problems(kind, seam)
        template = None
        if kind == "template" and not template_file:
            problems.append("`--pair-format template` needs a template file with {prompt} and {completion}")
        elif kind != "template" and template_file:
            problems.append(f"{template_file}: a template file goes with `--pair-format template`, not with {kind!r}")
        elif template_file:
            try:
                template = Path(template_file).read_text(encoding="utf-8").removesuffix("\n")
                problems += _template_problems(template, template_file)
            except OSError as error:
                problems.append(f"{template_file}: cannot be read ({error.strerror}); give a text file")
            except UnicodeDecodeError as error:
                problems.append(f"{template_file}: not UTF-8 at byte {error.start}; save it as UTF-8")
        raise_all(problems)
        return cls(kind, template, seam)  # type: ignore[arg-type]

    def to_json(self) -> str:
        """One line that :meth:`from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PairFormat":
        """The format of :meth:`to_json`.

        Raises:
            UserError: it is none.
        """
        try:
            read = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise UserError(f"not the description of a pair format: {text[:80]!r} ({error})") from error
        problems = _choice_problems(read.kind, read.seam)
        if read.kind == "template":
            problems += _template_problems(read.template or "", "the stored template")
        raise_all(problems)
        return read


def _choice_problems(kind: str, seam: str) -> list[str]:
    problems = []
    if kind not in KINDS:
        problems.append(f"{kind!r} is no pair format; choose one of {', '.join(KINDS)}")
    if seam not in SEAMS:
        problems.append(f"{seam!r} is no seam; choose one of {', '.join(SEAMS)}")
    return problems


def _template_problems(template: str, where: str) -> list[str]:
    problems = [
        f"{where}: expected {field} exactly once, found it {template.count(field)} times"
        for field in (PROMPT_FIELD, COMPLETION_FIELD)
        if template.count(field) != 1
    ]
    if not problems and template.index(PROMPT_FIELD) > template.index(COMPLETION_FIELD):
        problems.append(f"{where}: {COMPLETION_FIELD} stands before {PROMPT_FIELD}; the prompt comes first")
    return problems


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair's token ids.

    Attributes:
        head: how many of the prompt's first tokens may never be cut: BOS, or the text that stands before the prompt.
        prompt: ids, head included.
        completion: ids, the end token (or what ends an answer) included.
        looks_special: whether a text of the pair holds what a special token is written as, which was tokenized as text.
    """

    head: int
    prompt: list[int]
    completion: list[int]
    looks_special: bool = False


class Formatter:
    """Tokenizes pairs in a format.

    Text in a pair that looks like a special token is tokenized as text.

    Attributes:
        pair_format: the format.
        end_ids: what ends every completion; generation stops at the last of them.
        vocabulary_size: the tokenizer's largest id and 1.
        fingerprint: changes with anything that changes ids.
    """

    def __init__(self, tokenizer: Any, pair_format: PairFormat, name: str) -> None:
        """``tokenizer`` is a fast one of transformers, ``name`` says in messages whose it is.

        Raises:
            UserError: the tokenizer cannot do it: not a fast one, no EOS, no chat template or one that does not fit.
        """
        self.pair_format = pair_format
        self._encoder = TextEncoder(tokenizer, name)
        self._texts = _texts(tokenizer, pair_format, name)
        self._bos = self._encoder.bos_ids if self._texts.begins_with_bos else []
        self._head = [*self._bos, *self._ids([self._texts.head], [None], begins=True)[0]]
        self._silent_tail, self.end_ids = _end(self._texts.tail, self._encoder)
        self.vocabulary_size = self._encoder.size
        logger.info(
            "%s: format %s, a prompt begins with %r, a completion ends with %r",
            name, pair_format.kind, self._encoder.text_after(self._head), self._encoder.text_after(self.end_ids),
        )  # fmt: skip
        identity = [VERSION, self._encoder.fingerprint, self._bos, self._head, self.end_ids, pair_format.to_json()]
        if pair_format.kind == "chat":
            identity.append(tokenizer.get_chat_template())
        self.fingerprint = json.dumps(identity)

    def pair_ids(self, prompts: Sequence[str], completions: Sequence[str]) -> list[TokenizedPair]:
        """Tokenize pairs; many at once are faster, since the tokenizer works in parallel.

        Raises:
            UserError: the chat template does not fit a pair.
        """
        marked = [self._marked(pair) for pair in zip(prompts, completions, strict=True)]
        marks = [mark for _, mark in marked]
        first = [texts[0] for texts, _ in marked]
        second = [texts[1] for texts, _ in marked]
        begun = self._texts.prompts(first)
        prompt_ids = self._prompt_ids(begun, marks)
        completion_ids = self._ids(self._texts.completions(first, second, begun), marks, begins=False)
        return [
            TokenizedPair(self.head_of(prompt), prompt, completion + self.end_ids, special)
            for prompt, completion, special in zip(
                prompt_ids, completion_ids, self._special(prompts, completions, marks), strict=True
            )
        ]

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """What generation feeds the model: exactly the prompts of :meth:`pair_ids`."""
        marked = [self._marked([prompt]) for prompt in prompts]
        return self._prompt_ids(self._texts.prompts([texts[0] for texts, _ in marked]), [mark for _, mark in marked])

    def head_of(self, prompt_ids: Sequence[int]) -> int:
        """How many of a prompt's first tokens may never be cut; at least one is left that may."""
        same = takewhile(lambda both: both[0] == both[1], zip(self._head, prompt_ids[:-1], strict=False))
        return sum(1 for _ in same)

    def completion_text(self, ids: Sequence[int]) -> str:
        """The text of a completion's ids, without what ends it and without special tokens at the end.

        In ``plain`` it goes on from the prompt, with the space it may begin with; in the other formats what the
        template puts around the completion is taken off.
        """
        text = self._encoder.text_after(self._encoder.without_special_end(ids))
        return text.removeprefix(self._texts.lead).removesuffix(self._silent_tail)

    def _marked(self, texts: Sequence[str]) -> tuple[list[str], Marks | None]:
        return (list(texts), None) if self._texts.all_content else self._encoder.marked(texts)

    def _special(self, prompts: Sequence[str], completions: Sequence[str], marks: Sequence[Marks | None]) -> list[bool]:
        if not self._texts.all_content:
            return [mark is not None for mark in marks]
        looks = self._encoder.looks_special
        return [looks(prompt) or looks(completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def _prompt_ids(self, texts: Sequence[str], marks: Sequence[Marks | None]) -> list[list[int]]:
        return [self._bos + ids for ids in self._ids(texts, marks, begins=True)]

    def _ids(self, texts: Sequence[str], marks: Sequence[Marks | None], *, begins: bool) -> list[list[int]]:
        if self._texts.all_content:
            return self._encoder.ids(texts, begins=begins, plain=True)
        return self._encoder.ids_with_marks(texts, marks, begins=begins)


def _texts(tokenizer: Any, pair_format: PairFormat, name: str) -> PairTexts:
    if pair_format.kind == "chat":
        return ChatTexts(tokenizer, name)
    if pair_format.kind == "template":
        return TemplateTexts(pair_format.template or "", bos=tokenizer.bos_token)
    return PlainTexts(space=pair_format.seam == "space")


def _end(tail: str, encoder: TextEncoder) -> tuple[str, list[int]]:
    """The text after a completion up to its end token, and its ids with that token.

    The end token is the first special token in ``tail``; what follows it is never generated. Without one, it is EOS.
    """
    stop = encoder.first_special_end(tail)
    ids = encoder.ids([tail[:stop]], begins=False, plain=False)[0] if tail else []
    if stop is None:
        if encoder.eos_id is None:
            raise UserError(f"{encoder.name}: its tokenizer has no end token (EOS), so that no completion would end")
        return tail, [*ids, encoder.eos_id]
    return encoder.text_after(encoder.without_special_end(ids)), ids
