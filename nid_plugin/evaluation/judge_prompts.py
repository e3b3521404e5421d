"""Judge prompts from the benchmarks' own files: FastChat's ``judge_prompts.jsonl``, arena-hard-auto's configuration.

None are shipped with this package. Arena-Hard 2.0 keeps the template in ``config/arena-hard-v2.0.yaml`` and the system
prompts, with the baselines, in ``utils/judge_utils.py`` (read, never run); 0.1's older ``config/judge_config.yaml``
holds all.
"""

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nid_plugin.evaluation.python_constants import module_constants
from nid_plugin.evaluation.questions import WITH_REFERENCE
from plugin_common.errors import UserError, raise_all
from plugin_common.json_lines import read_json_lines

Mode = Literal["single", "pairwise"]
MODES: tuple[Mode, ...] = ("single", "pairwise")

_FORMATS: dict[Mode, str] = {"single": "[[rating]]", "pairwise": "[[A]]"}
_NAMES: dict[Mode, tuple[str, str]] = {
    "single": ("single-v1", "single-math-v1"),
    "pairwise": ("pair-v2", "pair-math-v1"),
}
_MULTI = "-multi-turn"
_SOURCE = "data/judge_prompts.jsonl of FastChat (fastchat/llm_judge)"
_ARENA_SOURCE = (
    "config/arena-hard-v2.0.yaml and utils/judge_utils.py of arena-hard-auto, or its older config/judge_config.yaml"
)
_FIELDS_OF_2 = {"QUESTION", "ANSWER_A", "ANSWER_B"}
_FIELDS_OF_1 = {"question_1", "answer_1", "answer_2"}


@dataclass(frozen=True)
class Prompt:
    """What a judge is asked.

    Attributes:
        name: as its file names it.
        system: system prompt.
        template: with ``{places}``.
    """

    name: str
    system: str
    template: str

    def fill(self, **values: str) -> str:
        """The user's message."""
        return self.template.format(**values)


@dataclass(frozen=True)
class MtBenchPrompts:
    """MT-Bench's four prompts of a mode, by (second turn?, with reference?)."""

    prompts: Mapping[tuple[bool, bool], Prompt]

    def of(self, category: str, turn: int) -> Prompt:
        """The prompt for a category and turn (1 or 2)."""
        return self.prompts[turn == 2, category in WITH_REFERENCE]


@dataclass(frozen=True)
class ArenaPrompts:
    """Arena-Hard's prompts.

    Attributes:
        template: with ``{QUESTION}``, ``{ANSWER_A}``, ``{ANSWER_B}``.
        systems: system prompt by category; the key ``*`` stands for all others.
        baselines: model to compare with, by category likewise; empty where the files name none.
        patterns: find the label in a judgment.
        temperature, max_tokens: of the judge; None where the files name none.
    """

    template: str
    systems: Mapping[str, str]
    baselines: Mapping[str, str]
    patterns: Sequence[re.Pattern[str]] = field(default_factory=list)
    temperature: float | None = None
    max_tokens: int | None = None

    def of(self, category: str) -> Prompt | None:
        """The prompt for a category; None where the files have none."""
        system = self.systems.get(category, self.systems.get("*"))
        return None if system is None else Prompt(category, system, self.template)

    def baseline(self, category: str) -> str | None:
        """The model that answers of a category are compared with."""
        return self.baselines.get(category, self.baselines.get("*"))


def read_mt_bench_prompts(paths: Sequence[str], mode: Mode) -> MtBenchPrompts:
    """FastChat's prompts of a mode.

    Raises:
        UserError: lists what is missing or of another kind.
    """
    if len(paths) != 1 or Path(paths[0]).suffix in (".yaml", ".yml", ".py"):
        raise UserError(f"--judge-prompts {' '.join(paths)}: MT-Bench takes one file, {_SOURCE}")
    path = paths[0]
    if not Path(path).is_file():
        raise UserError(f"--judge-prompts {path}: no such file; expected {_SOURCE}")
    records = {record.get("name"): record for _, record in read_json_lines(path)}
    found: dict[tuple[bool, bool], Prompt] = {}
    problems: list[str] = []
    for second in (False, True):
        for reference in (False, True):
            name = _NAMES[mode][reference] + (_MULTI if second else "")
            faults = list(_mt_bench_faults(records.get(name), mode, _mt_bench_fields(mode, second, reference)))
            problems += [f'{path}: prompt "{name}": {fault}; expected {_SOURCE}' for fault in faults]
            if not faults:
                found[second, reference] = Prompt(
                    name, records[name]["system_prompt"], records[name]["prompt_template"]
                )
    raise_all(problems)
    return MtBenchPrompts(found)


def _mt_bench_fields(mode: Mode, second: bool, reference: bool) -> set[str]:
    if mode == "single":
        fields = {"question_1", "question_2", "answer_1", "answer_2"} if second else {"question", "answer"}
    elif second:
        fields = {"question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"}
    else:
        fields = {"question", "answer_a", "answer_b"}
    references = {"ref_answer_1", "ref_answer_2"} if second else {"ref_answer_1"}
    return fields | (references if reference else set())


