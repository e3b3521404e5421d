"""The stages of the run: documents, halves, the teacher's pairs, controls, comparison, audit."""

from pathlib import Path

from examples.nid_small_scale.documents import DOCUMENTS
from examples.nid_small_scale.serve import BASE_URL, MODEL
from examples.nid_small_scale.sizes import Size
from plugin_common.stages import Command, Stage

HERE = Path(__file__).resolve().parent
SEED = 1
CONCURRENCY = 8
SAMPLING = ("--temperature", "0.6", "--top-p", "0.9", "--teacher-seed", str(SEED))


def stages(size: Size, work: Path, *, cache: Path, download: bool) -> list[Stage]:
    """The stages of the first half, in order.

    Args:
        size: how much of everything.
        work: the folder of the run.
        cache: where Debian's packages are kept.
        download: fetch packages that are not there.
    """
    halves, pairs = work / "halves.jsonl", work / "pairs.jsonl"
    some_halves, text_pairs = work / "halves-text.jsonl", work / "pairs-text.jsonl"
    return [
        documents_stage(size, work, cache=cache, download=download),
        halves_stage("halves", size.pairs, work, halves),
        teacher_stage("teacher", "chat", size, halves, pairs),
        halves_stage("halves-text", size.text_pairs, work, some_halves),
        teacher_stage("teacher-text", "completions", size, some_halves, text_pairs),
        *control_stages(work, halves, pairs),
        subsets_stage(size, work, pairs),
        comparison_stage(work, halves, pairs, text_pairs),
        audit_stage("audit", "looks for instructions and more in the pairs", work, halves, pairs),
        audit_stage("audit-text", "the same for the pairs without a chat", work, halves, text_pairs),
        audit_stage("audit-control", "the same for the second halves", work, halves, work / "control.jsonl"),
    ]


def documents_stage(size: Size, work: Path, *, cache: Path, download: bool) -> Stage:
    """Documents of prose."""
    least, most = map(str, size.words)
    words = ("python", str(HERE / "documents.py"), "--source", size.source, "--out", str(work / "documents"))
    limits = ("--least-words", least, "--most-words", most, "--seed", str(SEED))
    how = ("--cache", str(cache), *(() if download else ("--no-download",)))
    return Stage(
        "documents",
        "documents of prose",
        ((Command((*words, *limits), how),),),
        outputs=(work / "documents",),
        inputs=tuple(HERE / name for name in ("documents.py", "prose.py", "packages.txt")),
    )


def halves_stage(name: str, count: int, work: Path, output: Path) -> Stage:
    """So many documents, drawn and halved; with one seed, fewer are among more."""
    documents = work / "documents" / DOCUMENTS
    draw = ("--sample", str(count), "--seed", str(SEED), "--drop-near-duplicates")
    command = Command(("nid", "halve", str(documents), *draw, "--out", str(output)))
    return Stage(name, f"{count:,} documents, halved", ((command,),), outputs=(output,), inputs=(documents,))


def teacher_stage(name: str, api: str, size: Size, halves: Path, output: Path) -> Stage:
    """The teacher's completions, served on loopback as long as it takes; a run that was stopped goes on.

    By ``chat`` the first half is a user's message, as it stands: the paper's way. By ``completions`` the model goes
    on with the bare text, without the form of a chat: another teacher on the same prompts.
    """
    ledger = output.with_name(f"ledger-{api}")
    asked = ("--halves", str(halves), "--base-url", BASE_URL, "--model", MODEL, "--price", "0", "0")
    settings = ("--api", api, "--max-tokens", str(size.max_tokens), *SAMPLING)
    kept = ("--ledger", str(ledger), "--pairs", str(output))
    command = Command(
        ("python", str(HERE / "serve.py"), "--", "nid", "complete", *asked, *settings, *kept),
        how=("--concurrency", str(CONCURRENCY)),
    )
    return Stage(
        name,
        f"{MODEL} completes the first halves (/{api})",
        ((command,),),
        outputs=(output, ledger),
        inputs=(halves,),
        long=True,
        shown=lambda line: line.strip() or None,
    )


def control_stages(work: Path, halves: Path, pairs: Path) -> list[Stage]:
    """The documents' own second halves, whole and as long as the teacher's completions."""
    like = ("nid", "control", "--halves", str(halves), "--like", str(pairs))
    whole, cut = work / "control.jsonl", work / "control-same-length.jsonl"
    commands = (Command((*like, "--out", str(whole))), Command((*like, "--match-length", "--out", str(cut))))
    return [
        Stage(
            "control",
            "the second halves as completions",
            tuple((command,) for command in commands),
            outputs=(whole, cut),
            inputs=(halves, pairs),
            shown=lambda line: line if not line.startswith("$") else None,
        )
    ]


def subsets_stage(size: Size, work: Path, pairs: Path) -> Stage:
    """Nested subsets of the pairs."""
    sizes = ("--sizes", *map(str, size.subsets), "--seed", str(SEED))
    command = Command(("nid", "subset", str(pairs), *sizes, "--out", str(work / "subsets")))
    return Stage("subsets", "nested subsets", ((command,),), outputs=(work / "subsets",), inputs=(pairs,))


def comparison_stage(work: Path, halves: Path, pairs: Path, other: Path) -> Stage:
    """The model as a chat and as a plain continuation of the text."""
    words = ("nid", "compare", str(pairs), str(other), "--halves", str(halves), "--out", str(work / "comparison"))
    inputs = (halves, pairs, other)
    return Stage(
        "compare",
        "chat against plain continuation",
        ((Command(words),),),
        outputs=(work / "comparison",),
        inputs=inputs,
    )


def audit_stage(name: str, purpose: str, work: Path, halves: Path, pairs: Path) -> Stage:
    """The audit's report."""
    command = Command(("nid", "audit", str(pairs), "--halves", str(halves), "--report", str(work / name)))
    return Stage(name, purpose, ((command,),), outputs=(work / name,), inputs=(halves, pairs))
