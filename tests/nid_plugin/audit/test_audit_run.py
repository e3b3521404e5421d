"""One pass over pairs: what is found, counted, kept and dropped."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nid_plugin.audit.audit_run import Audit, AuditSettings, run_audit
from nid_plugin.audit.dropping import RELATIONS, reasons_named
from nid_plugin.audit.examination import PROPERTIES, Examiner
from nid_plugin.audit.report import as_json, as_markdown
from nid_plugin.pairs import Pair
from plugin_common.errors import UserError

ENGLISH = (
    "The ferry left the harbour shortly after nine, and by noon the island lay ahead like a sleeping animal. Nobody on "
    "deck said a word while the engine slowed and the ropes were thrown across to the men who waited on the quay."
)
GERMAN = (
    "Die Fähre verließ den Hafen kurz nach neun, und gegen Mittag lag die Insel vor uns wie ein Tier im Schlaf. Kein "
    "Mensch an Deck sagte ein Wort, während der Motor langsamer wurde und die Männer am Ufer nach den Tauen griffen."
)
PROMPT = (
    "The winter had been long, and when the ice on the river finally broke the whole town came down to the bridge to "
    "watch it go, the children in front, the old people behind them with blankets over their shoulders."
)


def pair(number: int = 0, prompt: str = PROMPT, completion: str = ENGLISH, **fields: Any) -> dict[str, Any]:
    known = {"id": f"{number:032x}", "prompt": prompt, "completion": completion, "source": "s", "teacher": "t"}
    return {**known, "finish_reason": "stop", "usage": {}, **fields}


def varied(count: int) -> list[dict[str, Any]]:
    """Pairs whose texts have hardly a run of words in common."""
    vocabulary = [f"{a}{b}" for a in "kltmnr" for b in ("a", "amo", "eri", "ilo", "ontu", "usse")]
    draw = random.Random(3)
    texts = [" ".join(draw.choices(vocabulary, k=60)) for _ in range(2 * count)]
    return [pair(i, texts[2 * i], texts[2 * i + 1]) for i in range(count)]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def audit_of(tmp_path: Path, records: list[dict[str, Any]], **settings: Any) -> Audit:
    return run_audit(AuditSettings(write(tmp_path / "pairs.jsonl", records), **settings), {})


def facts_of(record: dict[str, Any], second_half: str | None = None) -> tuple[str, ...]:
    return Examiner(languages=True, evaluation=None).examine(Pair(**record), second_half).properties


@pytest.mark.parametrize(
    ("record", "second_half", "expected"),
    [
        (pair(), None, ()),
        (pair(completion="It was over."), None, ("very-short",)),
        (pair(finish_reason="length"), None, ("cut-short",)),
        (pair(completion=PROMPT + " And so it went."), None, ("copies-prompt",)),
        (pair(completion="and then the ice came down the river again " * 9), None, ("repetitive",)),
        (pair(completion=GERMAN), None, ("language-change",)),
        (pair(), ENGLISH + " More.", ("own-second-half",)),
        (pair(), GERMAN, ()),
    ],
    ids=["plain", "short", "cut", "copies", "repeats", "language", "own half", "other half"],
)
def test_properties_of_a_pair(record: dict[str, Any], second_half: str | None, expected: tuple[str, ...]) -> None:
    assert facts_of(record, second_half) == expected


def test_detectors_look_at_their_sides() -> None:
    refusal = "I'm sorry, but I can't assist with that request."
    examiner = Examiner(languages=False, evaluation=None)
    assert examiner.examine(Pair(**pair(completion=refusal))).detected() == {"refusal"}
    assert examiner.examine(Pair(**pair(prompt=refusal))).detected() == set()


def test_relations_to_earlier_pairs(tmp_path: Path) -> None:
    records = varied(6)
    long = " ".join(record["completion"] for record in varied(5))
    records[2]["prompt"] = records[0]["prompt"]
    records[3]["completion"], records[4]["completion"] = long, long.replace(long.split()[150], "changed", 1)
    records[5]["completion"] = records[1]["completion"]
    totals = audit_of(tmp_path, records, languages=False).totals
    assert totals.relations == {"duplicate-prompt": 1, "near-duplicate-completion": 1, "duplicate-completion": 1}
    alone = audit_of(tmp_path, records, languages=False, near_duplicates=False).totals
    assert alone.relations == {"duplicate-prompt": 1, "duplicate-completion": 1}


def test_kept_and_dropped_are_all_that_was_read_and_lines_stay_as_they_were(tmp_path: Path) -> None:
    records = varied(300)
    for number in range(0, 300, 7):
        records[number]["completion"] = f"Sure! Here is what I found about {number}. " + records[number]["completion"]
    for record in records:
        record["extra"] = {"score": 0.25, "note": "ä\u2028"}  # a field that no pair has
    kept, dropped = tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl"
    audit = audit_of(tmp_path, records, kept=str(kept), dropped=str(dropped), languages=False)
    left, gone = read(kept), read(dropped)
    assert left == [record for number, record in enumerate(records) if number % 7]
    assert [record.pop("dropped_for") for record in gone] == [["help-offer"]] * 43
    assert sorted(left + gone, key=lambda record: record["id"]) == records
    assert (audit.totals.pairs, audit.totals.dropped) == (300, 43)


def test_only_what_is_named_is_dropped(tmp_path: Path) -> None:
    records = [*varied(3), pair(4, completion="It was over."), pair(5, completion="Sure! Here's a list. " + ENGLISH)]
    for names, expected in (
        (["very-short"], 1),
        (["assistant"], 1),
        (["very-short", "assistant"], 2),
        (["address"], 0),
    ):
        assert audit_of(tmp_path, records, drop=reasons_named(names), languages=False).totals.dropped == expected, names


def test_more_processes_find_the_same(tmp_path: Path) -> None:
    records = varied(200) + [pair(i, completion=f"I can't assist with request {i}. {ENGLISH}") for i in range(200, 240)]
    write(tmp_path / "set.jsonl", [])
    evaluation = tmp_path / "items.txt"
    evaluation.write_text(records[10]["completion"] + "\n", encoding="utf-8")
    settings = AuditSettings(write(tmp_path / "pairs.jsonl", records), evaluation=(str(evaluation),))
    verdicts = {place: place % 3 == 0 for place in range(100, 240)}
    reports = [as_json(run_audit(replace(settings, workers=workers), verdicts), settings, None) for workers in (1, 2)]
    assert reports[0] == reports[1]
    assert reports[0]["evaluation"]["pairs"] == 1
    assert reports[0]["drop"]["by_reason"]["judged-instruction"] == sum(verdicts.values())


def test_second_halves_are_found_by_prompt(tmp_path: Path) -> None:
    records = varied(4)
    records[2]["completion"] = records[2]["completion"] + " " + ENGLISH
    halves = [
        {"document": "0" * 32, "prompt": record["prompt"], "second_half": " " + ENGLISH, "source": "s"}
        for record in reversed(records[1:])
    ]
    audit = audit_of(tmp_path, records, halves=write(tmp_path / "halves.jsonl", halves), languages=False)
    assert audit.totals.properties["own-second-half"] == 1
    assert audit.totals.without_second_half == 1


def test_every_completion_of_a_prompt_is_compared_with_its_second_half(tmp_path: Path) -> None:
    records = [pair(number) for number in range(3)]
    halves = [{"document": "0" * 32, "prompt": PROMPT, "second_half": " " + ENGLISH, "source": "s"}]
    audit = audit_of(tmp_path, records, halves=write(tmp_path / "halves.jsonl", halves), languages=False)
    assert audit.totals.without_second_half == 0
    assert audit.totals.properties["own-second-half"] == 3


def test_lines_that_are_kept_are_the_same_bytes(tmp_path: Path) -> None:
    odd = [
        b'{"completion":"It was over, nobody wrote.","prompt":"A","score":1e400,"n":12345678901234567890}',
        b'{"prompt": "\\ud800 and \\u00e4", "completion": "It rained.", "prompt": "twice"}',
        '{"prompt": "ä", "completion": "It snowed on all of them."}'.encode(),
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\n".join(odd))
    kept = tmp_path / "kept.jsonl"
    run_audit(AuditSettings(str(path), kept=str(kept), languages=False, near_duplicates=False), {})
    assert kept.read_bytes().split(b"\n") == [*odd, b""]


def test_lengths_of_texts_without_spaces(tmp_path: Path) -> None:
    records = [pair(1, completion="今天天气很好" * 5), pair(2, completion="今天")]
    totals = audit_of(tmp_path, records, languages=False).totals
    assert totals.words["completion"].summary()["max"] == 30
    assert totals.properties["very-short"] == 1


def test_a_report_without_examples(tmp_path: Path) -> None:
    records = [pair(1, completion="Sure! Here's a list. " + ENGLISH)]
    report = as_json(audit_of(tmp_path, records, examples=0), AuditSettings("p"), None)
    assert report["detectors"]["by_detector"]["help-offer"]["pairs"] == 1
    assert "drawn at random" not in as_markdown(report, None)


def test_text_that_no_file_takes_is_audited_and_kept(tmp_path: Path) -> None:
    records = [pair(1, completion="Here is \ud800 a lone surrogate. " + ENGLISH), *varied(2)]
    kept = tmp_path / "kept.jsonl"
    audit = audit_of(tmp_path, records, kept=str(kept), examples=3)
    report = as_json(audit, AuditSettings("p"), None)
    as_markdown(report, None).encode()
    lines = kept.read_bytes().decode("utf-8", "surrogatepass").splitlines()
    assert [json.loads(line) for line in lines] == records


def test_no_pair_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pair"):
        audit_of(tmp_path, [], kept=str(tmp_path / "kept.jsonl"))
    assert not (tmp_path / "kept.jsonl").exists()


def test_the_report_names_every_finding_and_its_text_is_inert(tmp_path: Path) -> None:
    nasty = "Sure! Here's <script>alert(1)</script> | a `tick` ``two`` and a\n# heading. " + ENGLISH
    audit = audit_of(tmp_path, [pair(1, completion=nasty), *varied(5)])
    report = as_json(audit, AuditSettings("p.jsonl"), None)
    assert set(report["properties"]) == set(PROPERTIES) - {"own-second-half", "evaluation-overlap"}
    assert set(report["duplicates"]) == set(RELATIONS)
    assert report["detectors"]["by_detector"]["help-offer"]["pairs"] == 1
    assert report["detectors"]["strict"]["share"] == pytest.approx(1 / 6)
    text = as_markdown(report, "report.png")
    assert "``` Sure! Here's <script>alert(1)</script> | a `tick` ``two`` and a # heading." in text
    assert "![shares by detector, and lengths](report.png)" in text
    assert "\n# heading" not in text
