"""Judgment files: read with all that is wrong told, chosen from for scores, and written beside what they hold."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from nid_plugin.evaluation.questions import QuestionId
from plugin_common.errors import UserError
from plugin_common.json_lines import read_json_lines
from plugin_common.json_output import json_line, lines_output

Kind = Literal["single", "pairwise", "arena"]
"""MT-Bench's ratings, MT-Bench's comparisons, Arena-Hard's comparisons."""

Record = dict[str, Any]
Key = tuple[Any, ...]
Prompts = tuple[str | None, ...]

_WINNERS = ("model_1", "model_2", "tie", "error")
_LISTED = 5


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_Check = tuple[Callable[[Any], bool], str]
_MODEL: _Check = (_is_text, "a model's name")
_WINNER: _Check = (lambda value: value in _WINNERS, f"one of {', '.join(_WINNERS)}")
_QUESTION: dict[str, _Check] = {
    "question_id": (_is_id, "a number or text"),
    "turn": (lambda value: value in (1, 2) and not isinstance(value, bool), "1 or 2"),
}
_CHECKS: dict[Kind, dict[str, _Check]] = {
    "single": {**_QUESTION, "model": _MODEL, "score": (_is_number, "a number")},
    "pairwise": {
        **_QUESTION, "model_1": _MODEL, "model_2": _MODEL, "g1_winner": _WINNER, "g2_winner": _WINNER,
    },
    "arena": {
        "uid": (_is_text, "a text"), "category": (_is_text, "a text"), "model": _MODEL, "baseline": _MODEL,
        "games": (lambda value: value is None or isinstance(value, list), "a list"),
    },
}  # fmt: skip


def read_judgments(path: Path, kind: Kind) -> list[Record]:
    """The judgments of a file.

    Raises:
        UserError: no such file, or lists the lines that are no judgments of this kind.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `nid judge` without --scores-only writes it")
    records, problems = [], []
    for number, record in read_json_lines(str(path)):
        if faults := list(_faults(record, kind)):
            problems.append(f"{path}, line {number}: no judgment of this kind: {'; '.join(faults)}")
        records.append(record)
    if problems:
        more = f"\n  … and {len(problems) - _LISTED} more lines" if len(problems) > _LISTED else ""
        raise UserError("\n".join(problems[:_LISTED]) + more)
    return records


def _faults(record: Record, kind: Kind) -> Iterable[str]:
    checks = _CHECKS[kind]
    if missing := [name for name in checks if name not in record]:
        yield f"lacks {', '.join(missing)}"
    for name, (good, expected) in checks.items():
        if name in record and not good(record[name]):
            yield f'"{name}" is {record[name]!r:.40}, expected {expected}'


def key_of(record: Record, kind: Kind) -> Key:
    """What a file has one judgment of."""
    if kind == "single":
        return record["model"], record["question_id"], record["turn"]
    if kind == "pairwise":
        return record["model_1"], record["model_2"], record["question_id"], record["turn"]
    return record["model"], record["uid"]


def prompts_of(record: Record, kind: Kind) -> Prompts:
    """What the judge was asked, game by game; None where the record does not tell."""
    if kind == "single":
        return (record.get("user_prompt"),)
    if kind == "pairwise":
        return record.get("g1_user_prompt"), record.get("g2_user_prompt")
    return tuple(map(_prompt_of_game, record["games"] or []))


def _prompt_of_game(game: Any) -> str | None:
    try:
        return str(game["prompt"][-1]["content"])
    except (KeyError, IndexError, TypeError):
        return None


def is_by(record: Record, judge: str) -> bool:
    """Whether a judgment is this judge's; one that names none is. A slash counts as ``_``, as in names of files."""
    named = record.get("judge")
    name = named[0] if isinstance(named, list) and named else named
    return name is None or str(name).replace("/", "_") == judge.replace("/", "_")


def chosen(
    records: Iterable[Record],
    kind: Kind,
    *,
    judge: str,
    models: Collection[str],
    questions: Collection[QuestionId],
    baseline: str | None,
) -> tuple[list[Record], Counter[str]]:
    """The judgments that scores are made of: of one judge, these models and questions, the last where one is repeated.

    Args:
        records: of one file or several.
        kind: of the records.
        judge: whose.
        models: about whom; others are passed over (not Arena-Hard's, which have a file for each model).
        questions: ids.
        baseline: compared with whom; None for all.

    Returns:
        the judgments; how many about these models were left out, and why.
    """
    found: dict[Key, Record] = {}
    left_out: Counter[str] = Counter()
    for record in records:
        if kind != "arena" and record["model_1" if kind == "pairwise" else "model"] not in models:
            continue
        if not is_by(record, judge):
            left_out["of other judges"] += 1
        elif kind != "single" and baseline not in (None, record["model_2" if kind == "pairwise" else "baseline"]):
            left_out["against other baselines"] += 1
        elif record["uid" if kind == "arena" else "question_id"] not in questions:
            left_out["of other questions"] += 1
        else:
            key = key_of(record, kind)
            left_out["repeated (the last counts)"] += key in found
            found[key] = record
    return list(found.values()), +left_out


def write_judgments(
    path: Path, made: Sequence[Record], asked: Mapping[Key, Prompts], kind: Kind, judge: str
) -> tuple[int, int]:
    """Write judgments; of an earlier file stays what is another judge's, or about something that was not asked now, or
    that was asked in the same words and is not judged anew.

    Args:
        path: of the file.
        made: the judgments.
        asked: what was to be judged, with the prompts.
        kind: of the file.
        judge: who judged.

    Returns:
        how many were written, how many earlier ones were kept.

    Raises:
        UserError: the file cannot be written, or the earlier one not read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = {key_of(record, kind) for record in made}

    def stays(record: Record) -> bool:
        key = key_of(record, kind)
        if not is_by(record, judge) or key not in asked:
            return True
        return key not in new and prompts_of(record, kind) == asked[key]

    kept = [record for record in read_judgments(path, kind) if stays(record)] if path.is_file() else []
    with lines_output(str(path)) as stream:
        for record in [*kept, *made]:
            stream.write(json_line(record))
    return len(made), len(kept)
