"""What the options of the reproductions leave as it is: finished stages, the size of an update, the user's files."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_common.errors import UserError
from plugin_common.stages import Command, Stage, Workspace, plan
from scripts.common.given_options import grouped
from scripts.nat import reproduce
from scripts.nat.given_options import HOW, with_options
from scripts.nat.options import request
from scripts.nat.pipeline import stages, workspace
from scripts.nat.recipes import RECIPES
from scripts.nat.training import Machine, least_gpu_tokens, longest_pair
from tests.loopback_corpora import SUMS, make_archives
from tests.scripts.test_reproduction_commands import GPUS, choices, parsed

# ---- how an update is shared out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("tokens", sorted({r.one_pass.tokens for r in RECIPES.values()} | {2048, 4096, 25_000, 32_768}))
@given(gpus=st.integers(0, 100), more=st.integers(0, 20_000))
def test_an_update_sees_the_same_number_of_tokens_on_any_machine(
    tokens: int, distilled: bool, gpus: int, more: int
) -> None:
    recipe = RECIPES["wmt14_ende"]
    longest = longest_pair(recipe, distilled=distilled)
    gpu_tokens = least_gpu_tokens(recipe, distilled=distilled) + more
    spread = Machine(gpus, gpu_tokens, 1, "fp32").spread(tokens, longest)
    assert longest <= spread.tokens <= gpu_tokens
    assert 1 <= spread.processes <= max(1, gpus)
    assert abs(spread.tokens * spread.steps * spread.processes - tokens) <= spread.steps * spread.processes / 2


def test_the_longest_pair_is_what_dropping_and_decoding_leave() -> None:
    recipe = RECIPES["wmt16_enro"]
    assert longest_pair(recipe, distilled=False) == 500 + 1
    # fairseq: int(1.2 · 501 + 10) pieces, 501 being the source with its </s>; then the hypothesis' own </s>
    assert longest_pair(recipe, distilled=True) == 611 + 1


def test_too_many_gpus_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sixteen = Machine(gpus=16, gpu_tokens=12_288, workers=1, precision="fp16")
    by_name = {stage.name: stage for stage in stages(choices("iwslt14_deen", machine=sixteen))}
    baseline, one_pass = (parsed(by_name[f"{name}-train"].commands[0], monkeypatch) for name in ("at", "nat"))
    assert (baseline.distributed_world_size, baseline.max_tokens, baseline.update_freq) == (8, 512, [1])
    assert "on 8 of 16 GPUs: an update's 4,096 tokens" in by_name["at-train"].purpose
    assert (one_pass.distributed_world_size, one_pass.max_tokens, one_pass.update_freq) == (16, 768, [1])
    assert "GPUs" not in by_name["nat-train"].purpose
    assert baseline.max_tokens_valid == one_pass.max_tokens_valid == "12288"


@pytest.mark.parametrize(("data", "least"), [("distilled", 1224), ("raw", 1002)])
def test_gpu_tokens_have_room_for_the_longest_pair(data: str, least: int) -> None:
    words = ["iwslt14_deen", "--gpus", "0", "--dry-run", "--data", data, "--gpu-tokens"]
    assert request([*words, str(least)]).choices.machine.gpu_tokens == least
    with pytest.raises(UserError, match=rf"--gpu-tokens {least - 1}: expected a whole number, {least} or more: twice"):
        request([*words, str(least - 1)])


def test_gpu_tokens_hold_for_translating_and_sentences_there_keep_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for gpu_tokens in (1224, 4096, 50_000):
        machine = dataclasses.replace(GPUS, gpu_tokens=gpu_tokens)
        by_name = {stage.name: stage for stage in stages(choices("wmt16_enro", machine=machine))}
        names = ("at-generate", "distill", "nat-generate")
        sizes[gpu_tokens] = [parsed(by_name[name].commands[0], monkeypatch).max_tokens for name in names]
        large = [parsed(c, monkeypatch) for c in by_name["speed"].commands if ".large." in str(c.output)]
        sizes[gpu_tokens].append(*{args.max_tokens for args in large})
        assert parsed(by_name["nat-train"].commands[0], monkeypatch).max_tokens_valid == str(max(2048, gpu_tokens))
    assert sizes == {
        1224: [2048, 2048, 2048, 2048],
        4096: [4096, 4096, 4096, 4096],
        50_000: [8192, 12_000, 8192, 8192],
    }


# ---- what is no reason to run anything again -------------------------------------------------------------------------


def test_every_option_that_counts_as_how_is_one_of_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = {stage.name: stage for stage in stages(choices("wmt16_enro"))}
    for name, options in HOW.items():
        args = parsed(by_name[name].commands[0], monkeypatch)
        for option in options:
            assert hasattr(args, option.replace("-", "_")), (name, option)


@pytest.mark.parametrize(
    ("stage", "option", "value"),
    [
        ("download", "retries", 3), ("clean", "workers", 1), ("tokenize", "workers", 1), ("preprocess", "workers", 1),
        ("preprocess-distilled", "workers", 1), ("distill", "batch-size", 4), ("distill", "max-tokens", 3000),
        ("nat-train", "num-workers", 2), ("nat-train", "log-interval", 7), ("at-train", "max-tokens-valid", "3000"),
        ("at-train", "ddp-backend", "legacy_ddp"), ("nat-generate", "max-tokens", 3000),
    ],
)  # fmt: skip
def test_how_is_no_part_of_the_fingerprint(
    stage: str, option: str, value: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = choices("wmt16_enro")
    changed = dataclasses.replace(plain, extra={stage: [f"--{option}", str(value)]})
    before, after = ({made.name: made for made in stages(c)} for c in (plain, changed))
    space = workspace(plain)
    for name, made in after.items():
        assert space.fingerprint(made)["commands"] == space.fingerprint(before[name])["commands"]
    assert getattr(parsed(after[stage].commands[0], monkeypatch), option.replace("-", "_")) == value


@pytest.mark.parametrize(
    ("stage", "option", "value"),
    [
        ("nat-train", "max-tokens", 5000), ("at-train", "num-workers", 3), ("distill", "beam", 4),
        ("speed", "max-tokens", 3000), ("nat-train", "update-freq", [3]),
    ],
)  # fmt: skip
def test_what_decides_counts_instead_of_the_scripts_own(
    stage: str, option: str, value: int | list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = str(value[0] if isinstance(value, list) else value)
    plain = choices("wmt16_enro")
    before, after = (
        {made.name: made for made in stages(c)}[stage]
        for c in (plain, dataclasses.replace(plain, extra={stage: [f"--{option}", text]}))
    )
    space = workspace(plain)
    assert space.fingerprint(before)["commands"] != space.fingerprint(after)["commands"]
    assert getattr(parsed(after.commands[-1], monkeypatch), option.replace("-", "_")) == value


def test_options_with_several_values_or_none_stay_together() -> None:
    assert grouped(["--a", "1", "2", "--b", "--c", "-1"]) == [("--a", "1", "2"), ("--b",), ("--c", "-1")]
    stage = Stage("clean", "", ((Command(("x", "y"), ("--workers", "2", "--cpu")),),), ())
    (command,) = with_options(stage, ["--workers", "1", "--deduplicate"]).commands
    assert (command.words, command.how) == (("x", "y", "--deduplicate"), ("--cpu", "--workers", "1"))


def test_gpu_tokens_take_the_speed_again_and_nothing_else() -> None:
    few, many = (choices("wmt16_enro", machine=dataclasses.replace(GPUS, gpu_tokens=n)) for n in (4096, 12_288))
    space = workspace(few)
    differing = [
        a.name for a, b in zip(stages(few), stages(many), strict=True)
        if (space.fingerprint(a)["commands"], a.settings) != (space.fingerprint(b)["commands"], b.settings)
    ]  # fmt: skip
    assert differing == ["speed"]


def test_mixed_data_have_files_and_records_of_their_own() -> None:
    plain, mixed = (stages(choices("iwslt14_ende", data=data)) for data in ("distilled", "mixed"))
    records = {stage.key: stage for stage in plain}
    for stage in mixed:
        if stage.key in records:
            assert stage == records[stage.key]
        else:
            assert stage.variant == "mixed" or stage.name == "mix"
            assert not {path for other in plain for path in other.outputs} & set(stage.outputs)
    shared = {stage.key for stage in mixed} & records.keys()
    assert {"distill", "merge"} <= shared
    assert "preprocess-distilled" not in shared


# ---- the archives ----------------------------------------------------------------------------------------------------


def test_other_archives_with_other_sums_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mirror, raw = tmp_path / "mirror", tmp_path / "work" / "raw"
    words = ["wmt16_enro", "--gpus", "0", "--scale", "tiny", "--work", str(tmp_path / "work"), "--until", "download"]
    words += ["--mirror", str(mirror)]
    sums = ["--checksums", str(mirror / SUMS)]

    def outcome(*options: str, status: int = 0) -> str:
        assert reproduce.main([*words, *options]) == status
        written = capsys.readouterr()
        return written.err if status else written.out

    make_archives(mirror, "wmt16", train_pairs=60)
    assert "download: done in" in outcome(*sums)
    assert "download: checked, unchanged, in" in outcome(*sums)
    make_archives(mirror, "wmt16", train_pairs=40)
    assert "download: done in" in outcome(*sums)
    assert len((raw / "train.en").read_bytes().splitlines()) == 40
    assert "--checksums" in outcome(status=1)  # left out: the text stays as it is
    assert "download: checked, unchanged, in" in outcome(*sums)


def test_a_stage_that_checks_itself_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("1\n")
    first = Stage("get", "", ((Command(("get",)),),), (tmp_path / "got",), self_checking=True)
    second = Stage("use", "", ((Command(("use",)),),), (tmp_path / "used",), (tmp_path / "got",))
    space = Workspace(tmp_path)
    space.records.mkdir()
    assert [decision.action for _, decision in plan(space, [first, second])] == ["run", "run"]
    for stage in (first, second):
        space.begin(stage, space.fingerprint(stage))
        stage.outputs[0].write_text("made\n")
        assert space.finish(stage, space.fingerprint(stage), seconds=1.0, versions={})
    (_, checked), (_, skipped) = plan(space, [first, second])
    assert (checked.action, skipped.action) == ("continue", "skip")
    assert skipped.reason.endswith("; unless get brings anything new")

    record = space.record(first)
    space.begin(first, space.fingerprint(first), keep=True)
    assert space.decide(first).action == "continue"  # also after a failure
    assert not space.finish(first, space.fingerprint(first), seconds=9.0, versions={})
    assert space.record(first) == record
    space.begin(first, space.fingerprint(first), keep=True)
    (tmp_path / "got").write_text("made anew\n")
    assert space.finish(first, space.fingerprint(first), seconds=9.0, versions={})
    assert space.record(first)["seconds"] == 9.0
    assert space.decide(second).reason == "changed: got"
    assert space.decide(first, redo=True).action == "run"
