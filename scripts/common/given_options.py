"""Options that the user adds to a stage: which of them decide its result, and which only how it is computed."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from plugin_common.stages import Command, Stage

_OF_SUBCOMMANDS = ("nat", "nid", "python")


def with_options(stage: Stage, given: Sequence[str], how: Collection[str]) -> Stage:
    """The stage with ``given`` options added to its commands, as far as they run the same program as the first.

    They count instead of those of the same name that the command has among its ``how``.

    Args:
        stage: any.
        given: options and values, ``("--lr", "1e-3")``.
        how: names of options, without dashes, that leave the stage's result alone.
    """
    options = grouped(given)
    leaving = [option for option in options if option[0].removeprefix("--") in how]
    deciding = [option for option in options if option not in leaving]
    program = stage.commands[0].words[:2]
    same = 2 if program[0] in _OF_SUBCOMMANDS else 1
    return replace(
        stage,
        steps=tuple(
            tuple(_added(c, deciding, leaving) if c.words[:same] == program[:same] else c for c in step)
            for step in stage.steps
        ),
    )


def grouped(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Each option with its values: ``--a 1 2 --b`` are ``(--a, 1, 2)`` and ``(--b,)``."""
    groups: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("--"):
            groups.append((word,))
        else:
            groups[-1] += (word,)
    return groups


def _added(command: Command, deciding: Collection[tuple[str, ...]], how: Collection[tuple[str, ...]]) -> Command:
    named = {option[0] for option in (*deciding, *how)}
    kept = [option for option in grouped(command.how) if option[0] not in named]
    return replace(
        command,
        words=(*command.words, *(word for option in deciding for word in option)),
        how=tuple(word for option in (*kept, *how) for word in option),
    )
