"""``nid control``: pairs whose completion is the document's own second half."""

import argparse

SUMMARY = "Make pairs whose completion is the document's own second half: the control without a teacher."
EXAMPLE = "nid control --halves ledger/halves.jsonl --like pairs.jsonl --out control.jsonl"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nid control``."""
    parser.add_argument(
        "--halves", required=True, metavar="FILE", help="documents with both halves: of nid halve, or a ledger's"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="pairs to write, one JSON object a line")
    parser.add_argument(
        "--like", metavar="PAIRS", help="the teacher's pairs: take exactly their documents, in their order"
    )
    parser.add_argument(
        "--match-length",
        action="store_true",
        help="with --like: cut a second half that has more words than the teacher's completion after as many words",
    )
    parser.set_defaults(wrong_use=parser.error)


def run(args: argparse.Namespace) -> None:
    """Write the pairs; tells what became of the documents."""
    if args.match_length and not args.like:
        args.wrong_use("--match-length goes with --like, whose completions it is about")
    from nid_plugin.controls.files import refuse_overwriting
    from plugin_common.atomic_file import clean_up_when_terminated

    refuse_overwriting(args.out, {"--halves": args.halves, "--like": args.like})
    with clean_up_when_terminated():
        if args.like is None:
            _write_all(args)
        else:
            _write_like(args)


def _write_all(args: argparse.Namespace) -> None:
    from nid_plugin.controls.files import at_least_one, tell
    from nid_plugin.controls.second_half import control_pair
    from nid_plugin.halving import read_halves
    from nid_plugin.pairs import write_pairs

    halves = at_least_one(read_halves(args.halves), f"--halves {args.halves}: holds no document")
    count = write_pairs(args.out, map(control_pair, halves))
    tell(f"{args.out}: {count:,} pairs, the completion of each is its document's second half", args.out)


def _write_like(args: argparse.Namespace) -> None:
    from nid_plugin.controls.by_prompt import by_prompt
    from nid_plugin.controls.files import at_least_one, folder_of, tell
    from nid_plugin.controls.second_half import ControlCounts, controls_like
    from nid_plugin.halving import Half, read_halves
    from nid_plugin.pairs import read_pairs, write_pairs

    counts = ControlCounts()
    teacher = at_least_one(read_pairs(args.like), f"--like {args.like}: holds no pair")
    with by_prompt(read_halves(args.halves), Half, folder_of(args.out)) as halves:
        write_pairs(args.out, controls_like(teacher, halves, counts, match_length=args.match_length))
        not_taken = len(halves)
    tell(f"{args.out}: {counts.pairs:,} pairs, in the order of {args.like}", args.out)
    if counts.without_document:
        tell(
            f"  {counts.without_document:,} pairs of {args.like} have no document in {args.halves}: left out", args.out
        )
    tell(f"  {not_taken:,} documents of {args.halves} have no pair in {args.like}: left out", args.out)
    if args.match_length:
        tell(
            f"  {counts.cut:,} second halves cut to the teacher's number of words, {counts.shorter:,} are shorter",
            args.out,
        )
    means = [f"{words / counts.pairs:,.1f}" for words in (counts.words, counts.teacher_words)]
    tell(f"  words a completion: {means[0]}, the teacher's {means[1]}", args.out)
