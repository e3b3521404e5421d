"""What the user chose, and where everything of a run lies."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.nid.recipes import Recipe
from scripts.nid.training import Machine

NO_CONTROL = "none"
SECOND_HALF, FILTERED, SUBSET = "second-half", "filtered", "subset"
_SUBSET = re.compile(r"subset-([1-9]\d*)")
CONTROLS = (NO_CONTROL, SECOND_HALF, FILTERED, f"{SUBSET}-N")


@dataclass(frozen=True)
class Control:
    """What is trained on instead of all of the teacher's pairs.

    Attributes:
        kind: ``none``, ``second-half``, ``filtered`` or ``subset``.
        pairs: of a subset; 0 otherwise.
    """

    kind: str = NO_CONTROL
    pairs: int = 0

    @classmethod
    def from_text(cls, text: str) -> "Control | None":
        """The control of a name; None if there is none of it."""
        if match := _SUBSET.fullmatch(text):
            return cls(SUBSET, int(match[1]))
        return cls(text) if text in CONTROLS[:-1] else None

    @property
    def suffix(self) -> str:
        """For names of folders: empty where there is no control."""
        return {NO_CONTROL: "", SUBSET: f"-{SUBSET}-{self.pairs}"}.get(self.kind, f"-{self.kind}")


@dataclass(frozen=True)
class Asking:
    """A model behind an endpoint.

    Attributes:
        model: as the endpoint names it.
        options: of ``nid`` about the endpoint and its costs; none of them changes what is asked.
    """

    model: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A benchmark in the user's clone of its project.

    Attributes:
        name: as ``nid`` calls it.
        questions: file.
        prompts: the judge's.
        judge: model and endpoint.
        references: MT-Bench's reference answers.
        baseline: Arena-Hard's file of the answers that others are compared with; its name is the model's.
    """

    name: str
    questions: Path
    prompts: tuple[Path, ...]
    judge: Asking
    references: Path | None = None
    baseline: Path | None = None


@dataclass(frozen=True)
class Choices:
    """What the user chose.

    Attributes:
        recipe: scaled already.
        work: folder of the run; runs of several recipes, teachers and controls may share it.
        machine: what it runs on.
        base: folder of the base model, or its name on the hub.
        documents: inputs of ``nid halve``.
        teacher: who completes the first halves.
        control: what is trained on instead.
        seed: of the training; documents are drawn and held out by seed 1, so that all trainings share them.
        benchmarks: to be answered and judged.
        answers_url: endpoint at which the fine-tuned and the base model are served under their ids; empty: answered
            from their folders.
        merged: export a whole model, too, and use it instead of base and adapter.
        lm_eval: tasks of lm-evaluation-harness, with commas between them; empty for none.
        extra: by stage, options that are added to its commands.
    """

    recipe: Recipe
    work: Path
    machine: Machine
    base: str
    documents: tuple[str, ...]
    teacher: Asking
    control: Control = Control()
    seed: int = 1
    benchmarks: tuple[Benchmark, ...] = ()
    answers_url: str = ""
    merged: bool = False
    lm_eval: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    # ---- names ------------------------------------------------------------------------------------------------------

    @property
    def teacher_name(self) -> str:
        """The teacher as part of a file's name."""
        return self.teacher.model.replace("/", "_")

    @property
    def data_name(self) -> str:
        """Of what is trained on: teacher and control."""
        return f"{self.teacher_name}{self.control.suffix}"

    @property
    def model_id(self) -> str:
        """The fine-tuned model's name on the benchmarks."""
        return f"{self.recipe.name}-{self.data_name}"

    @property
    def pairs_to_train_on(self) -> int:
        """How many there are, if every document gets a completion and the filter drops none."""
        return self.control.pairs or self.recipe.data.documents - self.recipe.data.held_out

    # ---- places -----------------------------------------------------------------------------------------------------

    @property
    def halves(self) -> Path:
        """All documents, halved."""
        return self.work / "documents" / "halves.jsonl"

    @property
    def completions(self) -> Path:
        """The folder of what belongs to the teacher."""
        return self.work / "completions" / self.teacher_name

    @property
    def pairs(self) -> Path:
        """The teacher's."""
        return self.completions / "pairs.jsonl"

    @property
    def model(self) -> Path:
        """The folder of the training."""
        return self.work / "models" / self.model_id

    @property
    def checkpoint(self) -> Path:
        """What is exported: the last one, as nothing is chosen by a score."""
        return self.model / "checkpoints" / "checkpoint_last.pt"

    def answers(self, benchmark: Benchmark) -> Path:
        """The folder of all models' answers."""
        return self.work / "answers" / benchmark.name

    def judgments(self, benchmark: Benchmark, model: str) -> Path:
        """The folder of the judgments about a model."""
        return self.work / "judgments" / benchmark.name / model

    def scores(self, benchmark: Benchmark, model: str) -> Path:
        """What ``nid judge`` writes its scores to."""
        kind = "pair" if benchmark.baseline else "single"
        judge = benchmark.judge.model.replace("/", "_")
        return self.judgments(benchmark, model) / f"{judge}_{kind}.scores.json"

    @property
    def summary(self) -> Path:
        """The figures of the run."""
        return self.work / f"summary-{self.model_id}.json"
