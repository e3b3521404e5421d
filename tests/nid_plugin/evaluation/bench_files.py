"""Small files in the layouts of both benchmarks, with words of our own, and a judge on loopback."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nid_plugin.cli import main
from nid_plugin.evaluation.questions import TEMPERATURES, WITH_REFERENCE
from tests.toy_teacher import Asked, Reply, ToyTeacher, answer

MT_FIRST = 81
JUDGE = "the-judge"
LABEL_PATTERNS = [r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"]


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """A file of JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def mt_questions(path: Path, *, references: bool = True) -> Path:
    """One question of each category of MT-Bench."""
    records = []
    for number, category in enumerate(TEMPERATURES):
        record: dict[str, Any] = {
            "question_id": MT_FIRST + number,
            "category": category,
            "turns": [f"Tell of a river ({category}).", f"And now of a town ({category})."],
        }
        if references and category in WITH_REFERENCE:
            record["reference"] = [f"first truth on {category}", f"second truth on {category}"]
        records.append(record)
    return write_lines(path, records)


def arena_questions(path: Path, number: int = 4, categories: Sequence[str] = ("hard_prompt",)) -> Path:
    """Questions of Arena-Hard 2.0, categories in turn."""
    return write_lines(
        path,
        (
            {
                "uid": f"uid-{n}",
                "category": categories[n % len(categories)],
                "subcategory": "rivers",
                "prompt": f"Tell of river number {n}.",
            }
            for n in range(number)
        ),
    )


def mt_answer(question: int, model: str, turns: Sequence[str]) -> dict[str, Any]:
    """A line of FastChat's ``model_answer/MODEL.jsonl``, written from its layout."""
    return {
        "question_id": question,
        "answer_id": f"{model}-{question}",
        "model_id": model,
        "choices": [{"index": 0, "turns": list(turns)}],
        "tstamp": 1700000000.5,
    }


def arena_answer(uid: str, model: str, text: str) -> dict[str, Any]:
    """A line of arena-hard-auto's ``model_answer/MODEL.jsonl``, written from its layout."""
    counts = {f"h{level}": 0 for level in range(1, 7)}
    return {
        "uid": uid,
        "ans_id": f"{model}-{uid}",
        "model": model,
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": text}}],
        "tstamp": 1700000000.5,
        "metadata": {
            "token_len": 7,
            "header_count": counts,
            "list_count": {"ordered": 0, "unordered": 0},
            "bold_count": {"**": 0, "__": 0},
        },
    }


def mt_prompts(path: Path, **changes: dict[str, Any]) -> Path:
    """A file in the layout of FastChat's ``judge_prompts.jsonl``; ``changes`` by prompt name (None leaves it out)."""
    records = []
    for mode, names in (("single", ("single-v1", "single-math-v1")), ("pairwise", ("pair-v2", "pair-math-v1"))):
        for name, reference in zip(names, (False, True), strict=True):
            for multi in (False, True):
                records.append(_mt_prompt(name, mode, reference, multi))
    kept = [
        record | changes.get(record["name"], {}) for record in records if changes.get(record["name"], {}) is not None
    ]
    return write_lines(path, kept)


def _mt_prompt(name: str, mode: str, reference: bool, multi: bool) -> dict[str, Any]:
    turns = (1, 2) if multi else (1,)
    parts = ["Q {question_1} Q {question_2}" if multi else "Q {question}"]
    if reference:
        parts += [f"R {{ref_answer_{turn}}}" for turn in turns]
    if mode == "single":
        parts += [f"S {{answer_{turn}}}" for turn in turns] if multi else ["S {answer}"]
    else:
        for side in "ab":
            parts += [f"{side.upper()} {{answer_{side}_{turn}}}" for turn in turns] if multi else [
                f"{side.upper()} {{answer_{side}}}"
            ]  # fmt: skip
    return {
        "name": name + ("-multi-turn" if multi else ""),
        "type": mode,
        "system_prompt": f"You judge ({mode}).",
        "prompt_template": "\n".join(parts),
        "description": "toy",
        "category": "math" if reference else "general",
        "output_format": "[[rating]]" if mode == "single" else "[[A]]",
    }


