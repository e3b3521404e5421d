"""The options of the reproductions: read, and checked all at once."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from plugin_common.errors import raise_all
from scripts.common.request_options import (
    PRECISIONS,
    SCALES,
    Request,
    add_stage_options,
    check_work,
    cores,
    device_name,
    extra_options,
    gpus_to_use,
    looks_like_missing_folder,
    new_parser,
    selected_stages,
    unknown_values,
    whole_number,
)
from scripts.nat.pipeline import ROOT, Choices, stages
from scripts.nat.recipes import RECIPES, tiny
from scripts.nat.training import Machine, least_gpu_tokens

DATA = ("distilled", "raw", "mixed")


def parser() -> argparse.ArgumentParser:
    """The command line. Values are checked by :func:`request`, so that all that is wrong is told at once."""
    made = new_parser(
        "From nothing to a BLEU with its signature: download, clean, prune, tokenise, train the autoregressive "
        "baseline, distil, train the one-pass model, translate, score, time.",
        "  scripts/nat/wmt16_enro.sh --dry-run\n  scripts/nat/wmt16_enro.sh --work runs/enro --gpus 8",
        RECIPES,
    )
    made.add_argument("--work", metavar="DIR", help="where everything goes (default: runs/REPRODUCTION)")
    made.add_argument("--gpus", metavar="N", help="GPUs to use; 0 is the CPU (default: all that are there)")
    made.add_argument(
        "--gpu-tokens",
        default="12288",
        metavar="N",
        help="most tokens at once on a GPU, in training and translating; larger batches are accumulated over several "
        "steps (default: %(default)s)",
    )
    made.add_argument(
        "--pmlm",
        default="FacebookAI/xlm-roberta-base",
        metavar="NAME-OR-FOLDER",
        help="masked LM to start from (default: %(default)s)",
    )
    made.add_argument("--data", default="distilled", help=f"{' | '.join(DATA)}: training data (default: %(default)s)")
    made.add_argument("--precision", help=f"{' | '.join(PRECISIONS)} (default: fp16 on GPUs, fp32 on the CPU)")
    made.add_argument("--seed", default="1", metavar="N", help="of both trainings (default: %(default)s)")
    made.add_argument("--scale", default="full", help="full, or tiny: the same commands in minutes (default: full)")
    source = made.add_argument_group("where the archives come from")
    source.add_argument("--mirror", metavar="URL-OR-FOLDER", help="instead of their publishers")
    source.add_argument("--archives", metavar="DIR", help="keeps them; may be shared (default: archives in --work)")
    source.add_argument("--checksums", metavar="FILE", help="of archives that are not the published ones")
    add_stage_options(made, setting="nat-train.lr=1e-4")
    return made


def request(argv: Sequence[str]) -> Request[Choices]:
    """What a command line asks for.

    Raises:
        UserError: everything that is wrong with it.
    """
    args, unknown = parser().parse_known_args(argv)
    problems = [f"{word}: no such option; --help lists them" for word in unknown]
    problems += unknown_values(
        [
            ("reproduction", args.reproduction, RECIPES),
            ("--data", args.data, DATA),
            ("--precision", args.precision or "fp32", PRECISIONS),
            ("--scale", args.scale, SCALES),
        ]
    )
    gpus = gpus_to_use(args.gpus, problems)
    if args.precision == "fp16" and gpus == 0:
        problems.append("--precision fp16: only for GPUs; on the CPU give bf16 or fp32")
    seed = whole_number("--seed", args.seed, 0, problems)
    work = Path(args.work) if args.work else ROOT / "runs" / args.reproduction
    _check_places(args, work, problems)
    recipe = RECIPES.get(args.reproduction, next(iter(RECIPES.values())))
    least = least_gpu_tokens(recipe, distilled=args.data != "raw")
    room = f": twice the longest training pair's, so that it fits into any share of an update ({least // 2:,} tokens)"
    gpu_tokens = whole_number("--gpu-tokens", args.gpu_tokens, least, problems, instead=least, why=room)
    folder = Path(args.pmlm)
    choices = Choices(
        recipe=tiny(recipe) if args.scale == "tiny" else recipe,
        work=work.resolve(),
        machine=Machine(gpus, gpu_tokens, cores(), args.precision or ("fp16" if gpus else "fp32")),
        pmlm=str(folder.resolve()) if folder.is_dir() else args.pmlm,
        data=args.data,
        seed=seed,
        device=device_name(gpus),
        mirror=str(Path(args.mirror).resolve()) if args.mirror and Path(args.mirror).is_dir() else args.mirror,
        archives=Path(args.archives).resolve() if args.archives else None,
        checksums=Path(args.checksums).resolve() if args.checksums else None,
        extra=extra_options(args.set, problems),
    )
    names = [stage.name for stage in stages(choices)]
    selected = selected_stages(args, names, choices.extra or {}, problems)
    raise_all(problems)
    return Request(choices, args.scale, selected, tuple(args.redo), args.dry_run)


def _check_places(args: argparse.Namespace, work: Path, problems: list[str]) -> None:
    check_work(work, problems)
    if looks_like_missing_folder(args.pmlm):
        problems.append(f"--pmlm {args.pmlm}: no such folder; give a masked LM's folder or its name on the hub")
    if args.mirror and "://" not in args.mirror and not Path(args.mirror).is_dir():
        problems.append(f"--mirror {args.mirror}: no such folder; give a folder or a URL that starts with https://")
    if args.checksums and not Path(args.checksums).is_file():
        problems.append(f"--checksums {args.checksums}: no such file; sha256sum ARCHIVE… > FILE makes it")
