import subprocess
import sys

import pytest
import torch

from nat_plugin import cli
from plugin_common.checkpoint_files import check_and_load


def fairseq(command: str, *options: str) -> str:
    """Run one of fairseq's commands in a process of its own, with what the plugin mends in it."""
    code = (
        "import sys\nfrom plugin_common import compat\ncompat.apply()\n"
        f"from fairseq_cli.{command} import cli_main\nsys.argv = ['{command}', *sys.argv[1:]]\ncli_main()"
    )
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a real, tiny training by fairseq: data in bin/, checkpoints in run/."""
    folder = tmp_path_factory.mktemp("trained")
    words = "abcdefgh"
    lines = [" ".join(words[(k * m) % 8] for m in range(1, 2 + k % 6)) for k in range(96)]
    for split, part in (("train", lines), ("valid", lines[:16])):
        (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in part))
        (folder / f"{split}.de").write_text("".join(f"{line.upper()}\n" for line in part))
    prefixes = ["--trainpref", f"{folder}/train", "--validpref", f"{folder}/valid"]
    fairseq("preprocess", "-s", "en", "-t", "de", *prefixes, "--destdir", f"{folder}/bin")
    size = (
        "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 8 --decoder-embed-dim 8 --encoder-ffn-embed-dim 8 "
    )
    size += "--decoder-ffn-embed-dim 8 --encoder-attention-heads 2 --decoder-attention-heads 2"
    steps = (
        "--max-epoch 4 --max-tokens 100 --optimizer adam --lr 0.01 --keep-best-checkpoints 2 --save-interval-updates 7"
    )
    tying = "--share-decoder-input-output-embed"
    options = f"{size} {steps} {tying} --cpu --num-workers 0 --log-format none".split()
    fairseq("train", f"{folder}/bin", "--arch", "transformer", "--save-dir", f"{folder}/run", *options)
    return folder


@pytest.mark.slow
def test_best_of_a_real_training_translates(trained, tmp_path, capsys):
    output = tmp_path / "best2.pt"
    assert cli.main(["average", str(trained / "run"), "--best", "2", "--output", str(output)]) == 0
    report = capsys.readouterr().out.splitlines()
    assert report[0].startswith(f"{output}: the mean of 2 checkpoints, ")
    files = [trained / "run" / line.split(":")[0].strip() for line in report[1:]]
    states = [check_and_load(file) for file in files]
    values = [state["extra_state"]["val_loss"] for state in states]
    every = {check_and_load(file)["extra_state"]["val_loss"] for file in (trained / "run").iterdir()}
    assert values == sorted(every)[:2]  # the two lowest losses
    average = check_and_load(output)
    assert list(average["model"]) == list(states[0]["model"])
    for key, tensor in average["model"].items():
        expected = (states[0]["model"][key].double() + states[1]["model"][key].double()) / 2
        assert torch.equal(tensor, expected.float()), key
    tied = [average["model"][f"decoder.{name}.weight"].data_ptr() for name in ("embed_tokens", "output_projection")]
    assert tied[0] == tied[1]
    assert output.stat().st_size < files[0].stat().st_size / 2  # no optimizer state
    options = ["--path", str(output), "--gen-subset", "valid", "--cpu", "--required-batch-size-multiple", "1"]
    generated = fairseq("generate", str(trained / "bin"), *options)
    assert "Translated 16 sentences" in generated


@pytest.mark.slow
def test_training_goes_on_from_an_average(trained, tmp_path):
    output = tmp_path / "last2.pt"
    assert cli.main(["average", str(trained / "run"), "--last", "2", "--output", str(output)]) == 0
    settings = vars(check_and_load(output)["cfg"]["model"])
    size = [f"--{key.replace('_', '-')}={settings[key]}" for key in settings if key.startswith(("encoder_", "decoder_"))
            and key.endswith(("_layers", "embed_dim", "_heads"))]  # fmt: skip
    options = (
        "--arch transformer --share-decoder-input-output-embed --max-epoch 1 --max-tokens 100 --optimizer adam --cpu"
    )
    log = fairseq("train", str(trained / "bin"), *size, *options.split(), "--finetune-from-model", str(output),
                  "--save-dir", f"{tmp_path}/run", "--num-workers", "0")  # fmt: skip
    assert f"loading pretrained model from {output}" in log
    assert "done training" in log


def toy(path, value: float, updates: int, **settings) -> str:
    state = {
        "cfg": {"model": {"_name": "toy", **settings}, "checkpoint": {"best_checkpoint_metric": "bleu"}},
        "model": {"w": torch.full((4,), value)},
        "optimizer_history": [{"num_updates": updates}],
        "extra_state": {"val_loss": value},
    }
    torch.save(state, path)
    return str(path)


def test_inputs_are_averaged_and_named(tmp_path, capsys):
    inputs = [toy(tmp_path / f"{name}.pt", value, 10) for name, value in (("a", 1.0), ("b", 2.0), ("c", 6.0))]
    assert cli.main(["average", "--inputs", *inputs, "--output", f"{tmp_path}/mean.pt"]) == 0
    assert check_and_load(tmp_path / "mean.pt")["model"]["w"].tolist() == [3.0] * 4
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/mean.pt: the mean of 3 checkpoints, 4 values, without optimizer state",
        "  a.pt: epoch 0, update 10, bleu 1",
        "  b.pt: epoch 0, update 10, bleu 2",
        "  c.pt: epoch 0, update 10, bleu 6",
    ]


def test_different_models_are_refused_and_nothing_is_written(tmp_path, capsys):
    inputs = [
        toy(tmp_path / "a.pt", 1.0, 1, dropout=0.1, layers=1),
        toy(tmp_path / "b.pt", 1.0, 2, dropout=0.3, layers=2),
    ]
    command = ["average", "--inputs", *inputs, "--output", f"{tmp_path}/mean.pt", "--ignore-setting", "dropout"]
    assert cli.main(command) == 1
    report = capsys.readouterr().err
    assert f"{inputs[1]}: its model has layers=2, that of {inputs[0]} layers=1" in report
    assert "dropout" not in report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]
    assert cli.main([*command, "--ignore-setting", "layers"]) == 0


def test_inputs_given_twice_and_overwriting_are_refused(tmp_path, capsys):
    a = toy(tmp_path / "a.pt", 1.0, 1)
    (tmp_path / "link.pt").symlink_to("a.pt")
    assert cli.main(["average", "--inputs", a, f"{tmp_path}/link.pt", "--output", a]) == 1
    report = capsys.readouterr().err
    assert f"{a}: given twice" in report
    assert f"--output {a}: is one of the checkpoints to average" in report
    assert cli.main(["average", "--inputs", a, "--output", f"{tmp_path}/none/mean.pt"]) == 1
    assert f"there is no folder {tmp_path}/none; make it first" in capsys.readouterr().err


def test_a_checkpoint_with_code_is_refused(tmp_path, capsys):
    torch.save({"model": {"w": torch.ones(1)}, "hook": print}, tmp_path / "code.pt")
    assert cli.main(["average", "--inputs", f"{tmp_path}/code.pt", "--output", f"{tmp_path}/mean.pt"]) == 1
    assert "code.pt: the checkpoint holds pickled code" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--inputs", "a", "--best", "2"], "not allowed with argument"),
        ([], "one of the arguments --inputs --best --last is required"),
        (["--best", "2"], "--best and --last need SAVE_DIR"),
        (["run", "--inputs", "a"], "give either --inputs or SAVE_DIR (run), not both"),
        (["run", "--last", "2", "--metric", "bleu"], "--metric, --maximize and --minimize go with --best"),
        (["run", "--best", "0"], "0: expected at least 1"),
        (["--inputs", "a", "--allow-fewer"], "--allow-fewer goes with --best or --last"),
    ],
)
def test_wrong_use_ends_with_status_2(capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        cli.main(["average", *options, "--output", "out.pt"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
