"""Options of one-pass decoding on fairseq-generate's and -interactive's command lines."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nat_plugin.decoding.precision import bf16_support
from tests.commands import Finished, Runner
from tests.toy import LINES, TASK, Toy

Generate = Callable[..., Finished]


@pytest.fixture
def generate(run: Runner, toy: Toy) -> Generate:
    """``generate(*options)``: translate the toy's test set."""

    def call(*words: str, path: Any = toy.best, command: str = "fairseq-generate", **options: Any) -> Finished:
        return run(command, toy.bin, *TASK, "--path", path, *words, **options)

    return call


SCORED = ("--scoring", "sacrebleu")


def scores(done: Finished) -> dict[int, float]:
    return {number: float(rest.split("\t")[0]) for number, rest in done.lines("H").items()}


def test_without_scores_translations_are_the_same(generate: Generate) -> None:
    done = generate("--no-scores", *SCORED)
    assert done.translations() == generate(*SCORED).translations()
    assert set(scores(done).values()) == {0.0}
    assert {float(mark) for marks in done.lines("P").values() for mark in marks.split()} == {0.0}
    assert "decoding in float32 (default)" in done.log


@pytest.mark.parametrize("words", [("--decode-precision", "bf16"), ("--bf16",)])
def test_bf16(generate: Generate, words: tuple[str, ...]) -> None:
    reference, done = generate(*SCORED), generate(*words, *SCORED)
    assert "decoding in bfloat16 (" in done.log
    found, expected = done.translations(), reference.translations()
    assert sum(found[number] == line for number, line in expected.items()) >= LINES["test"] - 2
    assert scores(done) != scores(reference), "bf16 rounds"
    assert max(abs(scores(done)[number] - score) for number, score in scores(reference).items()) < 0.1


def test_auto_says_what_it_chose(generate: Generate) -> None:
    fast, what = bf16_support(torch.device("cpu"))
    log = generate("--decode-precision", "auto", *SCORED).log
    assert f"decoding in {'bfloat16' if fast else 'float32'} (--decode-precision auto: {what})" in log


@pytest.mark.parametrize("ensemble", [False, True])
def test_beam_search_is_that_of_the_function(
    generate: Generate, toy: Toy, load_models: Callable[..., Any], ensemble: bool
) -> None:
    from nat_plugin.decoding.beam_search import BeamOptions, ctc_beam_search

    paths = sorted((toy.folder / "run").glob("checkpoint[0-9]*.pt"))[:2] if ensemble else [toy.best]
    options = ("--ctc-beam", "4", "--ctc-candidates", "9", "--ctc-token-bonus", "2.5")
    done = generate(*options, *SCORED, path=":".join(map(str, paths)))
    models, task = load_models(toy.bin, *paths)
    for number, line in enumerate(toy.read("test.en")):
        tokens = task.src_dict.encode_line(line, add_if_not_exist=False).long()
        with torch.no_grad():
            outputs = [model(tokens[None], torch.tensor([len(tokens)])) for model in models]
            log_probs = sum(m.get_normalized_probs(o, True) for m, o in zip(models, outputs, strict=True)) / len(models)
        top, blank, lengths = log_probs.topk(9), models[0].blank, outputs[0].lengths
        best = ctc_beam_search(
            top.values.numpy(), top.indices.numpy(), log_probs[..., blank].numpy(), lengths.numpy(), blank=blank,
            pad=1, options=BeamOptions(beam=4, candidates=9, token_bonus=2.5),
        )  # fmt: skip
        assert done.translations()[number] == task.tgt_dict.string(torch.from_numpy(best.tokens[0]))
        mean = best.scores[0] / max(int(lengths[0]), 1) / torch.log(torch.tensor(2.0)).item()
        assert scores(done)[number] == pytest.approx(mean, abs=1e-4)


