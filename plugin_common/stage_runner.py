"""Runs the stages of ``stages``: one at a time, each command with its log, children stopped with the runner."""

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from plugin_common.errors import UserError, raise_all
from plugin_common.stage_processes import Child, ended_by_signals, stop
from plugin_common.stages import Command, Stage, Workspace

POLL_SECONDS = 0.05
LINES_SHOWN = 20


@dataclass(frozen=True)
class Runner:
    """How commands are run.

    Attributes:
        programs: what a command's first word stands for, such as ``{"nat": ("python", "-m", "nat_plugin.cli")}``.
        environment: variables for all commands, beside those of this process.
        slots: variables for the commands that run side by side, one set a slot (a GPU each, for instance).
        packages: whose versions are recorded with what they made.
    """

    programs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    slots: Sequence[Mapping[str, str]] = ({},)
    packages: Sequence[str] = ()

    def run(
        self,
        workspace: Workspace,
        stages: Sequence[Stage],
        *,
        redo: Sequence[str] = (),
        selected: Sequence[str] | None = None,
    ) -> dict[str, str]:
        """Run what is not done; a line on standard output for each stage.

        Args:
            workspace: where records and logs are.
            stages: in an order in which each finds its inputs.
            redo: names of stages to run although they are done.
            selected: names of the stages to look at (default: all); the outputs of others before them must be there.

        Returns:
            For each selected stage what was done: ``skip``, ``run`` or ``continue``.

        Raises:
            UserError: another run works in the folder; an input is missing; a command failed or left no output.
        """
        chosen = [stage for stage in stages if selected is None or stage.name in set(selected)]
        with locked(workspace) as lock, ended_by_signals():
            _refuse_missing_outputs(workspace, stages, chosen)
            clock = _Clock(time.monotonic())
            done = {}
            for stage in chosen:
                decision = workspace.decide(stage, redo=stage.name in redo)
                done[stage.name] = decision.action
                if decision.action == "skip":
                    clock.tell(
                        f"{stage.name}: unchanged, skipped ({decision.reason}){self._other_versions(workspace, stage)}"
                    )
                else:
                    clock.tell(f"{stage.name}: {stage.purpose} ({decision.reason})")
                    self._run_stage(workspace, stage, lock, clock, afresh=decision.action == "run")
            return done

    def _run_stage(self, workspace: Workspace, stage: Stage, lock: int, clock: "_Clock", *, afresh: bool) -> None:
        raise_all(
            f"stage {stage.name}: its input {workspace.shown(path)} is missing; run the stage that makes it, or give it"
            for path in stage.inputs
            if not path.exists()
        )
        log = workspace.log(stage)
        if afresh:
            for old in _clear(workspace, stage):
                clock.tell(f"{stage.name}: what was made before is now {old}")
        redirections = [path for command in stage.commands for path in (command.output, command.errors) if path]
        for path in (*stage.outputs, *redirections, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        fingerprint, started = workspace.fingerprint(stage), time.monotonic()
        workspace.begin(stage, fingerprint, keep=stage.self_checking and not afresh)
        with log.open("wb" if afresh else "ab") as stream:
            follower = _Follower(stage, log, clock, start=stream.tell())
            for step in stage.steps:
                self._run_step(step, stage, log, stream, lock, follower)
        raise_all(
            f"stage {stage.name}: its commands ended well but left no {workspace.shown(path)}; see {log}"
            for path in stage.outputs
            if not path.exists()
        )
        seconds = time.monotonic() - started
        new = workspace.finish(stage, fingerprint, seconds=seconds, versions=self._versions())
        clock.tell(f"{stage.name}: {'done' if new else 'checked, unchanged,'} in {_shown_seconds(seconds)}")

    def _run_step(
        self, step: Sequence[Command], stage: Stage, log: Path, stream: IO[bytes], lock: int, follower: "_Follower"
    ) -> None:
        waiting = list(step)
        running: dict[Child, Mapping[str, str]] = {}
        free = list(self.slots) if len(step) > 1 else [{}]
        try:
            while waiting or running:
                while waiting and free:
                    slot, command = free.pop(0), waiting.pop(0)
                    running[self._start(command, slot, stream, lock)] = slot
                for child in [child for child in running if child.process.poll() is not None]:
                    free.append(running.pop(child))
                    if child.end() != 0:
                        follower.finish()
                        raise UserError(_failure(stage, child, log))
                follower.follow()
                time.sleep(POLL_SECONDS)
        finally:
            stop(running)
        follower.finish()

    def _start(self, command: Command, slot: Mapping[str, str], log: IO[bytes], lock: int) -> Child:
        first, *rest = (*command.launcher, *command.words, *command.how)
        return Child(
            command,
            [*self.programs.get(first, (first,)), *rest],
            log,
            environment={**self.environment, **slot, **command.environment},
            inherited=(lock,),
        )

    def _versions(self) -> dict[str, str]:
        found = {"python": sys.version.split()[0]}
        for package in self.packages:
            with contextlib.suppress(PackageNotFoundError):
                found[package] = version(package)
        return found

    def _other_versions(self, workspace: Workspace, stage: Stage) -> str:
        """Tells of other versions; they are no reason to run again what may have taken days."""
        then, now = workspace.record(stage).get("versions", {}), self._versions()
        other = [f"{name} {then[name]}, now {now[name]}" for name in now if name in then and then[name] != now[name]]
        return f"; made with {'; '.join(other)}: --redo {stage.name} makes it again" if other else ""


def project_programs() -> dict[str, tuple[str, ...]]:
    """What a command's first word stands for: ``nat``, ``nid``, ``python`` and fairseq's programs of this environment.

    Nothing need be installed: where fairseq lies on PYTHONPATH only, without its scripts, the call in them is made.
    """
    named: dict[str, tuple[str, ...]] = {
        "nat": (sys.executable, "-m", "nat_plugin.cli"),
        "nid": (sys.executable, "-m", "nid_plugin.cli"),
        "python": (sys.executable,),
    }
    for name in ("train", "generate", "preprocess", "validate"):
        script = Path(sys.executable).parent / f"fairseq-{name}"
        call = (sys.executable, "-c", f"import sys; from fairseq_cli.{name} import cli_main; sys.exit(cli_main())")
        named[f"fairseq-{name}"] = (str(script),) if script.exists() else call
    return named


@contextlib.contextmanager
def locked(workspace: Workspace) -> Iterator[int]:
    """Hold the folder's lock; gives its file descriptor, which the commands inherit.

    So the lock is held until this process *and* every command it started have ended, even if this one is killed.

    Raises:
        UserError: somebody else holds it, or the folder cannot be written.
    """
    try:
        workspace.records.mkdir(parents=True, exist_ok=True)
        handle = os.open(workspace.records / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"{workspace.folder}: cannot be written ({error.strerror}); give a folder you may write to"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(handle, 100, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{workspace.folder}: another run works here (process {owner}, or commands that it started and that "
                "outlived it); wait for it or stop it, or give another folder"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _refuse_missing_outputs(workspace: Workspace, stages: Sequence[Stage], chosen: Sequence[Stage]) -> None:
    """What lies before the first chosen stage is taken as it is, but it must be there."""
    if not chosen:
        return
    before = stages[: list(stages).index(chosen[0])]
    raise_all(
        f"stage {stage.name} is left out, but {workspace.shown(path)} is not there; start with --from {stage.name}"
        for stage in before
        for path in stage.outputs
        if not path.exists()
    )


def _clear(workspace: Workspace, stage: Stage) -> list[str]:
    """Delete what a former run of the stage made; of a long one move it aside and give the new names."""
    moved = []
    for path in stage.outputs:
        if not path.exists():
            continue
        if stage.long:
            number = 1
            while (aside := path.with_name(f"{path.name}.before-{number}")).exists():
                number += 1
            path.rename(aside)
            moved.append(workspace.shown(aside))
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return moved


# ---- what is shown ---------------------------------------------------------------------------------------------------


def _failure(stage: Stage, child: Child, log: Path) -> str:
    status = child.process.returncode
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 20_000))
        end = stream.read().decode(errors="replace").splitlines()[-LINES_SHOWN:]
    quoted = "\n".join(f"  | {line}" for line in end)
    return f"stage {stage.name}: {child.command.words[0]} {how}; the end of {log}:\n{quoted}\nthe whole log: {log}"


@dataclass(frozen=True)
class _Clock:
    started: float

    def tell(self, line: str) -> None:
        print(f"[{_shown_seconds(time.monotonic() - self.started):>8}] {line}", flush=True)


class _Follower:
    """Shows the lines of a growing log that the stage wants to be shown."""

    def __init__(self, stage: Stage, log: Path, clock: _Clock, *, start: int) -> None:
        self._stage, self._log, self._clock = stage, log, clock
        self._at, self._rest, self._next = start, b"", 0.0

    def follow(self) -> None:
        """Show what is new, once a second at most."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            self.finish()

    def finish(self) -> None:
        """Show all that is there."""
        if self._stage.shown is None:
            return
        with self._log.open("rb") as stream:
            stream.seek(self._at)
            new = stream.read()
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            if (text := self._stage.shown(line.decode(errors="replace"))) is not None:
                self._clock.tell(f"  {text}")


def _shown_seconds(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
