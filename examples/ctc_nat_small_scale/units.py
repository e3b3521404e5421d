"""What a reproduction consists of: units, each a folder with stages of its own, and what each needs.

Units that need nothing of one another may be made at the same time; each is made by one process (``run.py --unit``).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.ctc_nat_small_scale import commands
from examples.ctc_nat_small_scale.commands import HERE, PAIRS, ROOT, Setting
from examples.ctc_nat_small_scale.grid import BASELINE, ROWS, Expected, expected
from plugin_common.atomic_file import atomic_output
from plugin_common.stages import Command, Stage, Workspace
from scripts.nat.training import validation_line

MARKER = "made.sha256"
LOSABLE = ("checkpoints", "model.pt", "shards")  # and n-gram models: made again when something reads them
GROUPS = ("data", "pmlm", "baseline", "grid", "results")


@dataclass(frozen=True)
class Unit:
    """A folder of the reproduction.

    Attributes:
        name: its place in the working folder.
        group: of ``GROUPS``.
        stages: in order.
        needs: names of the units whose outputs it reads.
        training: what is trained in it, if that is what it is for.
        alone: measures time, so that nothing else may run beside it.
    """

    name: str
    group: str
    stages: tuple[Stage, ...]
    needs: tuple[str, ...] = ()
    training: Expected | None = None
    alone: bool = False


def workspace(setting: Setting, unit: Unit) -> Workspace:
    """Where the unit's logs and records are; neither its place nor the project's matters."""
    return Workspace(setting.work / unit.name, {setting.work: "ROOT", ROOT: "PROJECT"})


def units(setting: Setting) -> list[Unit]:
    """All units of the size, the more telling trainings first."""
    trainings = expected(setting.size.name)
    distilled = {one.direction for one in trainings if one.row != BASELINE and ROWS[one.row].distilled_data}
    made = [_data(setting), _text(setting), _pmlm(setting)]
    for one in trainings:
        made.append(_trained(setting, one))
        if one.row == BASELINE and one.seed == setting.size.seeds[0] and one.direction in distilled:
            made.append(_distilled(setting, one.direction))
    return [*made, _alignment(setting), _export(setting), _speed(setting)]


# ---- text and masked LM ----------------------------------------------------------------------------------------------


def _data(setting: Setting) -> Unit:
    folder = setting.work / "data"
    corpora, shape = folder / "corpora", folder / "shape"
    train = [corpora / pair / f"train.{side}" for pair in ("en-de", "en-ro") for side in pair.split("-")]
    stages = [
        Stage("corpora", "English–German and English–Romanian", _one(commands.corpora(setting)), (corpora,)),
        Stage("shape", "a vocabulary, and a model with random weights", _one(commands.shape(setting)), (shape,),
              tuple(train)),
    ]  # fmt: skip
    for pair in ("en-de", "en-ro"):
        pieces, binary = folder / "pieces" / pair, folder / "bin" / pair
        stages.append(
            Stage(f"pieces-{pair}", "text → pieces → numbers",
                  _one(commands.tokenize(setting, pair), commands.preprocess(setting, pair)), (pieces, binary),
                  (corpora / pair, shape / "tokenizer.json", shape / "dict.txt"))
        )  # fmt: skip
    for language, pair in (("en", "en-de"), ("de", "en-de"), ("ro", "en-ro")):
        pieces = folder / "pieces" / pair / f"train.{language}"
        stages.append(
            Stage(f"lm-{language}", f"an n-gram model of {language} for beam search",
                  _one(commands.ngram_lm(setting, pieces, language)), (folder / "lm" / f"{language}.npz",),
                  (pieces, shape / "dict.txt"))
        )  # fmt: skip
    return Unit("data", "data", tuple(stages))


def _text(setting: Setting) -> Unit:
    text = commands.text_folder(setting)
    stage = Stage("text", "monolingual text", _one(commands.text(setting)), (text,), (setting.work / "data/corpora",))
    return Unit("text", "data", (stage,), ("data",))


def _pmlm(setting: Setting) -> Unit:
    folder, data = setting.work / "pmlm", setting.work / "data"
    model, log = folder / "model", folder / "loss.jsonl"
    train = Stage(
        "pretrain", "masked LM of three languages", _one(commands.pretrain(setting)), (model, log),
        (commands.text_folder(setting), data / "shape"), long=True, shown=_pretraining_line,
    )  # fmt: skip
    return Unit("pmlm", "pmlm", (train,), ("data", "text"))


def _pretraining_line(line: str) -> str | None:
    return line if "valid" in line else None


# ---- translation -----------------------------------------------------------------------------------------------------


def _trained(setting: Setting, training: Expected) -> Unit:
    folder = setting.work / training.folder
    row = ROWS.get(training.row)
    distilled = row is not None and row.distilled_data
    binary = commands.binary(setting, training.direction, distilled=distilled)
    model = commands.model_folder(setting, training.row)
    checkpoints, averaged = folder / "checkpoints", folder / "model.pt"
    stages = [
        Stage("train", f"train {training.row} {training.direction}, seed {training.seed}",
              _one(commands.train(setting, training)), (checkpoints,), (binary, model), long=True,
              shown=validation_line),
        Stage("average", f"average its best {setting.size.training.best}",
              _one(commands.average(setting, checkpoints, averaged)), (averaged,), (checkpoints,)),
    ]  # fmt: skip
    stages += [_evaluation(setting, training, folder, name) for name in training.evaluations]
    needs = ("data", *(("pmlm",) if row is not None and (row.pretrained or row.distillation) else ()))
    needs += (f"at/{training.direction}/distilled",) if distilled else ()
    return Unit(training.folder, "baseline" if training.row == BASELINE else "grid", tuple(stages), needs, training)


def _evaluation(setting: Setting, training: Expected, folder: Path, name: str) -> Stage:
    """Translate the test set, put the lines back in order, score them."""
    target = training.direction.partition("-")[2]
    pair, place = PAIRS[training.direction], folder / name
    references = setting.work / "data/corpora" / pair / f"test.{target}"
    text, log, scores = place / f"hypotheses.{target}", place / "generate.log", place / "scores.json"
    order = Command(
        ("python", str(ROOT / "scripts/nat/hypotheses.py"), "--log", str(log), "--like", str(references),
         "--output", str(text)))  # fmt: skip
    score = Command(
        ("python", str(HERE / "score.py"), "--work", str(setting.work), "--run", training.folder, "--evaluation", name,
         "--references", str(references)))  # fmt: skip
    inputs = (folder / "model.pt", folder / "checkpoints", setting.work / "data/bin" / pair, references)
    language_model = (setting.work / "data/lm" / f"{target}.npz",) if name == "beam" else ()
    return Stage(
        name, f"translate the test set: {name}", _one(commands.translate(setting, training, name), order, score),
        (log, text, scores), (*inputs, *language_model),
    )  # fmt: skip


def _distilled(setting: Setting, direction: str) -> Unit:
    """The training source as the baseline of the first seed translates it (Kim and Rush, 2016)."""
    folder = setting.work / "at" / direction / "distilled"
    source, target = direction.split("-")
    teacher = setting.work / "at" / direction / f"seed{setting.size.seeds[0]}"
    binary, shards = setting.work / "data/bin" / PAIRS[direction], folder / "shards"
    texts = tuple(folder / f"train.{side}" for side in (source, target))
    stages = (
        Stage("distill", "decode the training source", (commands.distill(setting, direction),), (shards,),
              (binary, teacher / "model.pt"), long=True),
        Stage("merge", "put the shards together", _one(commands.merge(setting, direction)), texts, (binary, shards)),
        Stage("bin", "pieces → numbers", _one(commands.preprocess_distilled(setting, direction)), (folder / "bin",),
              (*texts, setting.work / "data/shape/dict.txt")),
    )  # fmt: skip
    return Unit(f"at/{direction}/distilled", "baseline", stages, ("data", f"at/{direction}/{teacher.name}"))


# ---- what the models are good for ------------------------------------------------------------------------------------


def _alignment(setting: Setting) -> Unit:
    """What MASK insertion does, beside what token duplication does, on a sentence of the test set."""
    shown = [first(setting, row) for row in ("pmlm", "duplication")]
    binary = setting.work / "data/bin" / PAIRS[shown[0].direction]
    stages = tuple(
        Stage(
            f"alignment-{one.row}", f"the alignment of {one.row}", _one(commands.align_plot(setting, one, shown[0])),
            (commands.alignment_figure(setting, one),),
            (setting.work / one.folder / "model.pt", setting.work / shown[0].folder / "greedy", binary),
        )
        for one in shown
    )  # fmt: skip
    return Unit("alignment", "results", stages, ("data", *(one.folder for one in shown)))


def _export(setting: Setting) -> Unit:
    """The paper's whole method as a folder for ``nat translate``, with a card."""
    model = first(setting, "distill")
    output, about = setting.work / "export" / model.direction, setting.work / "export" / "about.md"
    scores = setting.work / model.folder / "greedy" / "scores.json"
    stage = Stage(
        "export", "int8 for nat translate", _one(*commands.export(setting, model, about)), (about, output),
        (setting.work / model.folder / "model.pt", setting.work / "data/corpora/report.json", scores),
    )  # fmt: skip
    return Unit("export", "results", (stage,), ("data", model.folder))


