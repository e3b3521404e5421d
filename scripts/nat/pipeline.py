"""From nothing to a BLEU with its signature: the stages of a reproduction."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plugin_common.stages import Command, Stage, Workspace
from scripts.nat import training
from scripts.nat.given_options import with_options
from scripts.nat.recipes import Baseline, OnePass, Recipe
from scripts.nat.training import Languages, Machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SPLITS = ("train", "valid", "test")
SHARDS_FOLDER = "shards"  # nat distill's


@dataclass(frozen=True)
class Choices:
    """What the user chose.

    Attributes:
        recipe: scaled already.
        work: folder of the run.
        machine: what it runs on.
        pmlm: folder of a masked LM, or its name on the hub.
        data: ``raw``, ``distilled`` or ``mixed``: what the one-pass model is trained on.
        seed: of both trainings.
        device: name of the processor or GPU; the speed is that of it.
        mirror, archives, checksums: as for ``nat download``.
        extra: by stage, options that are added to its commands.
    """

    recipe: Recipe
    work: Path
    machine: Machine
    pmlm: str
    data: str = "distilled"
    seed: int = 1
    device: str = ""
    mirror: str | None = None
    archives: Path | None = None
    checksums: Path | None = None
    extra: Mapping[str, Sequence[str]] | None = None

    @property
    def languages(self) -> Languages:
        """The direction."""
        return Languages(self.recipe.source_lang, self.recipe.target_lang)

    @property
    def variant(self) -> str:
        """The training data, unless it is what is usual; the one-pass models of several share all else in a folder."""
        return "" if self.data == "distilled" else self.data

    def folder(self, name: str) -> Path:
        """A folder of this variant's own."""
        return self.work / (f"{name}-{self.variant}" if self.variant else name)


def workspace(choices: Choices) -> Workspace:
    """The run's folder; neither its place nor that of the project or of a PMLM folder matters."""
    folders = {ROOT: "PROJECT", Path(sys.executable).parent: "BIN"}
    if Path(choices.pmlm).is_dir():
        folders[Path(choices.pmlm)] = "PMLM"
    return Workspace(choices.work, folders)


def stages(choices: Choices) -> list[Stage]:
    """All stages in order, with ``choices.extra`` added to the commands of the stages that it names."""
    made = [*_text(choices), *_baseline(choices), *_distilled(choices), *_one_pass(choices), *_figures(choices)]
    extra = choices.extra or {}
    made = [with_options(stage, extra[stage.name]) if stage.name in extra else stage for stage in made]
    first = [stage.name for stage in made].index("nat-train")
    return [*made[:first], *(replace(stage, variant=choices.variant) for stage in made[first:])]


def _files(folder: Path, languages: Languages, splits: Sequence[str] = SPLITS) -> tuple[Path, ...]:
    return tuple(folder / f"{split}.{side}" for split in splits for side in (languages.source, languages.target))


def _one(*commands: Command) -> tuple[tuple[Command, ...], ...]:
    """Steps of one command each."""
    return tuple((command,) for command in commands)


# ---- text ------------------------------------------------------------------------------------------------------------


def _text(choices: Choices) -> list[Stage]:
    """From the archives to fairseq's binary form."""
    work, languages = choices.work, choices.languages
    raw, clean, pmlm, pieces = work / "raw", work / "clean", work / "pmlm", work / "pieces"
    splits = ("train", "test") if choices.recipe.dataset == "iwslt14" else SPLITS  # its valid is taken from train
    workers = ("--workers", str(choices.machine.workers))
    source = [("--mirror", choices.mirror), ("--archives", choices.archives or work / "archives")]
    source += [("--checksums", choices.checksums)]
    download = Command(
        ("nat", "download", choices.recipe.dataset, *languages.options, "--output", str(raw)),
        tuple(str(word) for option in source if option[1] for word in option),
    )
    limit = ("--train-pairs", str(choices.recipe.train_pairs)) if choices.recipe.train_pairs else ()
    cleaned = Command(
        ("python", str(HERE / "clean.py"), choices.recipe.dataset, *languages.options, "--raw", str(raw),
         "--output", str(clean), *limit),
        workers,
    )  # fmt: skip
    prune = Command(
        ("nat", "prepare-pmlm", "--pmlm", choices.pmlm, "--control-characters", "space", "--corpus",
         *map(str, _files(clean, languages, ("train",))), "--output", str(pmlm)),
    )  # fmt: skip
    tokenize = Command(
        ("nat", "tokenize", "--pmlm", str(pmlm), *languages.options, "--control-characters", "space",
         *_prefixes(clean), "--destdir", str(pieces)),
        workers,
    )  # fmt: skip
    drop = Command(
        ("python", str(HERE / "drop_long.py"), "--prefix", str(pieces / "train"), *languages.options,
         "--most", str(choices.recipe.most_pieces)),
    )  # fmt: skip
    model = (Path(choices.pmlm),) if Path(choices.pmlm).is_dir() else ()
    tokenizer = tuple(pmlm / name for name in ("tokenizer.json", "dict.txt", "config.json"))
    return [
        # Only nat download knows whether the text there is that of the archives that --checksums demands.
        Stage("download", "the benchmark's archives, as plain text", _one(download), (raw,), self_checking=True),
        Stage(
            "clean", "normalise and filter as the literature does", _one(cleaned), (clean,),
            _files(raw, languages, splits),
        ),
        Stage(
            "prune", "cut the PMLM down to the pieces of the training text", _one(prune), (pmlm,),
            (*_files(clean, languages, ("train",)), *model),
        ),
        Stage("tokenize", "text → pieces", _one(tokenize, drop), (pieces,), (*_files(clean, languages), *tokenizer)),
        _preprocess(choices, "preprocess", "pieces → numbers", pieces, work / "data-bin", SPLITS),
    ]  # fmt: skip


