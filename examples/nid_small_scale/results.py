"""What a run of this example made, in a folder to keep: report.md, report.json, the audits, some pairs, tuning.md.

python results.py --work runs/nid-small-scale-small --size small --out docs/nid-small-scale
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from examples.nid_small_scale import tuning_results
from examples.nid_small_scale.documents import DOCUMENTS, read_list
from examples.nid_small_scale.run import make_workspace
from examples.nid_small_scale.sizes import SIZES, Size
from examples.nid_small_scale.steps import stages
from examples.nid_small_scale.tuning_steps import gguf_file, tuning_stages
from nid_plugin.documents.words import words
from nid_plugin.markdown import table
from nid_plugin.pairs import Pair, read_pairs
from plugin_common.errors import UserError, raise_all
from plugin_common.json_lines import read_json_lines
from plugin_common.stages import Stage
from plugin_common.whole_folder import whole_folder
from scripts.benchmarks.measure import machine

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "runs" / "debian-packages"
REPORT = "report.json"
SETS = {"chat": "pairs.jsonl", "plain": "pairs-text.jsonl", "second half": "control.jsonl"}
LEDGERS = {"chat": "ledger-chat", "plain": "ledger-completions"}
AUDITS = {"chat": "audit", "plain": "audit-text", "second half": "audit-control"}
FREE = ("PSF-2.0", "Apache-2.0", "CC-BY-SA-3.0", "this repository")
"""Licences of documents of which a few are shown."""


def counted(pairs: Iterable[Pair]) -> dict[str, Any]:
    """Pairs, words and tokens of a file of pairs."""
    reasons: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for pair in pairs:
        reasons[pair.finish_reason] += 1
        total["pairs"] += 1
        total["prompt_words"] += len(words(pair.prompt))
        total["completion_words"] += len(words(pair.completion))
        total["prompt_tokens"] += pair.usage.get("prompt_tokens", 0)
        total["completion_tokens"] += pair.usage.get("completion_tokens", 0)
    return {**total, "finish_reasons": dict(reasons.most_common())}


def asking_seconds(answers: Iterable[tuple[float, float]]) -> float:
    """For how long at least one request was under way.

    Args:
        answers: when each came and how long it took, in seconds. Between two runs nothing is counted.
    """
    total, end = 0.0, float("-inf")
    for start, stop in sorted((came - took, came) for came, took in answers):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _ledger_seconds(ledger: Path) -> float:
    results = [record for _, record in read_json_lines(str(ledger / "results.jsonl"))]
    return asking_seconds((datetime.fromisoformat(one["at"]).timestamp(), one["seconds"]) for one in results)


def gathered(work: Path, every: Sequence[Stage]) -> dict[str, Any]:
    """All numbers of the first half.

    Raises:
        UserError: a stage is not done, or was run with other options.
    """
    records = records_of(work, every)
    documents = _read_json(work / "documents" / "report.json")
    audits = {name: _read_json(work / folder / REPORT) for name, folder in AUDITS.items()}
    return {
        "machine": machine(),
        "made": records["teacher"]["finished"],
        "versions": records["teacher"]["versions"],
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "asking_seconds": {name: _ledger_seconds(work / folder) for name, folder in LEDGERS.items()},
        "documents": {key: documents[key] for key in ("documents", "words", "files", "by_package", "left_out")},
        "pairs": {name: counted(read_pairs(str(work / file))) for name, file in SETS.items()},
        "same_length": counted(read_pairs(str(work / "control-same-length.jsonl"))),
        "subsets": _read_json(work / "subsets" / REPORT),
        "audit": {name: audit_shares(report) for name, report in audits.items()},
        "comparison": _read_json(work / "comparison" / REPORT),
        "commands": {stage.name: [command.line() for command in stage.commands] for stage in every},
    }


def tuned(work: Path, size: Size) -> dict[str, Any] | None:
    """All numbers of the second half; None if it was not begun.

    Raises:
        UserError: a stage is not done, or was run with other options.
    """
    every = tuning_stages(size, work)
    if not make_workspace(work, CACHE).record(every[0]):
        return None
    records = records_of(work, every)
    return {
        "machine": machine(),
        "made": records["scores"]["finished"],
        "versions": records["scores"]["versions"],
        "seconds": {name: record["seconds"] for name, record in records.items()},
        **tuning_results.gathered(size, work),
        "commands": {stage.name: [command.line() for command in stage.commands] for stage in every},
    }


def records_of(work: Path, every: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """The records of stages, by name.

    Raises:
        UserError: a stage is not done, or was run with other options.
    """
    workspace = make_workspace(work, CACHE)
    records = {stage.name: workspace.record(stage) for stage in every}
    raise_all(
        f"{work}: the stage {name} is not done; run.py goes on with it" for name, one in records.items() if not one
    )
    raise_all(
        f"{work}: the stage {stage.name} was run with other options than now; give the --size of the run, or let "
        "run.py bring it up to date"
        for stage in every
        if records[stage.name]["fingerprint"]["commands"] != workspace.placeless(stage)
    )
    return records


def audit_shares(report: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Of an audit's report: what was found, by name, with its share of the pairs."""
    detectors = report["detectors"]
    kept = ("share", "low", "high", "pairs")
    found = {
        "instruction or assistant": detectors["strict"],
        **detectors["by_detector"],
        **report["properties"],
        **report["duplicates"],
    }
    return {name: {key: one[key] for key in kept} for name, one in found.items()}


