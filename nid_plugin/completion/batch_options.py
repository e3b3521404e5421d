"""Command-line options of the Batch API."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

from plugin_common.errors import raise_all

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
"""What OpenAI takes in one batch."""


@dataclass(frozen=True)
class BatchOptions:
    """How requests are put into batches.

    Attributes:
        requests: at most so many in one batch.
        size: bytes of its file, at most.
        at_once: so many batches may be under way.
        poll: seconds between two looks.
        wait: until all have ended; else leave after one look and what can be submitted.
        forget: give up the batches that are under way: their requests are asked again.
    """

    requests: int = MOST_REQUESTS
    size: int = MOST_BYTES
    at_once: int = 50
    poll: float = 60.0
    wait: bool = True
    forget: bool = False


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("batches")
    group.add_argument(
        "--batch", action="store_true", help="through the Batch API of OpenAI: half the price, within 24 hours"
    )
    group.add_argument(
        "--batch-requests",
        type=int,
        default=BatchOptions.requests,
        metavar="N",
        help="at most so many in one batch (default: %(default)s)",
    )
    group.add_argument(
        "--batch-bytes",
        type=int,
        default=BatchOptions.size,
        metavar="N",
        help="size of a batch's file at most (default: %(default)s)",
    )
    group.add_argument(
        "--batches-at-once",
        type=int,
        default=BatchOptions.at_once,
        metavar="N",
        help="so many batches may be under way; fewer and smaller ones where the endpoint limits the tokens that wait "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--batch-poll",
        type=float,
        default=BatchOptions.poll,
        metavar="SECONDS",
        help="between two looks at the batches (default: %(default)s)",
    )
    group.add_argument(
        "--batch-wait",
        action=argparse.BooleanOptionalAction,
        default=BatchOptions.wait,
        help="wait until the batches have ended; without it, submit and leave, and the same command collects later",
    )
    group.add_argument(
        "--forget-batches",
        action="store_true",
        help="give up batches that are under way; their requests are asked again, and may be paid again",
    )


def batch_options(args: argparse.Namespace) -> BatchOptions:
    """What the options say.

    Raises:
        UserError: lists what is wrong with them.
    """
    raise_all(_problems(args))
    return BatchOptions(
        requests=args.batch_requests,
        size=args.batch_bytes,
        at_once=args.batches_at_once,
        poll=args.batch_poll,
        wait=args.batch_wait,
        forget=args.forget_batches,
    )


def _problems(args: argparse.Namespace) -> Iterator[str]:
    for name, most in (("batch_requests", MOST_REQUESTS), ("batch_bytes", MOST_BYTES), ("batches_at_once", None)):
        value, option = getattr(args, name), "--" + name.replace("_", "-")
        if value < 1 or (most is not None and value > most):
            yield f"{option} {value}: 1 {'or more' if most is None else f'to {most}'} is expected"
    if not (args.batch_poll >= 0 and math.isfinite(args.batch_poll)):
        yield f"--batch-poll {args.batch_poll}: seconds, 0 or more, are expected"
    if args.batch and args.continue_length:
        yield (
            "--continue-length: a batch cannot continue an answer, for its requests are fixed beforehand; leave it out "
            "(0), or leave --batch out"
        )
