"""``nid audit``: what is in the pairs, before anything is trained on them."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from nid_plugin.completion.options import add_teacher_options
from plugin_common.errors import UserError

SUMMARY = "Look for instructions, conversations, duplicates, copies and evaluation items in pairs; report and filter."
EXAMPLE = (
    "nid audit pairs.jsonl --report audit --filter clean.jsonl\n"
    "  nid audit pairs.jsonl --report audit --halves halves.jsonl --decontaminate question.jsonl \\\n"
    "      --judge gpt-4-turbo --judge-sample 1000 --max-cost 20"
)
REPORT, MARKDOWN, FIGURE = "report.json", "report.md", "report.png"
JUDGED = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid audit``."""
    parser.add_argument("pairs", metavar="PAIRS", help="JSON Lines with prompt and completion (.gz, .zst too)")
    parser.add_argument(
        "--report", metavar="DIR", help=f"folder for {MARKDOWN}, {REPORT}, {FIGURE}; an earlier report is replaced"
    )
    parser.add_argument("--no-figure", action="store_true", help="make no figure (which needs matplotlib)")
    parser.add_argument(
        "--halves", metavar="FILE", help="of `nid halve`: compare with the documents' own second halves"
    )
    parser.add_argument("--no-language", action="store_true", help="do not look at languages (which needs py3langid)")
    parser.add_argument(
        "--no-near-duplicates",
        action="store_true",
        help="look for exact duplicates alone (near ones need rensa, rbloom)",
    )
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="for each detector (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of examples and sample (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one for each core that may be used)"
    )
    _configure_filter(parser.add_argument_group("filter"))
    _configure_decontamination(parser.add_argument_group("evaluation sets"))
    _configure_judge(parser.add_argument_group("judge"))
    add_teacher_options(parser, max_tokens=256)
    parser.set_defaults(temperature=0.0, wrong_use=parser.error)


def _configure_filter(group: Any) -> None:
    group.add_argument(
        "--filter", metavar="FILE", help="write the pairs that are left, lines as they were (.gz, .zst: compressed)"
    )
    group.add_argument("--dropped", metavar="FILE", help="write the others, with `dropped_for`")
    group.add_argument(
        "--drop",
        nargs="+",
        metavar="NAME",
        help="what to drop for: detectors and other findings, as the report names them; assistant, instruction, "
        "address, detectors, all stand for several (default: detectors, evaluation-overlap, judged-instruction)",
    )
    group.add_argument(
        "--fail-above",
        type=float,
        metavar="SHARE",
        help="status 1 if a larger share (0 to 1) of the pairs is to be dropped",
    )


def _configure_decontamination(group: Any) -> None:
    group.add_argument(
        "--decontaminate",
        nargs="+",
        default=[],
        metavar="FILE",
        help="evaluation sets: .jsonl, .parquet, .txt (a line each)",
    )
    group.add_argument(
        "--decontaminate-field",
        nargs="+",
        metavar="NAME",
        help="fields with the items' texts (default: the usual names)",
    )
    group.add_argument(
        "--decontaminate-words",
        type=int,
        default=13,
        metavar="N",
        help="words of a run in common (default: %(default)s)",
    )
    group.add_argument(
        "--decontaminate-shortest",
        type=int,
        default=8,
        metavar="N",
        help="items of fewer words are not looked for; shorter ones than a run are, as a whole (default: %(default)s)",
    )


def _configure_judge(group: Any) -> None:
    group.add_argument("--judge", metavar="MODEL", help="let this model judge a sample of the pairs (temperature 0)")
    group.add_argument(
        "--judge-sample", type=int, metavar="N", help=f"pairs to judge (default: {JUDGED}, or all there are)"
    )
    group.add_argument(
        "--judge-dry-run",
        action="store_true",
        help="tell how many requests, tokens and dollars the judge would take; send nothing, audit nothing",
    )
    group.add_argument("--judge-prompt", metavar="FILE", help="your own, with {prompt} and {completion}")
    group.add_argument(
        "--judge-ledger", metavar="FOLDER", help="keeps every answer (default: PAIRS with .judge at the end)"
    )


def run(args: argparse.Namespace) -> None:
    """Judge, examine, report, filter; then raise if the share to be dropped is above ``--fail-above``."""
    from nid_plugin.audit.audit_checks import check_options, check_outputs

    check_options(args)
    check_outputs(args)
    from nid_plugin.audit.audit_run import evaluation_of, run_audit
    from nid_plugin.audit.report import as_json
    from plugin_common.atomic_file import clean_up_when_terminated
    from plugin_common.progress import progress_bar

    settings, judge = _settings(args), _judge_settings(args)
    total = _count(args.pairs)
    if args.judge_dry_run:
        _show_estimate(args, total, *judge)
        return
    evaluation = evaluation_of(settings)  # before the judge is paid: what cannot be read shows now
    judgement = _judge(args, total, *judge) if judge else None
    with clean_up_when_terminated():
        with progress_bar(total=total, unit=" pairs", description="audit") as bar:
            audit = run_audit(settings, judgement.verdicts if judgement else {}, bar.update, evaluation)
        report = as_json(audit, settings, judgement)
        if args.report:
            _write_report(args, report, audit.totals.words)
    for line in _summary(args, report):
        print(line, file=sys.stderr if "-" in (args.filter, args.dropped) else sys.stdout)
    dropped = report["drop"]["dropped"]["share"]
    if args.fail_above is not None and dropped > args.fail_above:
        raise UserError(
            f"{100 * dropped:.2f} % of the pairs are to be dropped, more than --fail-above {args.fail_above:g}"
        )