def as_markdown(size: str, found: Mapping[str, Any]) -> str:
    """The report to read."""
    licences = read_list(Path(__file__).with_name("packages.txt"))
    by_package = found["documents"]["by_package"]
    audits, machine_found, documents = found["audit"], found["machine"], found["documents"]
    names = [name for name in audits["chat"] if any(audits[one].get(name, {}).get("pairs") for one in SETS)]
    reports = ", ".join(f"[{name}]({folder}/report.md)" for name, folder in AUDITS.items())
    left_out = ", ".join(f"{count:,} {why}" for why, count in documents["left_out"].items())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    blocks = [
        "# Pairs from a teacher on this machine",
        f"Size `{size}`, finished {found['made']} on {machine_found['cpu']}, {machine_found['cores']} cores that did "
        f"other work, too; {versions}. Made by `examples/nid_small_scale/run.py`, this page by its `results.py`.",
        "## Documents",
        f"{documents['documents']:,} documents with {documents['words']:,} words, from {documents['files']:,} files; "
        f"left out: {left_out}.",
        table(("package", "documents", "licence"), ((p, n, licences.get(p, "–")) for p, n in by_package.items())),
        "## Pairs",
        "*chat*: the first half is the user's message, nothing else (the paper's way). *plain*: the same model goes on "
        "with the bare text, without the form of a chat. *second half*: the document's own.",
        _pairs_table(found),
        f"Second halves cut to the words of the chat's completions: {found['same_length']['completion_words']:,} words "
        f"in all. Nested subsets of the chat's pairs: {', '.join(map(str, found['subsets']['sizes']))}.",
        "## Audit",
        "Share of pairs with a finding (`nid audit`), with its 95 % interval; what was found nowhere is left out. The "
        f"whole reports: {reports}.",
        table(("", *SETS), ([name, *(_share(audits[one].get(name)) for one in SETS)] for name in names)),
        "## Chat against plain continuation",
        "The whole report: [comparison.md](comparison.md); some pairs: [sample-pairs.jsonl](sample-pairs.jsonl).",
        "## The same model, fine-tuned",
        "If the second half of the example was run: [tuning.md](tuning.md).",
        "## Commands",
        "```console\n" + "\n".join(f"$ {line}" for lines in found["commands"].values() for line in lines) + "\n```",
    ]
    return "\n\n".join(blocks) + "\n"


def _pairs_table(found: Mapping[str, Any]) -> str:
    seconds = found["asking_seconds"]
    rows = []
    for name, one in found["pairs"].items():
        means = [f"{one[key] / one['pairs']:,.1f}" for key in ("prompt_words", "completion_words")]
        tokens = [f"{one[key]:,}" if one[key] else "–" for key in ("prompt_tokens", "completion_tokens")]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in one["finish_reasons"].items())
        rows.append((name, f"{one['pairs']:,}", *means, *tokens, reasons, _seconds(seconds.get(name))))
    head = (
        "",
        "pairs",
        "words a prompt",
        "words a completion",
        "prompt tokens",
        "completion tokens",
        "ended by",
        "time",
    )
    return table(head, rows)


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f} min"


