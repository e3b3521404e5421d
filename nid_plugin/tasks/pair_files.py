"""Which files of pairs make up a split, and how often each is read."""

import re
from dataclasses import dataclass
from pathlib import Path

from plugin_common.errors import UserError, raise_all

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True)
class WeightedFile:
    """A file of pairs, each of which comes ``weight`` times an epoch."""

    path: Path
    weight: float = 1.0


def parse_files(text: str, option: str, *, weighted: bool = True) -> list[WeightedFile]:
    """``a.jsonl,b.jsonl@2.5`` → files with weights (1 where none is given).

    Args:
        text: see above.
        option: named in errors.
        weighted: whether weights are allowed.

    Raises:
        UserError: lists files that do not exist and weights that are no positive numbers.
    """
    files, problems = [], []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        name, found, number = part.rpartition("@")
        name, weight = (name, number) if found and not Path(part).exists() else (part, "1")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            problems.append(f"{option} {part}: expected a weight above 0 after the @, as in pairs.jsonl@2.5")
        if not Path(name).is_file():
            problems.append(f"{option} {part}: no such file: {name}")
        if not weighted and name != part:
            problems.append(f"{option} {part}: takes no weights; give the file without {part.removeprefix(name)}")
        files.append(WeightedFile(Path(name), value))
    if not files:
        problems.append(f"{option}: expected files of pairs with commas between them, as in a.jsonl,b.jsonl@2.5")
    raise_all(problems)
    return files


def numbered_splits(data: str, split: str) -> list[str]:
    """A split's name and those of its numbered continuations in the data folder: ``valid``, ``valid1``, ``valid2``."""
    name = re.compile(rf"{re.escape(split)}(\d*)(?:{'|'.join(map(re.escape, ENDINGS))})")
    found = [match for path in Path(data).glob(f"{split}*") if (match := name.fullmatch(path.name))]
    numbers = sorted({int(match[1]) for match in found if match[1]})
    return [split, *(f"{split}{number}" for number in numbers)]


def files_of_split(data: str, split: str) -> list[WeightedFile]:
    """The file of a split in the data folder.

    Raises:
        UserError: the folder or the file is missing, or there are two.
    """
    folder = Path(data)
    if not folder.is_dir():
        raise UserError(f"{data}: no such folder; give the folder that holds train.jsonl and valid.jsonl")
    there = [folder / f"{split}{ending}" for ending in ENDINGS if (folder / f"{split}{ending}").is_file()]
    if len(there) > 1:
        raise UserError(f"{data}: holds {' and '.join(path.name for path in there)}; keep one of them")
    if not there:
        option = {"train": ", or name files with --train-pairs", "valid": ", or name files with --valid-pairs"}
        raise UserError(
            f"{data}: has no {split}.jsonl (nor .jsonl.gz, .jsonl.zst); put the pairs there{option.get(split, '')}"
            + ("; --disable-validation trains without" if split == "valid" else "")
        )
    return [WeightedFile(there[0])]
