"""Scores, sample translations and speed from fairseq-generate's output and the plain test files."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

SPEED = re.compile(r"Translated ([\d,]+) sentences \(([\d,]+) tokens\) in ([\d.]+)s")


@dataclass(frozen=True)
class Generated:
    """What fairseq-generate printed: detokenised lines in the order of the input, and seconds inside the generator."""

    lines: list[str]
    seconds: float


def read_generated(log: Path) -> Generated:
    """Read the ``D-`` lines and the timing of a fairseq-generate log."""
    text = log.read_text(encoding="utf-8")
    found = {int(i): line for i, line in re.findall(r"^D-(\d+)\t[^\t\n]*\t(.*)$", text, flags=re.MULTILINE)}
    timing = SPEED.search(text)
    if sorted(found) != list(range(len(found))) or timing is None:
        raise SystemExit(f"{log}: not the complete output of fairseq-generate")
    return Generated([found[i] for i in range(len(found))], float(timing.group(3)))


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, split at newlines alone."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def main() -> None:
    """Print the report and write the translations."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("source", "reference", "generated", "batch1", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    source, reference = read_lines(args.source), read_lines(args.reference)
    batched, single = read_generated(args.generated), read_generated(args.batch1)
    if not len(source) == len(reference) == len(batched.lines) == len(single.lines):
        raise SystemExit("the numbers of source, reference and translated lines differ")
    args.output.write_text("".join(line + "\n" for line in batched.lines), encoding="utf-8")

    print("ten of the held-out lines (S source, R reference, T translation):\n")
    for i in range(0, len(source), max(1, len(source) // 10))[:10]:
        print(f"S {source[i]}\nR {reference[i]}\nT {batched.lines[i]}\n")
    for metric in (BLEU(), CHRF()):
        print(f"{metric.corpus_score(batched.lines, [reference])}\n  {metric.get_signature()}")
    count = len(source)
    print(
        f"speed: {count / batched.seconds:.0f} sentences/s in batches; at batch 1 {count / single.seconds:.0f} "
        f"sentences/s, {1000 * single.seconds / count:.1f} ms a sentence ({count} sentences, time in the model and "
        "collapse, without start-up)"
    )


if __name__ == "__main__":
    main()