def _settings(args: argparse.Namespace) -> Any:
    from nid_plugin.audit.audit_run import AuditSettings
    from nid_plugin.audit.dropping import DEFAULT, reasons_named

    return AuditSettings(
        pairs=args.pairs,
        halves=args.halves,
        languages=not args.no_language,
        near_duplicates=not args.no_near_duplicates,
        evaluation=tuple(args.decontaminate),
        fields=tuple(args.decontaminate_field) if args.decontaminate_field else None,
        run_words=args.decontaminate_words,
        shortest_item=args.decontaminate_shortest,
        drop=reasons_named(args.drop or DEFAULT),
        kept=args.filter,
        dropped=args.dropped,
        examples=args.examples,
        seed=args.seed,
        workers=args.workers or _cores(),
    )


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(path: str) -> int:
    """How many pairs there are; a line that is none shows before anything is paid or written."""
    from nid_plugin.pairs import read_pairs

    return sum(1 for _ in read_pairs(path))


def _judge_settings(args: argparse.Namespace) -> Any:
    """The judge's prompt and how to ask it; None without a judge."""
    if not args.judge:
        return None
    from nid_plugin.audit.judge import read_prompt
    from nid_plugin.completion.options import teacher_settings

    return read_prompt(args.judge_prompt), teacher_settings(args, args.judge, needs_key=not args.judge_dry_run)


def _judge(args: argparse.Namespace, pairs: int, prompt: Any, teacher: Any) -> Any:
    from nid_plugin.audit.judge import judge_pairs, sample

    chosen = sample(pairs, args.judge_sample or JUDGED, args.seed)
    return judge_pairs(args.pairs, chosen, prompt, teacher, _judge_ledger(args), args.seed)


def _judge_ledger(args: argparse.Namespace) -> str:
    return args.judge_ledger or f"{args.pairs}.judge"


def _show_estimate(args: argparse.Namespace, pairs: int, prompt: Any, teacher: Any) -> None:
    """Tell what the judge would be asked, and what that costs."""
    from nid_plugin.audit.judge import judging_estimate, sample
    from nid_plugin.completion.estimate import BYTES_PER_TOKEN

    chosen = sample(pairs, args.judge_sample or JUDGED, args.seed)
    found = judging_estimate(args.pairs, chosen, prompt, teacher, _judge_ledger(args))
    print(f"judge: {args.judge} about {len(chosen):,} of {pairs:,} pairs; {BYTES_PER_TOKEN:g} bytes taken as a token")
    for line in found.lines(teacher.price, teacher.connection):
        print(line)
    print("nothing was sent, and nothing was audited")


def _write_report(args: argparse.Namespace, report: dict[str, Any], words: Any) -> None:
    from nid_plugin.audit.report import as_markdown
    from plugin_common.whole_folder import whole_folder

    with whole_folder(args.report, marker=REPORT, replaces=lambda folder: [MARKDOWN, FIGURE]) as folder:
        if not args.no_figure:
            from nid_plugin.audit.figure import draw

            draw(report, words, folder / FIGURE)
        text = as_markdown(report, None if args.no_figure else FIGURE)
        (folder / MARKDOWN).write_bytes(text.encode("utf-8", "replace"))
        data = json.dumps(report, indent=1, ensure_ascii=False)
        (folder / REPORT).write_bytes(data.encode("utf-8", "replace") + b"\n")


def _summary(args: argparse.Namespace, report: dict[str, Any]) -> Iterator[str]:
    from nid_plugin.audit.report import instruction_share, percent

    found = report["detectors"]
    yield (
        f"{report['pairs']:,} pairs: {percent(found['strict'])} hold what instruction data is made of, "
        f"{percent(found['any'])} any finding"
    )
    names: Sequence[str] = sorted(found["by_detector"], key=lambda name: -found["by_detector"][name]["pairs"])
    yield "  " + ", ".join(f"{name} {found['by_detector'][name]['pairs']:,}" for name in names)
    if report["judge"]:
        yield f"judge: {instruction_share(report['judge'])}"
    drop = report["drop"]
    if args.filter or args.dropped:
        for path, count in ((args.filter, drop["kept"]), (args.dropped, drop["dropped"]["pairs"])):
            if path:
                yield f"{path}: {count:,} pairs"
    if args.report:
        print(f"{args.report}: {MARKDOWN}, {REPORT}{'' if args.no_figure else ', ' + FIGURE}", file=sys.stderr)
