"""When a stage is skipped, run or continued, and how the plan tells it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_common.errors import UserError
from plugin_common.stages import Command, Stage, Workspace, plan, show_plan


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    (tmp_path / "in").write_text("input\n")
    return Workspace(tmp_path)


def copying(space: Workspace, *options: str, source: str = "in", target: str = "out", **more: object) -> Stage:
    """A stage whose one command stands for copying."""
    paths = space.folder / source, space.folder / target
    command = Command(("copy", *options, *map(str, paths)))
    return Stage(f"make-{target}", "copy", ((command,),), (paths[1],), (paths[0],), **more)  # type: ignore[arg-type]


def do(space: Workspace, stage: Stage) -> None:
    """Run the stage by hand: begin, copy, finish."""
    fingerprint = space.fingerprint(stage)
    space.records.mkdir(exist_ok=True)
    space.begin(stage, fingerprint)
    stage.outputs[0].write_bytes(stage.inputs[0].read_bytes())
    space.finish(stage, fingerprint, seconds=1.0, versions={})


def test_a_stage_that_was_done_is_skipped_by_a_later_run(space: Workspace) -> None:
    stage = copying(space)
    assert space.decide(stage).action == "run"
    assert space.decide(stage).reason == "not run yet"
    do(space, stage)
    again = Workspace(space.folder)
    assert again.decide(copying(again)).action == "skip"
    assert again.decide(copying(again), redo=True).action == "run"


@pytest.mark.parametrize(
    ("options", "settings", "text", "reason"),
    [
        (("--lr", "2"), {}, "input\n", "its command changed: --lr 1 → --lr 2"),
        (("--lr", "1"), {"seed": 2}, "input\n", "seed changed: 1 → 2"),
        (("--lr", "1"), {}, "other\n", "changed: in"),
        (("--lr", "1"), {"device": "x"}, "other\n", "device changed: None → x; changed: in"),
    ],
)
def test_what_changed_is_told(
    space: Workspace, options: tuple[str, ...], settings: dict[str, object], text: str, reason: str
) -> None:
    do(space, copying(space, "--lr", "1", settings={"seed": 1}))
    (space.folder / "in").write_text(text)
    decision = Workspace(space.folder).decide(copying(space, *options, settings={"seed": 1, **settings}))
    assert decision.action == "run"
    assert decision.reason == reason.replace("--lr 1 → --lr 2", "1 → 2")


def test_a_command_less_is_told(space: Workspace) -> None:
    def repeated(times: int) -> Stage:
        stage = copying(space)
        return Stage(stage.name, "copy", stage.steps * times, stage.outputs, stage.inputs)

    do(space, repeated(3))
    assert space.decide(repeated(2)).reason == "its command changed: 3 → 2 commands"


def test_how_a_command_is_run_does_not_matter(space: Workspace) -> None:
    do(space, copying(space))
    words = copying(space).commands[0].words
    other = Command(words, ("--workers", "7"), environment={"CUDA_VISIBLE_DEVICES": "3"})
    assert (
        space.decide(Stage("make-out", "copy", ((other,),), (space.folder / "out",), (space.folder / "in",))).action
        == "skip"
    )


def test_neither_does_the_place_of_the_folder(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    do(space, copying(space))
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    space.folder.rename(moved)
    elsewhere = Workspace(moved)
    assert elsewhere.decide(copying(elsewhere)).action == "skip"


def test_outputs_that_are_gone_or_altered_are_made_again(space: Workspace) -> None:
    stage = copying(space)
    do(space, stage)
    stage.outputs[0].write_text("altered\n")
    assert space.decide(stage).reason == "changed after they were made: out"
    stage.outputs[0].unlink()
    assert space.decide(stage).reason == "missing: out"


def test_an_interrupted_stage_is_never_taken_for_done(space: Workspace) -> None:
    short, long = copying(space), copying(space, target="model", long=True)
    for stage in (short, long):
        do(space, stage)
        space.begin(stage, space.fingerprint(stage))  # and then the process was killed; the old output still stands
    assert (space.decide(short).action, space.decide(short).reason) == ("run", "it did not end well")
    assert space.decide(long).action == "continue"


def test_a_long_stage_is_not_continued_with_other_settings(space: Workspace) -> None:
    space.records.mkdir()
    stage = copying(space, "--lr=1", long=True)
    space.begin(stage, space.fingerprint(stage))
    decision = space.decide(copying(space, "--lr=2", long=True))
    assert decision.action == "run"
    assert decision.reason == "it did not end, and its command changed: --lr=1 → --lr=2"


def test_variants_have_records_of_their_own(space: Workspace) -> None:
    do(space, copying(space))
    variant = copying(space, target="out2", variant="raw")
    assert variant.key == "make-out2-raw"
    assert space.decide(variant).action == "run"
    do(space, variant)
    assert space.decide(copying(space)).action == "skip"
    assert space.decide(variant).action == "skip"


def test_a_folder_counts_by_names_and_contents_but_not_by_logs(space: Workspace) -> None:
    folder = space.folder / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("1")
    first = space.digest(folder)
    (folder / "train.log").write_text("it took 3 s")
    (folder / ".hidden").write_text("x")
    assert space.digest(folder) == first
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    second = space.digest(folder)
    assert second != first
    (folder / "sub" / "b").write_text("2")
    assert space.digest(folder) not in (first, second)
    assert space.digest(space.folder / "nothing") is None


@given(st.lists(st.binary(max_size=20), min_size=2, max_size=5))
def test_a_file_is_known_by_its_content(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("digests")
    space, digests = Workspace(folder), []
    for content in contents:
        (folder / "new").write_bytes(content)
        (folder / "new").replace(folder / "file")  # a new inode, as every writer here makes it
        digests.append(space.digest(folder / "file"))
    for i, a in enumerate(contents):
        for j, b in enumerate(contents):
            assert (digests[i] == digests[j]) == (a == b)


def test_the_plan_follows_what_is_made_anew(space: Workspace) -> None:
    first, second = copying(space, target="middle"), copying(space, source="middle", target="end")
    for stage in (first, second):
        do(space, stage)
    aside = copying(space, target="aside")
    do(space, aside)
    assert [decision.action for _, decision in plan(space, [first, second, aside])] == ["skip"] * 3
    listed = plan(space, [first, second, aside], redo=["make-middle"])
    assert [decision.action for _, decision in listed] == ["run", "run", "skip"]
    assert listed[1][1].reason == "unless make-middle makes the same as before"


def test_the_plan_shows_commands_as_one_would_type_them(space: Workspace) -> None:
    command = Command(("prog", "a b"), ("--cpu",), space.folder / "o", environment={"X": "1 2"})
    text = show_plan(plan(space, [Stage("s", "try it", ((command,), (command, command)), (space.folder / "o",))]))
    assert text.split("\n")[:2] == [" 1 s: try it", "   run: not run yet"]
    assert text.count(f"     $ X='1 2' prog 'a b' --cpu > {space.folder}/o\n") == 3
    assert text.endswith("# 2 side by side, one a slot")
    assert not (space.folder / ".stages").exists()


def test_a_damaged_record_is_named(space: Workspace) -> None:
    do(space, copying(space))
    record = space.records / "make-out.done.json"
    assert json.loads(record.read_text())["seconds"] == 1.0
    record.write_text("{")
    with pytest.raises(UserError, match=r"make-out\.done\.json: not a readable record .* delete it"):
        space.decide(copying(space))
