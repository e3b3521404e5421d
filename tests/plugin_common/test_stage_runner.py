"""Stages as they are really run: processes, logs, the lock, interruption."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from plugin_common.errors import UserError
from plugin_common.stage_runner import Runner, locked, project_programs
from plugin_common.stages import Command, Stage, Workspace

ROOT = Path(__file__).resolve().parents[2]
SHELL = Runner({"sh": ("bash", "-ec")})


def stage(name: str, script: str, outputs: list[Path], inputs: list[Path] | None = None, **more: object) -> Stage:
    return Stage(name, "test", ((Command(("sh", script)),),), tuple(outputs), tuple(inputs or ()), **more)  # type: ignore[arg-type]


def chain(folder: Path) -> list[Stage]:
    """in → a (sorted) → b (counted)."""
    a, b = folder / "a", folder / "b"
    return [
        stage("sort", f"sort {folder}/in > {a}; echo sorted", [a], [folder / "in"]),
        stage("count", f"wc -l < {a} > {b}", [b], [a]),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").write_text("b\na\n")
    return tmp_path


def run(folder: Path, stages: list[Stage], **options: object) -> list[str]:
    return list(SHELL.run(Workspace(folder), stages, **options).values())  # type: ignore[arg-type]


def test_done_is_skipped_and_changes_run_what_depends_on_them(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(folder, chain(folder)) == ["run", "run"]
    assert (folder / "b").read_text().strip() == "2"
    assert (folder / "logs/sort.log").read_text().startswith("$ sh ")
    assert (folder / "logs/sort.log").read_text().endswith("sorted\n")
    assert run(folder, chain(folder)) == ["skip", "skip"]
    assert "sort: unchanged, skipped" in capsys.readouterr().out
    (folder / "in").write_text("a\nb\n")  # sorts to the same
    assert run(folder, chain(folder)) == ["run", "skip"]
    (folder / "in").write_text("c\na\nb\n")
    assert run(folder, chain(folder)) == ["run", "run"]
    assert (folder / "b").read_text().strip() == "3"
    assert run(folder, chain(folder), redo=["count"]) == ["skip", "run"]


def test_only_some_stages(folder: Path) -> None:
    with pytest.raises(UserError, match="stage sort is left out, but a is not there; start with --from sort"):
        run(folder, chain(folder), selected=["count"])
    assert run(folder, chain(folder), selected=["sort"]) == ["run"]
    assert not (folder / "b").exists()
    (folder / "in").write_text("new\n")
    assert run(folder, chain(folder), selected=["count"]) == ["run"]


def test_a_failure_shows_the_end_of_the_log_and_stops(folder: Path) -> None:
    script = f"echo old > {folder}/a; for i in $(seq 100); do echo line $i; done; exit 3"
    stages = [stage("sort", script, [folder / "a"], [folder / "in"]), chain(folder)[1]]
    with pytest.raises(UserError) as caught:
        run(folder, stages)
    message = str(caught.value)
    assert "stage sort: sh ended with status 3" in message
    assert f"the whole log: {folder}/logs/sort.log" in message
    assert "  | line 100" in message and "  | line 81" in message and "  | line 80" not in message
    assert not (folder / "b").exists()
    assert run(folder, chain(folder)) == ["run", "run"]


def test_commands_that_leave_no_output_have_failed(folder: Path) -> None:
    with pytest.raises(UserError, match="its commands ended well but left no a"):
        run(folder, [stage("sort", "true", [folder / "a"])])
    assert Workspace(folder).decide(stage("sort", "true", [folder / "a"])).action == "run"


def test_missing_inputs_are_named_together(folder: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)2 problems.*input x is missing.*input y is missing"):
        run(folder, [stage("s", "true", [folder / "a"], [folder / "x", folder / "y"])])


def test_programs_that_are_not_there(folder: Path) -> None:
    with pytest.raises(UserError, match="no-such-program: cannot be started"):
        Runner().run(Workspace(folder), [Stage("s", "test", ((Command(("no-such-program",)),),), (folder / "a",))])


def test_standard_output_to_a_file_is_whole_or_absent(folder: Path) -> None:
    out = folder / "sub" / "out"

    def printing(end: str) -> Stage:
        return Stage("p", "print", ((Command(("sh", f"echo text; echo note >&2; {end}"), output=out),),), (out,))

    with pytest.raises(UserError, match="ended with status 4"):
        run(folder, [printing("exit 4")])
    assert list(out.parent.iterdir()) == []
    run(folder, [printing("exit 0")])
    assert out.read_text() == "text\n"
    assert (folder / "logs/p.log").read_text().endswith("note\n")


def test_standard_error_to_a_file(folder: Path) -> None:
    out, errors = folder / "out", folder / "errors"

    def printing(end: str) -> Stage:
        command = Command(("sh", f"echo text; echo note >&2; {end}"), output=out, errors=errors)
        return Stage("p", "print", ((command,),), (out, errors))

    with pytest.raises(UserError, match=r"ended with status 4(?s:.*)  \| note\n"):
        run(folder, [printing("exit 4")])
    assert not out.exists() and not errors.exists()
    run(folder, [printing("exit 0")])
    assert (out.read_text(), errors.read_text()) == ("text\n", "note\n")
    assert "\nnote" not in (folder / "logs/p.log").read_text()


def test_side_by_side_on_slots(folder: Path) -> None:
    commands = tuple(
        Command(("sh", f"sleep 0.2; echo $SLOT > {folder}/{number}; date +%s%N >> {folder}/times"))
        for number in range(4)
    )
    stages = [Stage("many", "test", (commands,), tuple(folder / str(number) for number in range(4)))]
    runner = Runner(SHELL.programs, slots=({"SLOT": "x"}, {"SLOT": "y"}))
    runner.run(Workspace(folder), stages)
    used = [(folder / str(number)).read_text().strip() for number in range(4)]
    assert sorted(used) == ["x", "x", "y", "y"]
    assert used[0] != used[1]


def test_one_of_several_fails_and_the_others_are_stopped(folder: Path) -> None:
    commands = (Command(("sh", f"sleep 30; touch {folder}/late")), Command(("sh", "exit 5")))
    started = time.monotonic()
    with pytest.raises(UserError, match="ended with status 5"):
        Runner(SHELL.programs, slots=({}, {})).run(
            Workspace(folder), [Stage("two", "test", (commands,), (folder / "late",))]
        )
    assert time.monotonic() - started < 5


def test_what_a_long_stage_made_is_moved_aside_when_settings_change(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    def training(lr: int) -> Stage:
        script = f"mkdir -p {folder}/model; echo {lr} >> {folder}/model/steps; test {lr} != 0"
        return stage("train", script, [folder / "model"], long=True)

    with pytest.raises(UserError):
        run(folder, [training(0)])
    with pytest.raises(UserError):
        run(folder, [training(0)])  # goes on with what is there
    assert (folder / "model/steps").read_text() == "0\n0\n"
    assert (folder / "logs/train.log").read_text().count("$ sh") == 2
    for lr in (1, 2):
        assert run(folder, [training(lr)]) == ["run"]
        assert (folder / "model/steps").read_text() == f"{lr}\n"
    assert "train: what was made before is now model.before-2" in capsys.readouterr().out
    assert (folder / "model.before-1/steps").read_text() == "0\n0\n"
    assert (folder / "model.before-2/steps").read_text() == "1\n"


def test_lines_worth_showing_are_shown(folder: Path, capsys: pytest.CaptureFixture) -> None:
    script = f"echo noise; echo BLEU 3; echo -n BLEU; sleep 0.1; echo ' 4'; touch {folder}/a"
    run(folder, [stage("s", script, [folder / "a"], shown=lambda line: line if line.startswith("BLEU") else None)])
    shown = [line[11:] for line in capsys.readouterr().out.splitlines()]
    assert shown[1:3] == ["  BLEU 3", "  BLEU 4"]


def test_other_versions_are_told_but_run_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    space, stages = Workspace(folder), chain(folder)[:1]
    runner = Runner(SHELL.programs, packages=("pytest", "no-such-package"))
    runner.run(space, stages)
    record = space.records / "sort.done.json"
    record.write_text(record.read_text().replace(f'"pytest": "{pytest.__version__}"', '"pytest": "0.1"'))
    assert runner.run(space, stages) == {"sort": "skip"}
    assert f"made with pytest 0.1, now {pytest.__version__}: --redo sort makes it again" in capsys.readouterr().out


# ---- lock and signals ------------------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_folder_refuses(folder: Path) -> None:
    with locked(Workspace(folder)), pytest.raises(UserError, match=rf"works here \(process {os.getpid()}"):
        run(folder, chain(folder))
    assert run(folder, chain(folder)) == ["run", "run"]


def test_a_folder_that_cannot_be_made(folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        run(folder / "in" / "work", chain(folder))


def start(folder: Path, script: str, *, long: bool = True) -> subprocess.Popen:
    """The runner in a process of its own, once its command has said that it is there."""
    program = f"""
        import signal
        from pathlib import Path
        from plugin_common.stage_runner import Runner
        from plugin_common.stages import Command, Stage, Workspace
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would inherit that both are
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored
        folder = Path({str(folder)!r})
        stages = [Stage("slow", "test", ((Command(("bash", "-c", {script!r})),),), (folder / "a",), long={long})]
        Runner().run(Workspace(folder), stages)
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
    return process


