"""What may be dropped for, and the names under which users say so."""

from collections.abc import Iterable

from nid_plugin.audit.detectors import BY_NAME, DETECTORS, GROUPS
from nid_plugin.audit.examination import PROPERTIES
from plugin_common.errors import UserError

NEAR = 0.8
"""Jaccard similarity of word 5-grams from which texts count as near-duplicates."""

RELATIONS = {
    "duplicate-prompt": "the prompt is equal to an earlier pair's",
    "duplicate-completion": "the completion is equal to an earlier pair's",
    "near-duplicate-prompt": "the prompt is nearly equal to an earlier one "
    f"(Jaccard similarity about {NEAR} of word 5-grams)",
    "near-duplicate-completion": "the completion is nearly equal to an earlier one (likewise)",
}
"""What a pair may be to earlier ones; the first of equal pairs is none of these."""

JUDGED = "judged-instruction"
JUDGEMENTS = {JUDGED: "the judge says that the pair holds instruction content"}

REASONS = {**{d.name: d.description for d in DETECTORS}, **PROPERTIES, **RELATIONS, **JUDGEMENTS}
"""All that a pair can be dropped for."""

SETS: dict[str, tuple[str, ...]] = {
    **{str(group): tuple(d.name for d in DETECTORS if d.group == group) for group in GROUPS},
    "detectors": tuple(BY_NAME),
    "all": tuple(REASONS),
}
"""Names that stand for several."""

DEFAULT = ("detectors", "evaluation-overlap", JUDGED)


def reasons_named(names: Iterable[str]) -> tuple[str, ...]:
    """The reasons that these names (of reasons or sets of them) stand for, in the order of ``REASONS``.

    Raises:
        UserError: an unknown name; lists those that there are.
    """
    wanted = list(names)
    unknown = [name for name in wanted if name not in REASONS and name not in SETS]
    if unknown:
        raise UserError(
            f"--drop: unknown {', '.join(unknown)}; there are {', '.join(REASONS)}; and for several at once "
            f"{', '.join(SETS)}"
        )
    chosen = {reason for name in wanted for reason in SETS.get(name, (name,))}
    return tuple(reason for reason in REASONS if reason in chosen)
