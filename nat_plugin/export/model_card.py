"""The model card of an export folder: what it is, how good, how large, how to run it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nat_plugin.export.checks import Outcome
from nat_plugin.export.folder import Settings, sha256


def model_card(
    settings: Settings,
    facts: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    evaluated_on: str,
    files: Sequence[Path],
    about: str | None,
) -> str:
    """Markdown.

    Args:
        facts: ``checkpoint``, ``parameters``, ``updates``, ``model_type``, ``versions``.
        outcomes: fairseq's first; evaluated_on: the name of the sentences.
        files: those of the folder; about: the user's own text on data, licence and purpose.
    """
    languages = f"{settings.source_lang or '?'} → {settings.target_lang or '?'}"
    told = about.strip() if about else "(Not told. `nat export --about FILE` puts a text here: training data, licence.)"
    sections = [
        f"# One-pass translator {languages}",
        "A masked language model that translates in one forward pass: the source is made longer with MASKs, every "
        "position emits one label or a blank (CTC), repeats are merged and blanks dropped.",
        "## Training data, licence, purpose\n\n" + told,
        "## Run it\n\nIn the repository of fairseq-onepass, whose command `nat` is:\n\n```console\n$ pip install "
        "onnxruntime tokenizers numpy && pip install --no-deps .\n$ nat translate FOLDER < lines.txt\n```\n"
        "\n`from nat_plugin.export import Translator` does the same in Python. Neither torch nor fairseq is needed.",
        "## Scores\n\n" + _scores(outcomes, evaluated_on),
        "## Files\n\n" + _files(files),
        "## Settings\n\n" + _settings(settings, facts),
    ]
    return "\n\n".join(sections) + "\n"


def _scores(outcomes: Sequence[Outcome], evaluated_on: str) -> str:
    rows = [["model", "sentences", "same tokens as fairseq", "BLEU", "chrF2"]]
    for one in outcomes:
        same = "" if one.precision == "fairseq" else f"{one.equal:,}"
        bleu, chrf = ("" if value is None else f"{value:.2f}" for value in (one.bleu, one.chrf))
        rows.append([one.precision, f"{one.sentences:,}", same, bleu, chrf])
    signature = next((one.signature for one in outcomes if one.signature), None)
    return f"On {evaluated_on}.\n\n{_table(rows)}" + (f"\n\nsacreBLEU: `{signature}`" if signature else "")


def _files(files: Sequence[Path]) -> str:
    rows = [["file", "MB", "SHA-256"]]
    rows += [[file.name, f"{file.stat().st_size / 1e6:.1f}", f"`{sha256(file)}`"] for file in files]
    return _table(rows)


def _settings(settings: Settings, facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    rows = [
        ["setting", "value"],
        ["checkpoint", f"{facts['checkpoint']}, {facts['updates'] or '?'} updates"],
        ["model", f"{facts['model_type']}, {facts['parameters']:,} parameters, {settings.symbols:,} symbols"],
        ["up-sampling", f"{settings.upsampler}, ratio {settings.ratio:g}, placement {settings.placement}"],
        ["longest input", f"{settings.positions} positions after up-sampling; longer sources are cut"],
        ["made with", versions],
    ]
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
