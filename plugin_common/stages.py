"""Stages of a long run: which are done, which must be run, and why.

A stage is some command lines with the files they read and write. When it has run, a record of its *fingerprint* is
kept: the commands, the settings, and the content of every input. It is skipped while its fingerprint is the recorded
one and its outputs are as it left them, so a run that is started again goes on where it stopped, and a changed setting
or input runs what depends on it and nothing else. ``stage_runner`` runs them.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from plugin_common.atomic_file import atomic_output
from plugin_common.errors import UserError

Shown = Callable[[str], str | None]
"""Turns a line of a command's log into what is worth showing of it, or None."""


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        words: program and options that decide what comes out; part of the fingerprint.
        how: further options that do not (workers, devices, how a batch is split); not part of it.
        output: file that gets standard output, when the command has succeeded.
        errors: file that gets standard error, likewise; without it, and of a failed command, the log has it.
        environment: variables set beside those of the runner; not part of the fingerprint.
        launcher: words in front, of a program that starts this one (torchrun, srun); not part of the fingerprint.
    """

    words: tuple[str, ...]
    how: tuple[str, ...] = ()
    output: Path | None = None
    errors: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()

    def line(self) -> str:
        """As one would type it."""
        variables = "".join(f"{name}={shlex.quote(value)} " for name, value in self.environment.items())
        files = ((">", self.output), ("2>", self.errors))
        redirection = "".join(f" {sign} {shlex.quote(str(path))}" for sign, path in files if path)
        return variables + shlex.join([*self.launcher, *self.words, *self.how]) + redirection


@dataclass(frozen=True)
class Stage:
    """Some commands and what they read and write.

    Attributes:
        name: one word, unique within a run.
        purpose: a phrase for the progress display.
        steps: run one after the other; the commands of one step run side by side, as many at once as there are slots.
        outputs: files and folders that exist afterwards and that no other stage writes.
        inputs: files and folders that decide the result.
        settings: what else decides it (JSON values).
        long: takes long and can be continued: after an interruption it goes on with what is there, provided that the
            fingerprint is still the same; what it made is moved aside, not deleted, when it has to start afresh.
        self_checking: its commands find out by themselves whether anything is to be done, by more than the files named
            here, and then leave all as it is: they are run each time, on what is there.
        variant: where several forms of a stage share a folder, the name of this one; it has records of its own.
        shown: what of its log is shown while it runs.
    """

    name: str
    purpose: str
    steps: tuple[tuple[Command, ...], ...]
    outputs: tuple[Path, ...]
    inputs: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    long: bool = False
    self_checking: bool = False
    variant: str = ""
    shown: Shown | None = None

    @property
    def key(self) -> str:
        """Name of its log and records."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def commands(self) -> list[Command]:
        """All commands in order."""
        return [command for step in self.steps for command in step]


@dataclass(frozen=True)
class Decision:
    """What is to be done with a stage: ``skip``, ``run`` (from nothing) or ``continue``; and why."""

    action: str
    reason: str


class Workspace:
    """The folder of a run: ``.stages/`` holds the records, ``logs/`` a log for each stage.

    Args:
        folder: made if need be.
        aliases: folders whose place does not matter, with the names that stand for them in fingerprints; ``folder``
            itself is ``WORK``.
    """

    def __init__(self, folder: Path, aliases: Mapping[Path, str] | None = None) -> None:
        self.folder = folder.resolve()
        self._aliases = {str(self.folder): "WORK", **{str(p.resolve()): name for p, name in (aliases or {}).items()}}
        self._known = self._read(self.records / "digests.json")

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return self.folder / ".stages"

    def log(self, stage: Stage) -> Path:
        """Where the stage's commands log."""
        return self.folder / "logs" / f"{stage.key}.log"

    def shown(self, path: Path) -> str:
        """A path as messages and records name it."""
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)

    # ---- content ----------------------------------------------------------------------------------------------------

    def digest(self, path: Path) -> str | None:
        """SHA-256 of a file's content, or of a folder's files and their names; None if there is neither.

        Logs (``*.log``) and hidden files in a folder do not count. A file is read again only when its size, time or
        inode has changed.
        """
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and _counts(file.relative_to(path)))
            listed = [(str(file.relative_to(path)), self.digest(file)) for file in files]
            return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        if not path.exists():
            return None
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
        known = self._known.get(str(path))
        if known is not None and known["stamp"] == stamp:
            return str(known["sha256"])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._known[str(path)] = {"stamp": stamp, "sha256": digest}
        return digest

    def fingerprint(self, stage: Stage) -> dict[str, Any]:
        """Everything that decides what the stage makes, as JSON values."""
        fingerprint = {
            "commands": self.placeless(stage),
            "settings": dict(stage.settings),
            "inputs": self.digests(stage.inputs),
        }
        return dict(json.loads(json.dumps(fingerprint)))

    def placeless(self, stage: Stage) -> list[list[str]]:
        """The words of the stage's commands that decide what comes out, with names for places that do not matter."""
        return [[self._placeless(word) for word in command.words] for command in stage.commands]

    def digests(self, paths: Iterable[Path]) -> dict[str, str | None]:
        """Content by the path's name in messages."""
        return {self._placeless(self.shown(path)): self.digest(path) for path in paths}

    def _placeless(self, word: str) -> str:
        for place, name in self._aliases.items():
            word = word.replace(place, name)
        return word

    # ---- records ----------------------------------------------------------------------------------------------------

    def begin(self, stage: Stage, fingerprint: Mapping[str, Any], *, keep: bool = False) -> None:
        """Record that the stage has begun; it is not done until ``finish``, which may ``keep`` the former record."""
        if not keep:
            self._done(stage).unlink(missing_ok=True)
        self._write(self._begun(stage), {"fingerprint": fingerprint})

    def finish(
        self, stage: Stage, fingerprint: Mapping[str, Any], *, seconds: float, versions: Mapping[str, str]
    ) -> bool:
        """Record that the stage is done; False if the record of a former run was kept, and still holds."""
        outputs, former = self.digests(stage.outputs), self.record(stage)
        record = {
            "fingerprint": fingerprint,
            "outputs": outputs,
            "seconds": round(seconds, 1),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": dict(versions),
        }
        new = (former.get("fingerprint"), former.get("outputs")) != (fingerprint, outputs)
        if new:
            self._write(self._done(stage), record)
        self._begun(stage).unlink(missing_ok=True)
        self._write(self.records / "digests.json", self._known)
        return new

    def record(self, stage: Stage) -> dict[str, Any]:
        """What ``finish`` recorded; empty if the stage is not done."""
        return self._read(self._done(stage))

    def decide(self, stage: Stage, *, redo: bool = False) -> Decision:
        """Whether the stage has to run, as things stand now."""
        fingerprint, done = self.fingerprint(stage), self.record(stage)
        begun = self._read(self._begun(stage)).get("fingerprint")
        if redo:
            return Decision("run", "asked for by --redo")
        if begun is not None:
            if not (stage.long or stage.self_checking):
                return Decision("run", "it did not end well")
            if begun == fingerprint:
                return Decision("continue", "it did not end; goes on with what is there")
            return Decision("run", f"it did not end, and {_difference(begun, fingerprint)}")
        if not done:
            return Decision("run", "not run yet")
        if done["fingerprint"] != fingerprint:
            return Decision("run", _difference(done["fingerprint"], fingerprint))
        outputs = self.digests(stage.outputs)
        if missing := [name for name, digest in outputs.items() if digest is None]:
            return Decision("run", f"missing: {_listed(missing)}")
        if changed := [name for name, digest in outputs.items() if digest != done["outputs"].get(name)]:
            return Decision("run", f"changed after they were made: {_listed(changed)}")
        if stage.self_checking:
            return Decision("continue", "it finds out by itself whether anything is to be done")
        return Decision("skip", f"done {done['finished']}")

    def _done(self, stage: Stage) -> Path:
        return self.records / f"{stage.key}.done.json"

    def _begun(self, stage: Stage) -> Path:
        return self.records / f"{stage.key}.begun.json"

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        with atomic_output(str(path)) as stream:
            stream.write((json.dumps(content, indent=1) + "\n").encode())

    def _read(self, path: Path) -> dict[str, Any]:
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, OSError) as error:
            raise UserError(
                f"{path}: not a readable record ({error}); delete it, and what it tells is made anew"
            ) from error


