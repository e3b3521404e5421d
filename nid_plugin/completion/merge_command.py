"""``nid merge``: join the ledgers of shards into one."""

import argparse
import sys

SUMMARY = "Join ledgers, such as those of shards, into one ledger and one file of pairs."
EXAMPLE = "nid merge ledger-1 ledger-2 ledger-3 --into ledger --pairs pairs.jsonl"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "ledgers",
        nargs="+",
        metavar="LEDGER",
        help="folders of `nid complete --ledger`; no run may be going on in them",
    )
    parser.add_argument("--into", required=True, metavar="FOLDER", help="the new ledger; a run can go on with it")
    parser.add_argument("--pairs", metavar="FILE", help="where the pairs go (default: pairs.jsonl in the new ledger)")


def run(args: argparse.Namespace) -> None:
    """Join them."""
    from nid_plugin.completion.merging import merge

    for line in merge(args.ledgers, args.into, args.pairs):
        print(line, file=sys.stderr)
