"""The rows of the reproduction: what is trained, in which direction, from which seeds, and how it is decoded."""

from dataclasses import dataclass, replace

from examples.ctc_nat_small_scale.sizes import DIRECTIONS, SIZES, Size

BASELINE = "at"
DECODINGS = ("greedy", "single", "last", "penalty", "beam")


@dataclass(frozen=True)
class Row:
    """A way to train the one-pass model; the defaults are the paper's method without embedding distillation.

    Attributes:
        name: of the row in tables and folders.
        title: for tables.
        pretrained: starts from the masked LM's weights, not from random ones.
        upsampler, placement, ratio, blank: options of the model.
        distillation: adds embedding distillation from the frozen masked LM.
        distilled_data: trained on the baseline's translations of the training source.
        glancing: shares of positions revealed at the first and the last update.
        claim: carries a main claim, so that it is trained in all directions, and from all seeds where all rows are.
        decodings: of ``DECODINGS``.
    """

    name: str
    title: str
    pretrained: bool = True
    upsampler: str = "mask_insertion"
    placement: str = "uniform"
    ratio: float = 2
    blank: str = "<s>"
    distillation: bool = False
    distilled_data: bool = False
    glancing: tuple[float, float] = (0, 0)
    claim: bool = False
    decodings: tuple[str, ...] = ("greedy",)


_PMLM = Row("pmlm", "PMLM init, MASK insertion", claim=True, decodings=DECODINGS)

ROWS = {
    row.name: row
    for row in (
        Row("random", "random init, MASK insertion", pretrained=False, claim=True),
        _PMLM,
        replace(_PMLM, name="distill", title="PMLM init, MASK insertion, embedding distillation", distillation=True),
        Row("duplication", "PMLM init, token duplication", upsampler="token_duplication", claim=True),
        Row("kd", "PMLM init, distilled data", distilled_data=True),
        Row("glancing", "PMLM init, glancing", glancing=(0.5, 0.3)),
        Row("ratio3", "ratio 3", ratio=3),
        Row("right", "MASKs right of the source", placement="right"),
        Row("blank-mask", "blank <mask>", blank="<mask>"),
        Row("ratio2.5", "ratio 2.5", ratio=2.5),
        Row("left", "MASKs left of the source", placement="left"),
        Row("random-kd", "random init, distilled data", pretrained=False, distilled_data=True),
    )
}


@dataclass(frozen=True)
class Expected:
    """A training that the grid asks for; ``row`` is ``BASELINE`` or one of ``ROWS``."""

    direction: str
    row: str
    seed: int
    evaluations: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Its place in the working folder."""
        return f"at/{self.direction}/seed{self.seed}" if self.row == BASELINE else f"rows/{self._path}"

    @property
    def _path(self) -> str:
        return f"{self.direction}/{self.row}/seed{self.seed}"


def expected(size: str) -> list[Expected]:
    """All trainings of a size, the more telling ones first.

    Args:
        size: a name of ``SIZES``.
    """
    chosen = SIZES[size]
    trainings = [
        _baseline(direction, seed) for direction in DIRECTIONS for seed in _seeds(chosen, direction, claim=True)
    ]
    for direction in DIRECTIONS:
        for row in ROWS.values():
            if row.claim or direction in chosen.every_row:
                seeds = _seeds(chosen, direction, claim=row.claim)
                trainings += [Expected(direction, row.name, seed, row.decodings) for seed in seeds]
    return sorted(trainings, key=lambda one: _urgency(one, chosen))


def _baseline(direction: str, seed: int) -> Expected:
    return Expected(direction, BASELINE, seed, ("beam5", "beam1"))


def _seeds(size: Size, direction: str, *, claim: bool) -> tuple[int, ...]:
    return size.seeds if claim and direction in size.every_row else size.seeds[:1]


def _urgency(training: Expected, size: Size) -> tuple[bool, bool, bool]:
    """Claims where all rows are trained, first seed before second; then the other rows there; then the rest."""
    claim = training.row == BASELINE or ROWS[training.row].claim
    return training.direction not in size.every_row, not claim, training.seed != size.seeds[0]