def plan(workspace: Workspace, stages: Sequence[Stage], *, redo: Iterable[str] = ()) -> list[tuple[Stage, Decision]]:
    """What a run would do, without doing it.

    A stage that reads what an earlier one will make is listed as one to run; it is skipped after all if that comes out
    as before. Whether a stage that finds out by itself does anything is not known beforehand.
    """
    listed: list[tuple[Stage, Decision]] = []
    made: dict[Path, str] = {}
    checking: set[str] = set()
    redone = set(redo)
    for stage in stages:
        decision = workspace.decide(stage, redo=stage.name in redone)
        makers = dict.fromkeys(maker for path in stage.inputs for out, maker in made.items() if _within(path, out))
        if decision.action == "skip" and makers.keys() - checking:
            decision = Decision("run", f"unless {', '.join(makers)} makes the same as before")
        elif decision.action == "skip" and makers:
            decision = Decision("skip", f"{decision.reason}; unless {', '.join(makers)} brings anything new")
        if decision.action == "continue" and stage.self_checking:
            checking.add(stage.name)
        if decision.action != "skip":
            made |= dict.fromkeys(stage.outputs, stage.name)
        listed.append((stage, decision))
    return listed


def show_plan(listed: Sequence[tuple[Stage, Decision]]) -> str:
    """The plan as text: each stage, what will be done with it and why, and its command lines."""
    lines = []
    for number, (stage, decision) in enumerate(listed, start=1):
        lines.append(f"{number:2d} {stage.name}: {stage.purpose}\n   {decision.action}: {decision.reason}")
        for step in stage.steps:
            note = f"     # {len(step)} side by side, one a slot" if len(step) > 1 else ""
            lines += [f"     $ {command.line()}" for command in step] + ([note] if note else [])
    return "\n".join(lines)


def _within(path: Path, folder: Path) -> bool:
    return path == folder or path.is_relative_to(folder) or folder.is_relative_to(path)


def _counts(relative: Path) -> bool:
    return relative.suffix != ".log" and not any(part.startswith(".") for part in relative.parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why two fingerprints differ, in words."""
    reasons = []
    before, after = ([word for words in side["commands"] for word in words] for side in (old, new))
    if before != after:
        gone, come = ([w for w in a if w not in set(b)] for a, b in ((before, after), (after, before)))
        counts = f"{len(old['commands'])} → {len(new['commands'])} commands"
        told = f": {' '.join(gone) or 'nothing'} → {' '.join(come) or 'nothing'}" if gone or come else f": {counts}"
        reasons.append(f"its command changed{told}")
    for name in sorted(old["settings"].keys() | new["settings"].keys()):
        a, b = old["settings"].get(name), new["settings"].get(name)
        if a != b:
            reasons.append(f"{name} changed: {a} → {b}")
    names = sorted(old["inputs"].keys() | new["inputs"].keys())
    if changed := [name for name in names if old["inputs"].get(name) != new["inputs"].get(name)]:
        reasons.append(f"changed: {_listed(changed)}")
    return "; ".join(reasons)