def _mt_bench_faults(record: Any, mode: Mode, fields: set[str]) -> Iterator[str]:
    if record is None:
        yield "is missing"
        return
    for name in ("system_prompt", "prompt_template"):
        if not isinstance(record.get(name), str):
            yield f'has no text "{name}"'
    if record.get("type") != mode:
        yield f'its type is {record.get("type")!r}, not "{mode}"'
    if record.get("output_format") != _FORMATS[mode]:
        yield f'its output_format is {record.get("output_format")!r}, not "{_FORMATS[mode]}"'
    if isinstance(record.get("prompt_template"), str):
        yield from _place_faults(record["prompt_template"], fields)


def _place_faults(template: str, fields: set[str]) -> Iterator[str]:
    try:
        places = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        yield f"its template is malformed ({error})"
        return
    if missing := sorted(fields - places):
        yield f"its template lacks {', '.join('{' + name + '}' for name in missing)}"
    if strange := sorted(places - fields):
        yield f"its template has {', '.join('{' + name + '}' for name in strange)}, which nothing can fill"


def read_arena_prompts(paths: Sequence[str]) -> ArenaPrompts:
    """Arena-Hard's prompts from its YAML configuration and, where that holds no system prompt, its ``judge_utils.py``.

    Raises:
        UserError: lists what is missing or of another kind.
    """
    problems: list[str] = []
    config: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for path in paths:
        if not Path(path).is_file():
            problems.append(f"--judge-prompts {path}: no such file; expected {_ARENA_SOURCE}")
        elif Path(path).suffix in (".yaml", ".yml"):
            config |= _or_complain(problems, lambda path=path: _read_yaml(path))  # type: ignore[misc]
        elif Path(path).suffix == ".py":
            settings |= _or_complain(problems, lambda path=path: _judge_settings(path))  # type: ignore[misc]
        else:
            problems.append(f"--judge-prompts {path}: is neither YAML nor Python; expected {_ARENA_SOURCE}")
    raise_all(problems)
    problems += _arena_faults(config, settings)
    raise_all(f"--judge-prompts {' '.join(paths)}: {fault}; expected {_ARENA_SOURCE}" for fault in problems)
    systems = {category: entry["system_prompt"] for category, entry in settings.items()}
    baselines = {category: entry["baseline"] for category, entry in settings.items() if "baseline" in entry}
    if isinstance(config.get("system_prompt"), str):
        systems.setdefault("*", config["system_prompt"])
    if isinstance(config.get("baseline_model"), str):
        baselines.setdefault("*", config["baseline_model"])
    return ArenaPrompts(
        template=_in_names_of_2(_template(config) or ""),
        systems=systems,
        baselines=baselines,
        patterns=[re.compile(pattern) for pattern in _patterns(config)],
        temperature=config.get("temperature"),
        max_tokens=config.get("max_tokens"),
    )


def _or_complain(problems: list[str], read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read()
    except UserError as error:
        problems.append(str(error))
        return {}


def _read_yaml(path: str) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: a YAML mapping is expected, found {type(config).__name__}; expected {_ARENA_SOURCE}")
    return config


def _judge_settings(path: str) -> dict[str, Any]:
    settings = module_constants(path).get("JUDGE_SETTINGS")
    if not isinstance(settings, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("system_prompt"), str) for entry in settings.values()
    ):
        raise UserError(f"{path}: has no JUDGE_SETTINGS with a system_prompt by category; expected {_ARENA_SOURCE}")
    return settings


def _template(config: Mapping[str, Any]) -> str | None:
    template = config.get("prompt_template")
    if isinstance(template, list) and len(template) == 1:
        template = template[0]
    return template if isinstance(template, str) else None


def _patterns(config: Mapping[str, Any]) -> list[str]:
    several = config.get("regex_patterns", config.get("regex_pattern"))
    return [several] if isinstance(several, str) else list(several or [])


def _arena_faults(config: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    template = _template(config)
    if template is None:
        yield "no prompt_template (one text)"
    else:
        yield from _place_faults(template, _FIELDS_OF_1 if "question_1" in template else _FIELDS_OF_2)
    if not settings and not isinstance(config.get("system_prompt"), str):
        yield "no system prompt (JUDGE_SETTINGS of judge_utils.py, or system_prompt)"
    yield from _pattern_faults(_patterns(config))
    for name, kinds in (("temperature", int | float), ("max_tokens", int)):
        if not isinstance(config.get(name), kinds | None):
            yield f"{name} is {config[name]!r}, no number"


def _pattern_faults(patterns: Iterable[Any]) -> Iterator[str]:
    patterns = list(patterns)
    if not patterns:
        yield "no regex_patterns (or regex_pattern), which find the label"
    for pattern in patterns:
        try:
            if re.compile(pattern).groups != 1:
                yield f"regex pattern {pattern!r} needs one group, the label"
        except (re.error, TypeError) as error:
            yield f"regex pattern {pattern!r} is none ({error})"


def _in_names_of_2(template: str) -> str:
    if "question_1" not in template:
        return template
    names = {"question_1": "QUESTION", "answer_1": "ANSWER_A", "answer_2": "ANSWER_B"}
    return re.sub(r"\{(question_1|answer_1|answer_2)\}", lambda place: "{" + names[place[1]] + "}", template)
