"""One pass over the pairs: examined on several processes, counted and filtered in order in this one."""

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from nid_plugin.audit.decontamination import SHORTEST, WORDS, EvaluationIndex, evaluation_index
from nid_plugin.audit.detectors import SIDES, Side
from nid_plugin.audit.dropping import DEFAULT, JUDGED, NEAR, reasons_named
from nid_plugin.audit.examination import Examiner, Facts, printable
from nid_plugin.audit.totals import Examples, Totals
from nid_plugin.pairs import Pair, read_pairs_and_lines
from plugin_common.errors import UserError
from plugin_common.json_lines import json_object
from plugin_common.json_output import json_line, lines_output
from plugin_common.ordered_pool import ordered_pool

BATCH = 64
"""Pairs that a process takes at a time."""


@dataclass(frozen=True)
class AuditSettings:
    """What to look at and what to write.

    Attributes:
        pairs: the file.
        halves: of `nid halve`, for the documents' own second halves; None without.
        languages, near_duplicates: whether to look at these.
        evaluation: files of evaluation items; with ``fields``, ``run_words`` and ``shortest_item`` as in
            ``decontamination.evaluation_index``.
        drop: reasons to drop a pair for.
        kept, dropped: files for what is left and what is dropped; None without.
        examples: shown for each detector.
        seed: chooses the examples.
        workers: processes; 1 is this one.
    """

    pairs: str
    halves: str | None = None
    languages: bool = True
    near_duplicates: bool = True
    evaluation: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None
    run_words: int = WORDS
    shortest_item: int = SHORTEST
    drop: tuple[str, ...] = field(default_factory=lambda: reasons_named(DEFAULT))
    kept: str | None = None
    dropped: str | None = None
    examples: int = 3
    seed: int = 1
    workers: int = 1


@dataclass
class Audit:
    """The result: counts, and the evaluation items that were looked for."""

    totals: Totals
    evaluation: EvaluationIndex | None


def run_audit(
    settings: AuditSettings,
    verdicts: Mapping[int, bool],
    progress: Callable[[int], object] = lambda pairs: None,
    evaluation: EvaluationIndex | None = None,
) -> Audit:
    """Examine, count and filter all pairs. Memory: 100 to 150 bytes a pair for duplicates, 150 more with ``halves``.

    Args:
        settings: see there.
        verdicts: of the judge, by place of the pair in the file (from 0).
        progress: called with numbers of pairs done.
        evaluation: of :func:`evaluation_of`, where that was called already.

    Raises:
        UserError: an input cannot be read or holds no pair; an output cannot be written.
    """
    totals = Totals(Examples(settings.examples, settings.seed))
    earlier = EarlierPairs(near=settings.near_duplicates)
    with contextlib.ExitStack() as stack:
        index = evaluation or evaluation_of(settings)
        outputs = [stack.enter_context(_output(path)) for path in (settings.kept, settings.dropped)]
        examined = stack.enter_context(_examined(settings, index))
        for place, (pair, line, facts) in enumerate(examined):
            relations = earlier.relations(pair)
            verdict = verdicts.get(place)
            reasons = _reasons(settings.drop, facts, relations, verdict)
            totals.add(pair, facts, relations, verdict, reasons)
            _write(outputs, line, reasons)
            progress(1)
        if totals.pairs == 0:
            raise UserError(f"{settings.pairs}: holds no pair; `nid complete` writes them")
    return Audit(totals, index)


def evaluation_of(settings: AuditSettings) -> EvaluationIndex | None:
    """The evaluation items that the settings name, None without any.

    Raises:
        UserError: they cannot be read.
    """
    if not settings.evaluation:
        return None
    return evaluation_index(settings.evaluation, settings.fields, n=settings.run_words, shortest=settings.shortest_item)


def _reasons(drop: Sequence[str], facts: Facts, relations: Sequence[str], verdict: bool | None) -> list[str]:
    has = facts.detected() | {*facts.properties, *relations} | ({JUDGED} if verdict else set())
    return [reason for reason in drop if reason in has]