def arena_config(path: Path, **changes: Any) -> Path:
    """A YAML file in the layout of arena-hard-auto's ``config/arena-hard-v2.0.yaml``."""
    import yaml

    config = {
        "judge_model": "someone",
        "temperature": 0.0,
        "max_tokens": 16000,
        "bench_name": "arena-hard-v2.0",
        "reference": None,
        "regex_patterns": LABEL_PATTERNS,
        "prompt_template": "Q {QUESTION}\nA {ANSWER_A}\nB {ANSWER_B}",
        "model_list": ["a-model"],
        **changes,
    }
    path.write_text(
        yaml.safe_dump({name: value for name, value in config.items() if value != "left out"}), encoding="utf-8"
    )
    return path


def arena_settings(path: Path) -> Path:
    """A Python file in the layout of arena-hard-auto's ``utils/judge_utils.py``."""
    path.write_text(
        "import os\n"
        'COMMON = "You judge " + "rivers."\n'
        "os.environ['NEVER_RUN'] = '1'\n"
        "JUDGE_SETTINGS = {\n"
        '    "hard_prompt": {"baseline": "base", "system_prompt": COMMON},\n'
        '    "creative_writing": {"baseline": "poet", "system_prompt": "You judge poems."},\n'
        "}\n",
        encoding="utf-8",
    )
    return path


def shown(text: str, side: str) -> list[str]:
    """What a toy prompt shows as a side's answers (``A``, ``B``, ``S``)."""
    return re.findall(rf"^{side} (.*)$", text, re.M)


def judge_by_length(asked: Asked) -> Reply:
    """Says 2 times the number of exclamation marks as a rating; between A and B, prefers more of them."""
    if own := shown(asked.text, "S"):
        return answer(f"Well. Rating: [[{2 * own[-1].count('!')}]]")
    a, b = (shown(asked.text, side)[-1].count("!") for side in "AB")
    arena = "QUESTION" not in asked.text and asked.body["messages"][0]["content"] != "You judge (pairwise)."
    if not arena:
        return answer("[[A]]" if a > b else "[[B]]" if b > a else "[[C]]")
    strong = abs(a - b) > 1
    label = "A=B" if a == b else ("A>>B" if strong else "A>B") if a > b else ("B>>A" if strong else "B>A")
    return answer(f"My final verdict is: [[{label}]]")


class Bench:
    """A folder with questions, answers and prompts of a benchmark."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.out = folder / "judgments"
        self.answers = folder / "answers"

    def command(self, *words: str, teacher: ToyTeacher | None = None) -> int:
        """Run ``nid judge``."""
        given = ["judge", "--bench", self.name, "--questions", str(self.folder / "question.jsonl")]
        given += ["--answers", str(self.answers), "--judge-model", JUDGE, "--out", str(self.out), "--bootstrap", "50"]
        if "--scores-only" not in words:
            given += ["--judge-prompts", *self.prompts, "--price", "1", "2"]
            given += ["--base-url", teacher.base_url if teacher else "http://127.0.0.1:9/v1"]
        return main([*given, *words])

    @property
    def prompts(self) -> list[str]:
        """The files for ``--judge-prompts``."""
        if self.name == "mt-bench":
            return [str(self.folder / "judge_prompts.jsonl")]
        return [str(self.folder / "arena-hard-v2.0.yaml"), str(self.folder / "judge_utils.py")]

    def keep_questions(self, number: int) -> None:
        """Leave that many questions in the file."""
        path = self.folder / "question.jsonl"
        write_lines(path, read_lines(path)[:number])

    def scores(self, kind: str) -> dict[str, Any]:
        """The scores of the JSON file."""
        return dict(json.loads((self.out / f"{JUDGE}_{kind}.scores.json").read_text(encoding="utf-8")))