def _prefixes(folder: Path, splits: Sequence[str] = SPLITS, train: Path | None = None) -> list[str]:
    words = []
    for split in splits:
        words += [f"--{split}pref", str((train if train and split == "train" else folder) / split)]
    return words


def _preprocess(choices: Choices, name: str, purpose: str, train: Path, output: Path, splits: Sequence[str]) -> Stage:
    """``fairseq-preprocess`` with the PMLM's dictionary; validation and test are always real text."""
    languages, pieces, dictionary = choices.languages, choices.work / "pieces", choices.work / "pmlm" / "dict.txt"
    words = (
        "fairseq-preprocess", *languages.options, *_prefixes(pieces, splits, train), "--srcdict", str(dictionary),
        "--tgtdict", str(dictionary), "--destdir", str(output),
    )  # fmt: skip
    inputs = (*_files(train, languages, ("train",)), *_files(pieces, languages, splits[1:]), dictionary)
    return Stage(name, purpose, _one(Command(words, ("--workers", str(choices.machine.workers)))), (output,), inputs)


# ---- models ----------------------------------------------------------------------------------------------------------


def _train_and_average(
    name: str, purpose: str, train: Command, folder: Path, inputs: tuple[Path, ...], settings: Baseline | OnePass
) -> list[Stage]:
    checkpoints, model = folder / "checkpoints", folder / "model.pt"
    average = training.average(checkpoints, settings.best, model)
    return [
        Stage(
            f"{name}-train", f"train {purpose}", _one(train), (checkpoints,), inputs,
            {"tokens an update": settings.tokens}, long=True, shown=training.validation_line,
        ),
        Stage(f"{name}-average", f"average its best {settings.best}", _one(average), (model,), (checkpoints,)),
    ]  # fmt: skip


def _baseline(choices: Choices) -> list[Stage]:
    work, settings, data = choices.work, choices.recipe.baseline, choices.work / "data-bin"
    longest = training.longest_pair(choices.recipe, distilled=False)
    train = training.train_baseline(
        settings, choices.languages, choices.machine,
        longest=longest, data=data, save=work / "at/checkpoints", seed=choices.seed,
    )  # fmt: skip
    purpose = "the autoregressive baseline" + training.left_out(choices.machine, settings.tokens, longest)
    model = _train_and_average("at", purpose, train, work / "at", (data,), settings)
    log = work / "at/test.log"
    translate = training.translate_baseline(
        choices.recipe, choices.languages, choices.machine,
        data=data, pmlm=work / "pmlm", model=work / "at/model.pt", log=log,
    )  # fmt: skip
    return [*model, _generate(choices, "at", work / "at", translate, log)]


def _distilled(choices: Choices) -> list[Stage]:
    """The training source, decoded by the baseline (Kim and Rush, 2016)."""
    if choices.data == "raw":
        return []
    work, languages, data = choices.work, choices.languages, choices.work / "data-bin"
    folder, model, shards = work / "distill", work / "at/model.pt", work / "distill" / SHARDS_FOLDER
    decode = training.distill(choices.recipe, languages, choices.machine, data=data, model=model, output=folder)
    merge = training.merge(languages, data=data, output=folder)
    distilled = _files(folder, languages, ("train",))
    made = [
        Stage("distill", "decode the training source", (decode,), (shards,), (data, model), long=True),
        Stage("merge", "put the shards together", _one(merge), distilled, (data, shards)),
    ]
    if choices.data == "mixed":
        raw, folder = _files(work / "pieces", languages, ("train",)), choices.folder("distill")
        mixed = _files(folder, languages, ("train",))
        join = [Command(("cat", str(a), str(b)), output=c) for a, b, c in zip(raw, distilled, mixed, strict=True)]
        made.append(Stage("mix", "the raw pairs, then the distilled ones", _one(*join), mixed, (*raw, *distilled)))
    numbers = _preprocess(
        choices, "preprocess-distilled", "pieces → numbers", folder, work / f"data-bin-{choices.data}", SPLITS[:2]
    )
    return [*made, replace(numbers, variant=choices.variant)]


