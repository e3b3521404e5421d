"""A language model judges whether pairs hold instruction content; asked by the client and ledger that ask teachers."""

import contextlib
import hashlib
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nid_plugin.completion.estimate import Estimate, estimate, tokens_of_bytes
from nid_plugin.completion.ledger import Ledger, check_settings, open_ledger, read_ledger
from nid_plugin.completion.options import TeacherSettings
from nid_plugin.completion.settings import Request, RequestIds
from nid_plugin.pairs import Pair, read_pairs
from plugin_common.errors import UserError

PROMPT_VERSION = 1
LEDGER_OPTION = "--judge-ledger"
PROMPT_FILE = Path(__file__).with_name("judge_prompt.txt")

_PLACES = re.compile(r"\{(prompt|completion)\}")
_VERDICT = re.compile(r"^[ \t\"'*_`#>]*VERDICT[ \t*_]*:[\s\"'*_`]*(YES|NO)[\s\"'*_`.!]*$", re.M | re.I)
VERDICT_TOKENS = 6
"""Of the answer that is asked for, about."""


@dataclass(frozen=True)
class JudgePrompt:
    """What the judge is asked, with ``{prompt}`` and ``{completion}`` where the pair's texts go.

    Attributes:
        name: version or file, for the report.
        template: the text.
    """

    name: str
    template: str

    @property
    def key(self) -> str:
        """Names the prompt in the ids of requests."""
        return f"judge {hashlib.sha256(self.template.encode()).hexdigest()}"

    def fill(self, pair: Pair) -> str:
        """The prompt for a pair."""
        return _PLACES.sub(lambda place: getattr(pair, place[1]), self.template)


def read_prompt(path: str | None) -> JudgePrompt:
    """The judge's prompt from a file, or this package's own.

    Raises:
        UserError: it cannot be read, or lacks one of the two places.
    """
    try:
        template = Path(path or PROMPT_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--judge-prompt {path}: cannot be read as UTF-8 text ({error})") from error
    missing = [place for place in ("{prompt}", "{completion}") if place not in template]
    if missing:
        raise UserError(f"--judge-prompt {path}: lacks {' and '.join(missing)}, where the pair's texts go")
    return JudgePrompt(path or f"version {PROMPT_VERSION} of this package", template)


def verdict(answer: str) -> bool | None:
    """True for a line ``VERDICT: YES``, False for ``VERDICT: NO``; None for neither or both: nothing is guessed."""
    said = {word.upper() for word in _VERDICT.findall(answer)}
    return said.pop() == "YES" if len(said) == 1 else None


def sample(pairs: int, size: int, seed: int) -> frozenset[int]:
    """Which pairs (from 0) are judged: ``size`` at random, or all there are; the same ones for the same seed."""
    return frozenset(random.Random(seed).sample(range(pairs), min(size, pairs)))


@dataclass
class Judgement:
    """What the judge said.

    Attributes:
        model, prompt: who was asked what.
        seed: of the sample.
        asked: pairs in the sample.
        verdicts: place of a pair in the file (from 0) → instruction content or not; only where it can be read.
        unread: pairs without a verdict, by reason.
    """

    model: str
    prompt: str
    seed: int
    asked: int = 0
    verdicts: dict[int, bool] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)

    @property
    def positive(self) -> int:
        """Pairs with instruction content."""
        return sum(self.verdicts.values())


def judge_pairs(
    path: str, chosen: frozenset[int], prompt: JudgePrompt, teacher: TeacherSettings, folder: str, seed: int
) -> Judgement:
    """Ask the judge about the chosen pairs; what the ledger has already is not asked again.

    Args:
        path: file of pairs.
        chosen: places of pairs, from 0.
        prompt: what to ask.
        teacher: whom and how to ask.
        folder: the judge's ledger.
        seed: of the sample, for the report.

    Raises:
        UserError: the judge cannot be asked, or the run was stopped; the same command goes on.
    """
    from nid_plugin.completion.asking import reserve_bytes
    from nid_plugin.completion.running import ask_with_progress, raise_if_stopped

    settings, reserve = _ledger_settings(prompt, teacher), reserve_bytes(teacher.request, teacher.connection)

    def pending() -> Iterator[Request]:
        return _pending(requests(path, chosen, prompt, teacher), ledger)

    with open_ledger(folder, settings, reserve_bytes=reserve, option=LEDGER_OPTION) as ledger:
        for note in ledger.notes:
            print(f"{folder}: {note}", file=sys.stderr)
        total = sum(1 for _ in pending())
        if total:
            outcome = ask_with_progress(pending(), teacher, ledger, total=total, description="judging")
            raise_if_stopped(outcome, sum(1 for _ in pending()))
        judgement = Judgement(teacher.request.model, prompt.name, seed)
        return _collect(judgement, requests(path, chosen, prompt, teacher), ledger)


def judging_estimate(
    path: str, chosen: frozenset[int], prompt: JudgePrompt, teacher: TeacherSettings, folder: str
) -> Estimate:
    """What :func:`judge_pairs` with the same arguments would still ask, in tokens; nothing is sent or written.

    Raises:
        UserError: the ledger was made with other settings.
    """
    with contextlib.ExitStack() as stack:
        ledger = None
        if (Path(folder) / "settings.json").exists():
            check_settings(Path(folder), _ledger_settings(prompt, teacher), LEDGER_OPTION)
            ledger = stack.enter_context(read_ledger(folder))
        fixed = tokens_of_bytes(teacher.request.system) if teacher.request.system else 0
        left = _pending(requests(path, chosen, prompt, teacher), ledger)
        sizes = ((fixed + tokens_of_bytes(request.text), VERDICT_TOKENS) for request in left)
        return replace(estimate(sizes, teacher.request), expected="a verdict each")


def _ledger_settings(prompt: JudgePrompt, teacher: TeacherSettings) -> dict[str, Any]:
    return {"request": teacher.request.as_dict(), "judge": prompt.key}


def _pending(every: Iterable[tuple[int, Request]], ledger: Ledger | None) -> Iterator[Request]:
    """Requests that are to be sent, each once: without an answer, and not refused for good."""
    met: set[str] = set()
    for _, request in every:
        if request.id not in met and (ledger is None or ledger.state(request.id) in ("left", "failed for now")):
            met.add(request.id)
            yield request


def requests(
    path: str, chosen: frozenset[int], prompt: JudgePrompt, teacher: TeacherSettings
) -> Iterator[tuple[int, Request]]:
    """Place and request of each chosen pair, in order."""
    ids = RequestIds(teacher.request)
    for place, pair in enumerate(read_pairs(path)):
        if place in chosen:
            text = prompt.fill(pair)
            yield place, Request(ids(prompt.key, text), text)


def _collect(judgement: Judgement, asked: Iterable[tuple[int, Request]], ledger: Ledger) -> Judgement:
    for place, request in asked:
        judgement.asked += 1
        result = ledger.result(request.id)
        if result is None:
            judgement.unread[f"not answered ({ledger.failure_reason(request.id)})"] += 1
        elif result.status != "done":
            judgement.unread[f"answer {result.status}"] += 1
        elif (said := verdict(result.completion)) is None:
            judgement.unread["no clear verdict in the answer"] += 1
        else:
            judgement.verdicts[place] = said
    return judgement