def wait_for(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # gone, or going while it is read
        return False


SLOW = "echo half > {0}/a; sleep 60 & echo $! > {0}/pid.tmp; mv {0}/pid.tmp {0}/pid; wait"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -2), (signal.SIGHUP, 129)])
def test_signals_stop_the_children_and_the_stage_is_not_done(folder: Path, number: int, status: int) -> None:
    script = SLOW.format(folder)
    process = start(folder, script)
    grandchild = int((folder / "pid").read_text())
    assert alive(grandchild)
    process.send_signal(number)
    assert process.wait(20) == status
    wait_for(lambda: not alive(grandchild), 5)
    process.stderr.close()
    command = Command(("bash", "-c", script))
    slow = Stage("slow", "test", ((command,),), (folder / "a",), long=True)
    assert Workspace(folder).decide(slow).action == "continue"


def test_a_killed_runner_leaves_the_folder_locked_until_its_command_ends(folder: Path) -> None:
    process = start(folder, SLOW.format(folder))
    grandchild = int((folder / "pid").read_text())
    process.kill()
    process.wait(20)
    process.stderr.close()
    with pytest.raises(UserError, match=f"process {process.pid}, or commands that it started"):
        run(folder, chain(folder))
    os.kill(grandchild, signal.SIGTERM)
    wait_for(lambda: not alive(grandchild), 5)
    wait_for(lambda: _free(folder), 5)
    assert run(folder, chain(folder)) == ["run", "run"]


def _free(folder: Path) -> bool:
    try:
        with locked(Workspace(folder)):
            return True
    except UserError:
        return False


def test_fairseqs_programs_are_found_where_they_have_no_scripts(tmp_path, monkeypatch):
    real = sys.executable
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    _, *call = project_programs()["fairseq-preprocess"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([real, *call, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "--destdir" in done.stdout
    for name in ("fairseq-train", "fairseq-generate", "fairseq-preprocess"):
        (tmp_path / name).touch()
        assert project_programs()[name] == (str(tmp_path / name),)


def test_a_launcher_starts_the_command_and_is_no_part_of_the_fingerprint(tmp_path):
    def stage(*launcher: str) -> Stage:
        command = Command(("sh", "-c", 'echo "$GREETING"'), output=tmp_path / "out", launcher=launcher)
        return Stage("one", "greet", ((command,),), outputs=(tmp_path / "out",))

    space = Workspace(tmp_path / "work")
    Runner().run(space, [stage("env", "GREETING=hello")])
    assert (tmp_path / "out").read_text() == "hello\n"
    assert stage("env", "GREETING=hello").commands[0].line().startswith("env GREETING=hello sh -c ")
    assert Runner().run(space, [stage()]) == {"one": "skip"}