def _one_pass(choices: Choices) -> list[Stage]:
    work, settings, pmlm, folder = choices.work, choices.recipe.one_pass, choices.work / "pmlm", choices.folder("nat")
    data = work / ("data-bin" if choices.data == "raw" else f"data-bin-{choices.data}")
    longest = training.longest_pair(choices.recipe, distilled=choices.data != "raw")
    train = training.train_one_pass(
        settings, choices.languages, choices.machine,
        longest=longest, data=data, pmlm=pmlm, save=folder / "checkpoints", seed=choices.seed,
    )  # fmt: skip
    purpose = f"the one-pass model on {choices.data} data" + training.left_out(
        choices.machine, settings.tokens, longest
    )
    model = _train_and_average("nat", purpose, train, folder, (data, pmlm), settings)
    log = folder / "test.log"
    translate = training.translate_one_pass(
        choices.recipe, choices.languages, choices.machine,
        data=work / "data-bin", pmlm=pmlm, model=folder / "model.pt", log=log,
    )  # fmt: skip
    return [*model, _generate(choices, "nat", folder, translate, log)]


def _generate(choices: Choices, name: str, folder: Path, translate: Command, log: Path) -> Stage:
    """Translate the test set and put the lines back in order."""
    work, target = choices.work, choices.recipe.target_lang
    reference, text = work / "raw" / f"test.{target}", folder / f"test.{target}"
    order = Command(
        ("python", str(HERE / "hypotheses.py"), "--log", str(log), "--like", str(reference), "--output", str(text))
    )
    inputs = (work / "data-bin", folder / "model.pt", work / "pmlm/tokenizer.json", reference)
    return Stage(
        f"{name}-generate",
        "translate the test set",
        _one(translate, order),
        (log, log.with_suffix(".err"), text),
        inputs,
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


def score_files(choices: Choices) -> dict[str, Path]:
    """By system, ``at`` and ``nat``: the scores as JSON."""
    return {name: choices.folder("scores") / f"{name}.json" for name in ("at", "nat")}


def _figures(choices: Choices) -> list[Stage]:
    """Scores of both systems, then their speed, all measured one after the other on the same machine."""
    work, target = choices.work, choices.recipe.target_lang
    reference = work / "raw" / f"test.{target}"
    folders = {"at": work / "at", "nat": choices.folder("nat")}
    texts = {name: folder / f"test.{target}" for name, folder in folders.items()}
    scores = score_files(choices)
    score = [
        Command(
            ("python", "-m", "nat_plugin.scoring", "--dataset", choices.recipe.dataset, "--target-lang", target,
             "--hypotheses", str(texts[name]), "--references", str(reference), "--json", str(scores[name]),
             *(("--baseline", str(texts["at"])) if name == "nat" else ()))
        )
        for name in texts
    ]  # fmt: skip
    speed = speed_commands(choices)
    logs = tuple(path for command in speed for path in (command.output, command.errors) if path is not None)
    inputs = (work / "data-bin", *(folder / "model.pt" for folder in folders.values()), work / "pmlm/tokenizer.json")
    setting = {"device": choices.device, "tokens of a large batch": choices.machine.at_once(choices.recipe.batch)}
    return [
        Stage("score", "BLEU and chrF2 of both", _one(*score), tuple(scores.values()), (*texts.values(), reference)),
        Stage("speed", "time both on the test set", _one(*speed), logs, inputs, setting),
    ]


def speed_commands(choices: Choices) -> list[Command]:
    """One sentence at a time, then large batches, in rounds: the one-pass model, beam search, greedy search.

    Each output's name is ``SYSTEM.BATCH.ROUND.log``.
    """
    recipe, languages, machine, work = choices.recipe, choices.languages, choices.machine, choices.work

    def measured(system: str, batch: str, number: int) -> Command:
        folder = choices.folder("nat") if system == "nat" else work / "at"
        log = choices.folder("speed") / f"{system}.{batch}.{number}.log"
        places = {"data": work / "data-bin", "pmlm": work / "pmlm", "model": folder / "model.pt", "log": log}
        if system == "nat":
            return training.translate_one_pass(recipe, languages, machine, **places, one=batch == "one")
        beam = int(system.removeprefix("at-beam"))
        return training.translate_baseline(recipe, languages, machine, **places, one=batch == "one", beam=beam)

    systems = ("nat", f"at-beam{recipe.baseline.beam}", *(("at-beam1",) if recipe.greedy else ()))
    rounds = [("one", 1), *(("large", number) for number in range(1, recipe.repeats + 1))]
    return [measured(system, batch, number) for batch, number in rounds for system in systems]