def _speed(setting: Setting) -> Unit:
    """Speed and BLEU of the trained models, in one run, on the same processor."""
    ours, theirs = first(setting, "distill"), first(setting, BASELINE)
    report = setting.work / "results" / "speed.json"
    models = tuple(setting.work / one.folder / "model.pt" for one in (ours, theirs))
    stage = Stage(
        "speed", "time the models beside CTranslate2", _one(*commands.speed(setting, ours, theirs)), (report,), models
    )
    return Unit("speed", "results", (stage,), ("data", ours.folder, theirs.folder), alone=True)


def first(setting: Setting, row: str) -> Expected:
    """The most telling training of a row."""
    return next(one for one in expected(setting.size.name) if one.row == row)


def _one(*commands_: Command) -> tuple[tuple[Command, ...], ...]:
    """Steps of one command each."""
    return tuple((command,) for command in commands_)


# ---- what is made ----------------------------------------------------------------------------------------------------


def identity(setting: Setting, unit: Unit, every: Mapping[str, Unit]) -> str:
    """A digest of the unit's commands and of what the units that it needs made, by their records."""
    needs = [[identity(setting, every[name], every), _recorded(setting, every[name])] for name in unit.needs]
    made = [workspace(setting, unit).placeless(stage) for stage in unit.stages]
    return hashlib.sha256(json.dumps([made, needs]).encode()).hexdigest()