@pytest.fixture(scope="module")
def language_model(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bigram model of the target side."""
    from nat_plugin.cli import main

    path = tmp_path_factory.mktemp("lm") / "lm.npz"
    files = ["--corpus", f"{toy.folder}/train.de", "--dict", f"{toy.folder}/dict.txt", "--output", str(path)]
    assert main(["ngram-lm", *files, "--order", "2"]) == 0
    return path


def test_a_language_model_has_a_say(generate: Generate, toy: Toy, language_model: Path) -> None:
    weighted = generate("--ctc-beam", "4", "--lm", str(language_model), "--lm-weight", "0.1", *SCORED)
    right = sum(weighted.translations()[i] == line for i, line in enumerate(toy.read("test.de")))
    assert right >= LINES["test"] - 3
    ruled = generate("--ctc-beam", "4", "--lm", str(language_model), "--lm-weight", "20", *SCORED)
    assert ruled.translations() != weighted.translations()


def test_interactive_searches_and_needs_no_scores(generate: Generate) -> None:
    typed = "w1 w2 w3\n\nw4 w5\n"
    done = generate("--ctc-beam", "3", "--no-scores", "--decode-precision", "bf16", command="fairseq-interactive",
                    input=typed)  # fmt: skip
    assert list(done.translations().values()) == ["W1 W2 W3", "", "W4 W5"]
    assert set(scores(done).values()) == {0.0}


def test_bad_options_are_told_at_once(generate: Generate) -> None:
    message = generate(
        "--lm", "no/lm", "--ctc-token-bonus", "1", "--cuda-graphs", "--compile-decoder", *SCORED, expect=1
    ).error()
    assert "6 problems:" in message
    for part in (
        "--cuda-graphs needs a CUDA GPU", "--cuda-graphs and --compile-decoder exclude each other",
        "--lm no/lm: no such file", "--lm has no effect without a weight; give one, e.g. --lm-weight 0.3",
        "--lm has no effect without a beam", "--ctc-token-bonus has no effect without a beam",
    ):  # fmt: skip
        assert part in message
    weight = generate("--lm-weight", "0.3", *SCORED, expect=1).error()
    assert "--lm-weight 0.3 needs a language model: give --lm PATH, or leave it out" in weight
    half = generate("--fp16", "--decode-precision", "bf16", *SCORED, expect=1).error()
    assert "--fp16 and --decode-precision bf16 (--bf16) exclude each other" in half
    both = generate("--bf16", "--decode-precision", "fp32", *SCORED, expect=1).error()
    assert "--bf16 and --decode-precision fp32 exclude each other; leave one out" in both
    bonus = generate("--ctc-beam", "2", "--ctc-token-bonus", "nan", *SCORED, expect=1).error()
    assert "--ctc-token-bonus nan: expected a finite number" in bonus


def test_too_wide_a_beam_is_told(generate: Generate) -> None:
    done = generate("--ctc-beam", "100000000", "--ctc-candidates", "1000000", *SCORED, expect=1)
    assert "beam search: too little memory for beam 100000000, " in done.error()
    assert "lower --ctc-beam first" in done.error()


def test_a_missing_compiler_is_told_before_decoding(generate: Generate, tmp_path: Path) -> None:
    environment = {"PATH": f"{Path(os.__file__).parent}", "CXX": ""}
    done = generate("--compile-decoder", *SCORED, env=environment, expect=1)
    assert "torch.compile needs a compiler (g++ or clang++), and none is on the PATH" in done.error()
    assert not done.translations()


@pytest.mark.slow
def test_compiled_translations_are_the_same(generate: Generate) -> None:
    done = generate("--compile-decoder", "--batch-size", "4", *SCORED)
    assert done.translations() == generate(*SCORED).translations()
    assert "recompile_limit" not in done.log
    assert "filelock" not in done.log


@pytest.mark.parametrize(
    "words", [("--ctc-beam", "4", "--eval-bleu"), ("--no-scores", "--eval-bleu"), ("--decode-precision", "bf16")]
)
def test_training_refuses_them(run: Runner, toy: Toy, tmp_path: Path, words: tuple[str, ...]) -> None:
    from tests.toy import LOGS, OPTIMIZER, SHAPE

    message = run(
        "fairseq-train", toy.bin, *TASK, *SHAPE, *OPTIMIZER, *LOGS, "--criterion", "ctc_nat_loss", "--max-tokens",
        "300", "--max-update", "1", "--save-dir", tmp_path, *words, expect=1,
    ).error()  # fmt: skip
    assert f"{words[0]} is for fairseq-generate and fairseq-interactive: validation decodes greedily" in message
    assert not list(tmp_path.iterdir())
