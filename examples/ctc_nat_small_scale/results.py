"""Tables and figures of a reproduction, from its runs' own files: results.json, results.md, figures/.

python results.py --work runs/ctc-nat --size cpu
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # by path: this folder's modules must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parents[1]), *(path for path in sys.path if Path(path).resolve() != here)]

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from examples.ctc_nat_small_scale import tables
from examples.ctc_nat_small_scale.bootstrap import Bootstrap
from examples.ctc_nat_small_scale.claims import Finding, SpeedFinding, findings, overall, speed_findings
from examples.ctc_nat_small_scale.diagnosis import Diagnosis, bucket_members, diagnoses, samples
from examples.ctc_nat_small_scale.grid import BASELINE, DECODINGS, expected
from examples.ctc_nat_small_scale.result_figures import draw_all, read_pretraining, read_speed
from examples.ctc_nat_small_scale.runs_read import Runs, read_runs
from examples.ctc_nat_small_scale.sizes import SIZES
from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError
from plugin_common.quiet_logging import warnings_only


@dataclass(frozen=True)
class Results:
    """All that the report says.

    ``figures``: title → file; ``facts``: on text and pretraining; ``notes``: what was left out, and why.
    """

    size: str
    runs: Runs
    findings: list[Finding]
    speed: list[SpeedFinding]
    diagnoses: dict[str, list[Diagnosis]]
    samples: dict[str, list[dict[str, Any]]]
    figures: dict[str, str]
    facts: list[str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        runs = self.runs
        names = {BASELINE: ("beam5", "beam1")}
        return {
            "size": self.size,
            "signatures": signatures(runs),
            "rows": [
                asdict(tables.summarise(runs, direction, row, name))
                for direction in runs.directions()
                for row in runs.rows(direction)
                for name in names.get(row, DECODINGS)
                if runs.expected_seeds(direction, row, name)
            ],
            "missing": ["/".join(map(str, key)) for key in runs.missing()],
            "claims": [one.as_dict() for one in self.findings],
            "speed": [asdict(one) for one in self.speed],
            "diagnosis": {name: [one.as_dict() for one in found] for name, found in self.diagnoses.items()},
            "samples": self.samples,
            "figures": self.figures,
            "facts": self.facts,
            "notes": self.notes,
        }


def collect(work: Path, size: str, output: Path) -> Results:
    """Read, compare and draw.

    Raises:
        UserError: broken files in the working folder, or an output folder that cannot be written.
    """
    runs = read_runs(work, expected(size))
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be made ({error.strerror}); give another folder") from error
    found = findings(runs, Bootstrap(output / ".bootstrap.json"))
    notes = []
    unchecked = sum(not one.recomputed for one in runs.evaluations.values())
    if unchecked:
        notes.append(f"{unchecked} scores were computed by another sacreBLEU than the installed one and not checked")
    speed = None
    try:
        speed = read_speed(work / "results" / "speed.json")
    except UserError as error:
        notes.append(f"Speed against BLEU: {error}")
    with warnings_only("matplotlib", "PIL", "fairseq"):
        figures, left_out = draw_all(runs, output / "figures", speed)
    return Results(
        size,
        runs,
        found,
        speed_findings(speed["trained"]) if speed else [],
        {direction: diagnoses(runs, direction) for direction in runs.directions()},
        {direction: samples(runs, direction) for direction in runs.directions()},
        {title: str(path.relative_to(output)) for title, path in figures.items()},
        [*text_facts(work / "data" / "corpora" / "report.json"), *pretraining_facts(work / "pmlm" / "loss.jsonl")],
        [*notes, *left_out],
    )


def signatures(runs: Runs) -> Mapping[str, str]:
    """Score → sacreBLEU's signature, the same for all evaluations."""
    return next((one.signatures for one in runs.evaluations.values()), {})


