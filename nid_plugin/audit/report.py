"""The report of an audit: as JSON values, and as Markdown made from these alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nid_plugin.audit.accuracy import ANY_STRICT, MEASURED
from nid_plugin.audit.audit_run import Audit, AuditSettings
from nid_plugin.audit.decontamination import NAMES_OF_AN_ITEM
from nid_plugin.audit.detectors import DETECTORS, DETECTORS_VERSION, SIDES
from nid_plugin.audit.dropping import RELATIONS
from nid_plugin.audit.examination import PROPERTIES
from nid_plugin.audit.intervals import kappa, wilson
from nid_plugin.audit.judge import Judgement
from nid_plugin.audit.totals import Agreement, Totals
from nid_plugin.markdown import code_span, listed, plain, table

FORMAT = 1
MOST_LISTED = 20


def as_json(audit: Audit, settings: AuditSettings, judgement: Judgement | None) -> dict[str, Any]:
    """All that was counted. Counts are of pairs, shares are of all pairs unless the name says otherwise."""
    totals = audit.totals
    return {
        "format": FORMAT,
        "pairs_file": settings.pairs,
        "pairs": totals.pairs,
        "teachers": _common(totals.teachers),
        "finish_reasons": _common(totals.finish_reasons),
        "detectors": {
            "version": DETECTORS_VERSION,
            "any": share(totals.groups["any"], totals.pairs),
            "strict": share(totals.groups["strict"], totals.pairs),
            "by_detector": {d.name: _detector(totals, d.name, d.group) for d in DETECTORS},
        },
        "properties": {name: share(totals.properties[name], totals.pairs) for name in _looked_for(settings)},
        "duplicates": {name: share(totals.relations[name], totals.pairs) for name in _relations(settings)},
        "lengths": {
            side: {"words": totals.words[side].summary(), "characters": totals.characters[side].summary()}
            for side in SIDES
        },
        "copying": _copying(totals, settings),
        "languages": _languages(totals) if settings.languages else None,
        "evaluation": _evaluation(audit, settings) if audit.evaluation else None,
        "judge": None if judgement is None else _judge(judgement, totals),
        "drop": {
            "for": list(settings.drop),
            "dropped": share(totals.dropped, totals.pairs),
            "kept": totals.pairs - totals.dropped,
            "by_reason": {name: totals.dropped_for[name] for name in settings.drop if totals.dropped_for[name]},
        },
        "examples": totals.examples.kept,
    }


def share(count: int, total: int) -> dict[str, float]:
    """A count, its share of the total, and the 95 % score interval of that."""
    low, high = wilson(count, total)
    return {"pairs": count, "share": count / total if total else 0.0, "low": low, "high": high}


def _common(counter: Counter[str]) -> dict[str, int]:
    return {name or "(none)": count for name, count in counter.most_common(MOST_LISTED)}


def _detector(totals: Totals, name: str, group: str) -> dict[str, Any]:
    sides: dict[str, int] = {side: totals.found[name, side] for side in SIDES}
    return {"group": group, **share(totals.found[name, "either"], totals.pairs), **sides}


def _looked_for(settings: AuditSettings) -> list[str]:
    absent = {
        "language-change": not settings.languages,
        "own-second-half": settings.halves is None,
        "evaluation-overlap": not settings.evaluation,
    }
    return [name for name in PROPERTIES if not absent.get(name)]


def _relations(settings: AuditSettings) -> list[str]:
    return [name for name in RELATIONS if settings.near_duplicates or not name.startswith("near")]


def _copying(totals: Totals, settings: AuditSettings) -> dict[str, Any]:
    result = {
        "percent_of_8_grams_from_prompt": totals.from_prompt.summary(),
        "longest_run_from_prompt_in_words": totals.longest_run.summary(),
        "percent_of_8_grams_repeated": totals.repeated.summary(),
    }
    if settings.halves is not None:
        result["percent_of_8_grams_from_own_second_half"] = totals.from_second_half.summary()
        result["pairs_without_second_half"] = totals.without_second_half  # type: ignore[assignment]
    return result


def _languages(totals: Totals) -> dict[str, Any]:
    by_side: dict[str, Any] = {
        side: _common(Counter({name: n for (at, name), n in totals.languages.items() if at == side})) for side in SIDES
    }
    changes = [{"from": one, "to": other, "pairs": n} for (one, other), n in totals.changes.most_common(MOST_LISTED)]
    return {**by_side, "compared": totals.languages_compared, "changed": totals.changes.total(), "changes": changes}


def _evaluation(audit: Audit, settings: AuditSettings) -> dict[str, Any]:
    assert audit.evaluation is not None
    return {
        "files": list(settings.evaluation),
        "words_of_a_run": audit.evaluation.n,
        "items": audit.evaluation.items,
        "items_too_short": audit.evaluation.too_short,
        "rows_without_text": audit.evaluation.without_text,
        "items_hit": len(audit.totals.hits),
        "pairs": audit.totals.properties["evaluation-overlap"],
        "hits_found": audit.totals.hits.total(),
        "most_hit": dict(audit.totals.hits.most_common(MOST_LISTED)),
        "hits": audit.totals.hit_list,
    }


def _judge(judgement: Judgement, totals: Totals) -> dict[str, Any]:
    return {
        "model": judgement.model,
        "prompt": judgement.prompt,
        "seed": judgement.seed,
        "asked": judgement.asked,
        "judged": len(judgement.verdicts),
        "unread": dict(judgement.unread.most_common()),
        "instruction": share(judgement.positive, len(judgement.verdicts)),
        "against_any_detector": _agreement(totals.judge_detectors),
        "against_strict_detectors": _agreement(totals.judge_strict),
    }


def _agreement(counts: Agreement) -> dict[str, Any]:
    cells = (counts.both, counts.only_detectors, counts.only_judge, counts.neither)
    names = ("both", "only_detectors", "only_judge", "neither")
    return {**dict(zip(names, cells, strict=True)), "kappa": kappa(*cells)}


def as_markdown(report: Mapping[str, Any], figure: str | None) -> str:
    """The report to read."""
    found = report["detectors"]
    blocks = [
        "# Audit of pairs",
        f"{code_span(report['pairs_file'])}: {report['pairs']:,} pairs. Teachers: {listed(report['teachers'])}. "
        f"Finish reasons: {listed(report['finish_reasons'])}.",
        f"**{percent(found['strict'])}** of the pairs hold what instruction data is made of (groups assistant and "
        f"instruction below); {percent(found['any'])} have any finding. Shares are of all pairs, with 95 % intervals; "
        "rules find and miss things: see their precision and recall.",
        *([] if figure is None else [f"![shares by detector, and lengths]({figure})"]),
        *_dropping(report["drop"]),
        *([_judge_section(report["judge"])] if report["judge"] else []),
        "## Instruction and conversation content",
        _detector_table(found),
        *_examples(report["examples"], list(found["by_detector"])),
        "## Lengths",
        _length_table(report["lengths"]),
        "## Copies and duplicates",
        _share_table({**report["properties"], **report["duplicates"]}, {**PROPERTIES, **RELATIONS}),
        _copying_table(report["copying"]),
        *_language_section(report["languages"]),
        *_evaluation_section(report["evaluation"]),
        *_disagreements(report),
    ]
    return "\n\n".join(blocks) + "\n"


def percent(part: Mapping[str, float]) -> str:
    """``0.70 % (0.41 to 1.20 %)``."""
    return f"{100 * part['share']:.2f} % ({100 * part['low']:.2f} to {100 * part['high']:.2f} %)"


def _dropping(drop: Mapping[str, Any]) -> list[str]:
    reasons = sorted(drop["by_reason"].items(), key=lambda item: -item[1])
    text = (
        f"Dropped by the chosen reasons: {drop['dropped']['pairs']:,} pairs ({100 * drop['dropped']['share']:.2f} %); "
        f"{drop['kept']:,} are left."
    )
    return [text, *([table(("dropped for (a pair may have several)", "pairs"), reasons)] if reasons else [])]


def _detector_table(found: Mapping[str, Any]) -> str:
    rows = []
    for name, one in found["by_detector"].items():
        measured = MEASURED[name]["all"]
        counted = (name, one["group"], percent(one), f"{one['prompt']:,}", f"{one['completion']:,}")
        rows.append((*counted, f"{measured.precision:.2f}", f"{measured.recall:.2f}"))
    real = MEASURED[ANY_STRICT]["found"]
    head = ("detector", "group", "share of pairs", "prompts", "completions", "precision", "recall")
    note = (
        f"Version {found['version']} of the detectors. Precision and recall are those on the hand-labelled texts of "
        f"this program's tests, not on this file; of real completions of a small model there, the groups assistant and "
        f"instruction together found {100 * real.recall:.0f} % of those that a reader would name ({real.right} of "
        f"{real.right + real.missed}; {real.wrong} wrong)."
    )
    return f"{note}\n\n{table(head, rows, left=2)}"


def _examples(examples: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    blocks = []
    for name in names:
        if examples.get(name):
            lines = [
                f"- {one['side']} of {code_span(one['id'])}: {code_span(one['excerpt'])}" for one in examples[name]
            ]
            blocks.append("\n".join([f"**{name}**, drawn at random:", "", *lines]))
    return blocks


def _length_table(lengths: Mapping[str, Any]) -> str:
    rows = [(f"{side}, {unit}", *_summary(lengths[side][unit])) for side in SIDES for unit in ("words", "characters")]
    return table(("", *_SUMMARY), rows)


_SUMMARY = ("mean", "min", "5%", "25%", "50%", "75%", "95%", "max")


def _summary(values: Mapping[str, float]) -> list[str]:
    if not values:
        return ["–"] * len(_SUMMARY)
    return [f"{values[name]:,.1f}" if name == "mean" else f"{values[name]:,.0f}" for name in _SUMMARY]


def _share_table(shares: Mapping[str, Mapping[str, float]], meanings: Mapping[str, str]) -> str:
    rows = [(name, meanings[name], f"{one['pairs']:,.0f}", percent(one)) for name, one in shares.items()]
    return table(("", "meaning", "pairs", "share"), rows, left=2)


def _copying_table(copying: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), *_summary(values)) for name, values in copying.items() if isinstance(values, dict)]
    without = copying.get("pairs_without_second_half")
    note = f"\n\nNo second half was found for {without:,} pairs." if without else ""
    return table(("", *_SUMMARY), rows) + note


def _language_section(languages: Mapping[str, Any] | None) -> list[str]:
    if languages is None:
        return []
    changes = [f"{one['from']} → {one['to']} {one['pairs']:,}" for one in languages["changes"]]
    sides = "; ".join(f"{side}s: {listed(languages[side])}" for side in SIDES)
    return [
        "## Languages",
        f"{sides}. Both sides are sure in {languages['compared']:,} pairs, of which {languages['changed']:,} change"
        f"{': ' + ', '.join(changes) if changes else ''}.",
    ]


def _evaluation_section(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return []
    text = (
        f"{evaluation['items']:,} items of {', '.join(map(code_span, evaluation['files']))} ("
        f"{evaluation['items_too_short']:,} more are too short to be looked for, {evaluation['rows_without_text']:,} "
        f"rows hold no text); runs of "
        f"{evaluation['words_of_a_run']} words, or the whole of a shorter item. "
        f"{evaluation['items_hit']:,} items are hit, in {evaluation['pairs']:,} pairs (of a run that many items have, "
        f"the first {NAMES_OF_AN_ITEM} count)."
    )
    hits = [
        (code_span(h["item"]), code_span(h["id"]), h["side"], code_span(h["words"]))
        for h in evaluation["hits"][:MOST_LISTED]
    ]
    found = [table(("item", "pair", "side", "words in common"), hits, left=4)] if hits else []
    more = evaluation["hits_found"] - len(hits)
    rest = [f"{more:,} more; report.json has the first {len(evaluation['hits']):,} hits."] if more else []
    return ["## Overlap with evaluation sets", text, *found, *rest]


def _judge_section(judge: Mapping[str, Any]) -> str:
    unread = f" Without a verdict: {listed(judge['unread'])}." if judge["unread"] else ""
    rows = [
        (
            title,
            *(f"{judge[key][cell]:,}" for cell in ("both", "only_detectors", "only_judge", "neither")),
            _kappa(judge[key]),
        )
        for title, key in (
            ("any detector", "against_any_detector"),
            ("assistant, instruction", "against_strict_detectors"),
        )
    ]
    head = ("detectors against the judge", "both", "only detectors", "only judge", "neither", "Cohen's kappa")
    return (
        f"## Judge\n\n{code_span(judge['model'])}, prompt: {plain(judge['prompt'])}; a random sample "
        f"of {judge['asked']:,} pairs (seed {judge['seed']}), {judge['judged']:,} judged.{unread} Instruction content: "
        f"**{instruction_share(judge)}** (the paper found 0.7 % in its own pairs)."
        f"\n\n{table(head, rows)}"
    )


def instruction_share(judge: Mapping[str, Any]) -> str:
    """The share of the judged pairs that hold instruction content, in words."""
    if not judge["judged"]:
        return "unknown, since no answer of the judge held a verdict"
    return f"{percent(judge['instruction'])} of {judge['judged']:,} judged pairs"


def _kappa(agreement: Mapping[str, Any]) -> str:
    return "–" if agreement["kappa"] is None else f"{agreement['kappa']:.2f}"


def _disagreements(report: Mapping[str, Any]) -> list[str]:
    if not report["judge"]:
        return []
    shown = _examples(report["examples"], ["only the judge", "only detectors"])
    return ["## Where judge and detectors (assistant, instruction) differ", *shown] if shown else []