def _recorded(setting: Setting, unit: Unit) -> list[Any]:
    space = workspace(setting, unit)
    return [space.record(stage).get("outputs") for stage in unit.stages]


def is_made(setting: Setting, unit: Unit, every: Mapping[str, Unit]) -> bool:
    """Whether nothing is left to do in it, as things stand now.

    Of a unit that was made once, checkpoints and weights may be gone (to save space, or on another machine): while its
    scores or other results are there, and what leads to it is unchanged, it counts as made.
    """
    marker = setting.work / unit.name / MARKER
    results = [
        path for stage in unit.stages for path in stage.outputs if path.name not in LOSABLE and path.suffix != ".npz"
    ]
    if marker.exists() and marker.read_text().strip() == identity(setting, unit, every):
        return all(path.exists() for path in results)
    space = workspace(setting, unit)
    return all(space.decide(stage).action == "skip" for stage in unit.stages)


def drop_outdated(setting: Setting, unit: Unit) -> None:
    """Delete the scores of a unit that is about to be made anew, lest they be taken for those of the new model."""
    space, model_is_new = workspace(setting, unit), False
    for stage in unit.stages:
        scores = [path for path in stage.outputs if path.name == "scores.json"]
        outdated = space.decide(stage).action != "skip"
        if outdated or model_is_new:
            for path in scores:
                path.unlink(missing_ok=True)
        model_is_new = model_is_new or (outdated and not scores)


def mark_made(setting: Setting, unit: Unit, every: Mapping[str, Unit]) -> None:
    """Remember that all of it is made."""
    with atomic_output(str(setting.work / unit.name / MARKER)) as stream:
        stream.write(f"{identity(setting, unit, every)}\n".encode())