def text_facts(file: Path) -> list[str]:
    """A sentence on the parallel text, where its report is there.

    Raises:
        UserError: it is not what corpora.py writes.
    """
    if not file.is_file():
        return []
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        counts = {
            pair: " / ".join(f"{splits[name]['kept']:,}" for name in ("train", "valid", "test"))
            for pair, splits in told["pairs"].items()
        }
        listed = "; ".join(f"{pair}: {three}" for pair, three in counts.items())
        words = f"at most {told['most_words']} words a side" if told["most_words"] else "sentences of any length"
        return [f"Text: {told['source']}, {words}; pairs of training / validation / test: {listed}."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a report of corpora.py ({error!r}); make the corpus again") from error


def pretraining_facts(curve: Path) -> list[str]:
    """A sentence on the masked LM's pretraining, where its curve is there.

    Raises:
        UserError: it is not what pretrain.py writes.
    """
    records = read_pretraining(curve) if curve.is_file() else []
    last = {name: one[name] for one in records for name in ("update", "tokens", "seconds", "valid_loss") if name in one}
    if not {"update", "seconds", "valid_loss"} <= set(last):
        return []
    tokens = f", {last['tokens']:,} tokens" if "tokens" in last else ""
    return [
        f"Pretraining of the masked LM: {last['update']:,} updates{tokens}, {last['seconds'] / 60:.1f} minutes, "
        f"validation loss {last['valid_loss']:.2f} nats a masked token; made once, and not in the minutes of the rows."
    ]


def report(results: Results) -> str:
    """The whole report as Markdown."""
    runs, directions = results.runs, results.runs.directions()
    parts = ["# CTC translation from a pretrained masked LM: results", *_opening(results)]
    parts += ["## Claims", tables.claim_table(results.findings, directions), tables.claim_notes(results.findings)]
    parts += ["### What they rest on", tables.evidence_table(results.findings)]
    parts.append("## Scores by row")
    for direction in directions:
        summaries = [tables.summarise(runs, direction, row) for row in runs.rows(direction)]
        parts += [f"### {direction}", tables.score_table(summaries)]
    parts.append("## Ways to decode")
    for direction in directions:
        if shown := tables.decoding_table(runs, direction):
            parts += [f"### {direction}", shown]
    parts += ["## Speed", tables.speed_table(results.speed) if results.speed else "Not measured."]
    if results.speed:
        parts.append(
            "Same text and threads, sentences a second; *holds*: our slowest turn beats the other's fastest one."
        )
    parts += _diagnosis(results)
    parts.append("## Figures")
    parts += [f"### {title}\n\n![{title}]({file})" for title, file in results.figures.items()]
    parts.append("## Sample translations")
    parts.append(
        "Test sentences of 5 to 20 words drawn with a fixed seed, not chosen; first training seed of each row."
    )
    for direction, found in results.samples.items():
        parts += [f"### {direction}"] * bool(found) + [tables.sample_table(sample) for sample in found]
    parts += ["## Left out", "\n".join(f"- {tables.cell_text(note)}" for note in results.notes) or "Nothing."]
    return "\n\n".join(parts) + "\n"


def _opening(results: Results) -> list[str]:
    missing, wanted = results.runs.missing(), len(results.runs.expected_keys())
    listed = [tables.missing_list(missing)] if missing else []
    signed = "; ".join(f"{name} `{signature}`" for name, signature in signatures(results.runs).items())
    return [
        f"Size `{results.size}`. Made by results.py from the runs' own files; paths of logs are relative to the "
        "working folder. Models are averages of their best 5 checkpoints, scores those of detokenised test text.",
        f"Signatures: {signed}." if signed else "There is no evaluation yet.",
        *results.facts,
        f"Evaluations: {wanted - len(missing)} of {wanted} that this size asks for; missing: {len(missing)}.",
        *listed,
    ]


def _diagnosis(results: Results) -> list[str]:
    parts = [
        "## Lengths, repeats, empty lines",
        "Means over the seeds. Length ratio: tokens of the translations by those of the references. Repeated word: "
        "share of lines that hold a word twice running. Infeasible: validation targets that do not fit the up-sampled "
        "source. The last columns are BLEU / chrF2 of the sentences with so many source words.",
    ]
    for direction, found in results.diagnoses.items():
        if found:
            members = [len(one) for one in bucket_members(results.runs.texts[direction].source)]
            parts += [f"### {direction}", tables.diagnosis_table(found, members)]
    return parts


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on bad input, 2 for wrong use, 130 when interrupted."""
    args = _parser().parse_args(argv)
    output: Path = args.output or args.work / "results"
    try:
        results = collect(args.work, args.size, output)
        content = {"results.json": json.dumps(results.as_dict(), indent=1, ensure_ascii=False) + "\n",
                   "results.md": report(results)}  # fmt: skip
        for name, text in content.items():
            with atomic_output(str(output / name)) as stream:
                stream.write(text.encode("utf-8"))
    except UserError as error:
        print(f"results.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("results.py: interrupted; comparisons that were made are kept", file=sys.stderr)
        return 130
    for claim in dict.fromkeys(one.claim for one in results.findings):
        said = [one for one in results.findings if one.claim == claim]
        print(f"{claim.text}: {overall(one.verdict for one in said)}")
        for one in (one for one in said if one.pairs):
            against = f"; but {'; '.join(one.cautions)}" if one.cautions else ""
            print(f"  {one.direction}: {one.verdict}, {one.delta:+.2f} BLEU, seeds compared: {len(one.pairs)}{against}")
    for note in results.notes:
        print(f"left out: {note}", file=sys.stderr)
    print(f"{output}: results.md, results.json, {len(results.figures)} figures; missing: {len(results.runs.missing())} "
          f"of {len(results.runs.expected_keys())} evaluations")  # fmt: skip
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the reproduction's folder")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="what is expected (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="gets the report (default: results in --work)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