class EarlierPairs:
    """Tells what a pair is to the pairs before it.

    Args:
        near: look for near-duplicates as well.
    """

    def __init__(self, *, near: bool) -> None:
        from nid_plugin.documents.hash_set import HashSet

        self._exact = {side: HashSet() for side in SIDES}
        self._near: dict[str, Any] = {}
        if near:
            from nid_plugin.documents.near_duplicates import NearDuplicates

            self._near = {side: NearDuplicates(NEAR) for side in SIDES}

    def relations(self, pair: Pair) -> list[str]:
        """What it is, as ``dropping.RELATIONS`` names it; the pair is remembered."""
        found = []
        texts: dict[Side, str] = {"prompt": printable(pair.prompt), "completion": printable(pair.completion)}
        for side, text in texts.items():
            if not self._exact[side].add(xxhash.xxh3_64_intdigest(text.encode())):
                found.append(f"duplicate-{side}")
            elif self._near and not self._near[side].add(text):
                found.append(f"near-duplicate-{side}")
        return found


Task = tuple[Pair, bytes, str | None]
"""A pair, its line (empty where it is not written again), the second half of its document where it is known."""


@contextlib.contextmanager
def _examined(settings: AuditSettings, index: EvaluationIndex | None) -> Iterator[Iterator[tuple[Pair, bytes, Facts]]]:
    """The pairs, in order, with their lines (where they are to be written) and what was found in them."""
    with contextlib.ExitStack() as stack:
        tasks = _tasks(settings, stack)
        if settings.workers <= 1:
            examiner = Examiner(languages=settings.languages, evaluation=index)
            yield ((pair, line, examiner.examine(pair, half)) for pair, line, half in tasks)
            return
        pool = ordered_pool(settings.workers, _prepare, (settings.languages, index))
        yield _in_parallel(stack.enter_context(pool), tasks)


def _in_parallel(
    map_in_order: Callable[..., Iterator[list[Facts]]], tasks: Iterable[Task]
) -> Iterator[tuple[Pair, bytes, Facts]]:
    under_way: deque[Sequence[Task]] = deque()

    def sent() -> Iterator[list[tuple[Pair, str | None]]]:
        stream = iter(tasks)
        while batch := list(islice(stream, BATCH)):
            under_way.append(batch)
            yield [(pair, half) for pair, _, half in batch]

    for results in map_in_order(_examine_batch, sent()):
        for (pair, line, _), facts in zip(under_way.popleft(), results, strict=True):
            yield pair, line, facts


_examiner: Examiner | None = None  # of this worker process


def _prepare(languages: bool, index: EvaluationIndex | None) -> None:
    global _examiner
    _examiner = Examiner(languages=languages, evaluation=index)


def _examine_batch(batch: Sequence[tuple[Pair, str | None]]) -> list[Facts]:
    assert _examiner is not None  # `_prepare` ran when the process started
    return [_examiner.examine(pair, half) for pair, half in batch]


def _tasks(settings: AuditSettings, stack: contextlib.ExitStack) -> Iterator[Task]:
    second_half = _second_halves(settings.halves, stack)
    written = settings.kept is not None or settings.dropped is not None
    pairs = read_pairs_and_lines(settings.pairs)
    return ((pair, line if written else b"", second_half(pair.prompt)) for pair, line in pairs)


def _second_halves(path: str | None, stack: contextlib.ExitStack) -> Callable[[str], str | None]:
    if path is None:
        return lambda prompt: None
    from nid_plugin.controls.by_prompt import by_prompt
    from nid_plugin.halving import Half, read_halves

    halves = stack.enter_context(by_prompt(read_halves(path), Half, Path(tempfile.gettempdir())))

    def second_half(prompt: str) -> str | None:
        half = halves.find(prompt)  # a file may have several completions of a prompt
        return None if half is None else half.second_half

    return second_half


def _output(path: str | None) -> contextlib.AbstractContextManager[BinaryIO | None]:
    return contextlib.nullcontext() if path is None else lines_output(path)


def _write(outputs: Sequence[BinaryIO | None], line: bytes, reasons: Sequence[str]) -> None:
    kept, dropped = outputs
    if reasons and dropped is not None:
        dropped.write(json_line(json_object(line, "") | {"dropped_for": list(reasons)}))
    elif not reasons and kept is not None:
        kept.write(line + b"\n")