def _share(one: Mapping[str, float] | None) -> str:
    return "–" if one is None else f"{100 * one['share']:.1f} % ({100 * one['low']:.1f} to {100 * one['high']:.1f})"


def sample(work: Path, count: int) -> list[dict[str, Any]]:
    """Some pairs of the chat, with the licence of their documents, drawn by their prompts."""
    whole = origins(work)
    drawn: list[dict[str, Any]] = []
    for pair in sorted(
        read_pairs(str(work / SETS["chat"])), key=lambda one: hashlib.sha256(one.prompt.encode()).digest()
    ):
        source, licence = whole[pair.prompt]
        if may_be_shown(licence) and len(drawn) < count:
            drawn.append({"prompt": pair.prompt, "completion": pair.completion, "source": source, "licence": licence,
                          "teacher": pair.teacher, "finish_reason": pair.finish_reason})  # fmt: skip
    return drawn


def origins(work: Path) -> dict[str, tuple[str, str]]:
    """Source and licence of the document by its first half."""
    documents = [json.loads(line) for line in (work / "documents" / DOCUMENTS).open(encoding="utf-8")]
    licences = {document["text"]: (document["source"], document["licence"]) for document in documents}
    halves = [json.loads(line) for line in (work / "halves.jsonl").open(encoding="utf-8")]
    return {half["prompt"]: licences[half["prompt"] + half["second_half"]] for half in halves}


def may_be_shown(licence: str) -> bool:
    """Whether a document's licence is one of ``FREE``."""
    return any(name in licence for name in FREE)


def write_tuning(folder: Path, work: Path, size: Size, found: dict[str, Any], shown: int) -> None:
    """``tuning.md``, ``tuning.json`` and ``tuning.png``; texts only of documents that may be shown."""
    licences = origins(work)
    free = [n for n, prompt in enumerate(found["prompts"]) if may_be_shown(licences[prompt][1])]
    page = tuning_results.as_markdown(size, found, free[:shown])
    numbers = {name: value for name, value in found.items() if name not in ("prompts", "completions")}
    (folder / "tuning.md").write_text(page, encoding="utf-8", newline="\n")
    text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    for place, called in {str(gguf_file().parent): "MODEL", str(work): "WORK", str(ROOT): "."}.items():
        text = text if place == "." else text.replace(place, called)  # the model's package is not installed
    (folder / "tuning.json").write_text(text, encoding="utf-8", newline="\n")
    tuning_results.draw(size, found, folder / "tuning.png")


def write(folder: Path, work: Path, size: str, found: Mapping[str, Any], samples: int) -> None:
    """All files; where the run was made is called WORK in them."""
    places = {str(work): "WORK", str(ROOT): "."}
    texts = {REPORT: json.dumps(found, indent=1, ensure_ascii=False) + "\n", "report.md": as_markdown(size, found)}
    texts["comparison.md"] = (work / "comparison" / "report.md").read_text(encoding="utf-8")
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in sample(work, samples)]
    texts["sample-pairs.jsonl"] = "".join(lines)
    for name in AUDITS.values():
        (folder / name).mkdir()
        for path in sorted((work / name).iterdir()):
            if path.suffix == ".md":
                texts[f"{name}/{path.name}"] = path.read_text(encoding="utf-8")
            elif path.suffix == ".png":
                shutil.copyfile(path, folder / name / path.name)
    for name, text in texts.items():
        for place, called in places.items():
            text = text.replace(place, called)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 if the run is not complete or ``--out`` is there, 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--size", choices=list(SIZES), default="tiny", help="of the run (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder (default: results in --work)")
    parser.add_argument("--samples", type=int, default=5, metavar="N", help="pairs to show (default %(default)s)")
    args = parser.parse_args(argv)
    work, out = args.work.resolve(), args.out or args.work / "results"
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: is there already; remove it, or give another folder")
        size = SIZES[args.size]
        every = stages(size, work, cache=CACHE, download=True)
        found, after = gathered(work, every), tuned(work, size)
        with whole_folder(out, marker=REPORT) as folder:
            write(folder, work, args.size, found, args.samples)
            if after is not None:
                write_tuning(folder, work, size, after, args.samples)
    except UserError as error:
        print(f"results.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{out / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
