"""``fairseq-generate`` as a user calls it."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import PLUGIN, Finished, Runner
from tests.toy import LINES, POSITIONS, TASK, Pieces, Toy, new_corpus, sentences

Generate = Callable[..., Finished]


@pytest.fixture
def generate(run: Runner, toy: Toy) -> Generate:
    """``generate(*options, data=…, path=…)``: translate the test set, by default with the toy's best model."""

    def call(
        *words: str, data: Path = toy.bin, path: Any = toy.best, scoring: str = "sacrebleu", **options: Any
    ) -> Finished:
        return run("fairseq-generate", data, *TASK, "--path", path, "--scoring", scoring, *words, **options)

    return call


def test_the_usual_lines_for_every_sentence(generate: Generate, toy: Toy) -> None:
    done = generate(fresh=True)
    source, target = toy.read("test.en"), toy.read("test.de")
    for kind, lines in (("S", source), ("T", target)):
        assert done.lines(kind) == dict(enumerate(lines))
    translations = done.translations()
    assert sorted(translations) == list(range(LINES["test"]))
    wrong = [i for i, line in enumerate(target) if translations[i] != line]
    assert wrong == [7], "the model has learned all but the sentence that has no translation"
    assert {i: rest.split("\t")[1] for i, rest in done.lines("D").items()} == translations
    for i, marks in done.lines("P").items():
        assert len(marks.split()) == len(translations[i].split()) + 1, "one for each token and one for </s>"
    assert "Generate test with beam=5: BLEU = " in done.stdout
    assert "Traceback" not in done.log
    assert "Warning" not in done.stderr


def test_scores_are_base_2_logarithms_of_the_models_probabilities(
    generate: Generate, toy: Toy, load_models: Callable[..., Any]
) -> None:
    done = generate()
    (model,), task = load_models(toy.bin, toy.best)
    for number, line in enumerate(toy.read("test.en")):
        tokens = task.src_dict.encode_line(line, add_if_not_exist=False).long()
        with torch.no_grad():
            output = model(tokens[None], torch.tensor([len(tokens)]))
            best, labels = model.get_normalized_probs(output, log_probs=True)[0].max(-1)
        mean = float(best.mean()) / math.log(2) if len(best) else 0.0
        assert float(done.lines("H")[number].split("\t")[0]) == pytest.approx(mean, abs=1e-4)
        first = [i for i in range(len(labels)) if labels[i] != model.blank and (i == 0 or labels[i] != labels[i - 1])]
        marks = [float(best[i]) / math.log(2) for i in first] + [0.0]
        assert [float(mark) for mark in done.lines("P")[number].split()] == pytest.approx(marks, abs=2e-4)


@pytest.mark.parametrize("batching", [("1", "8"), ("64", "8"), ("7", "1"), ("3", "64")])
def test_no_sentence_is_lost_and_batching_changes_no_token(
    generate: Generate, toy: Toy, batching: tuple[str, str]
) -> None:
    done = generate("--batch-size", batching[0], "--required-batch-size-multiple", batching[1])
    reference = generate("--max-tokens", "60")
    assert len(done.translations()) == LINES["test"]
    assert done.translations() == reference.translations()
    for number, marks in done.lines("P").items():
        expected = [float(mark) for mark in reference.lines("P")[number].split()]
        assert [float(mark) for mark in marks.split()] == pytest.approx(expected, abs=2e-4)
    assert f"Translated {LINES['test']} sentences" in done.log


def test_an_ensemble_of_the_same_model_twice_is_the_model(generate: Generate, toy: Toy) -> None:
    alone, twice = generate(), generate(path=f"{toy.best}:{toy.best}")
    assert twice.translations() == alone.translations()
    for number, rest in alone.lines("H").items():
        assert float(twice.lines("H")[number].split("\t")[0]) == pytest.approx(float(rest.split("\t")[0]), abs=1e-5)


def test_an_ensemble_of_two_epochs(generate: Generate, toy: Toy) -> None:
    epochs = sorted((toy.folder / "run").glob("checkpoint[0-9]*.pt"))
    assert len(epochs) == 2
    done = generate(path=":".join(map(str, epochs)))
    assert sum(done.translations()[i] == line for i, line in enumerate(toy.read("test.de"))) >= LINES["test"] - 1


def test_models_that_cannot_vote_together(generate: Generate, toy: Toy, run: Runner, tmp_path: Path) -> None:
    from tests.toy import SHAPE, TRAIN

    run(
        "fairseq-train", toy.bin, *TASK, *SHAPE, *TRAIN, "--max-tokens", "300", "--max-update", "1", "--save-dir",
        tmp_path, "--blank-symbol", "<mask>", "--upsample-ratio", "3",
    )  # fmt: skip
    message = generate(path=f"{toy.best}:{tmp_path}/checkpoint_last.pt", expect=1).error()
    assert "--blank-symbol of model 2 is <mask>, of model 1 <s>; models given as a:b need the same ones" in message
    assert "--upsample-ratio of model 2 is 3.0, of model 1 2.0" in message


def test_options_that_one_pass_cannot_follow_are_refused_all_at_once(generate: Generate) -> None:
    message = generate(
        "--score-reference", "--prefix-size", "1", "--constraints", "--sampling", "--nbest", "5",
        "--diverse-beam-groups", "2", "--match-source-len", expect=1,
    ).error()  # fmt: skip
    refused = ("score-reference", "prefix-size", "constraints", "sampling", "nbest", "diverse-beam-groups",
               "match-source-len")  # fmt: skip
    for option in refused:
        assert f"--{option} needs a left-to-right model; leave it out with --task ctc_nat" in message
    assert f"{len(refused)} problems:" in message


@pytest.mark.parametrize("scoring", ["bleu", "sacrebleu", "chrf"])
def test_empty_hypotheses_do_not_disturb_any_scorer(
    generate: Generate, run: Runner, tmp_path: Path, scoring: str
) -> None:
    corpus = new_corpus(tmp_path / "corpus")
    corpus.write("test", ["", "", "w1"], ["", "", "W1"])
    if scoring == "bleu":  # also when there is not one token in all hypotheses
        corpus.write("test", ["", ""], ["W1 W2", ""])
    data = corpus.preprocess(run, splits=("test",))
    done = generate(data=data, scoring=scoring)
    assert (done.translations()[0], done.translations()[1]) == ("", "")
    assert "Generate test with beam=5:" in done.stdout


def test_over_long_sources_are_translated_as_far_as_positions_go(
    generate: Generate, run: Runner, tmp_path: Path
) -> None:
    corpus = new_corpus(tmp_path / "corpus")
    source = sentences(3, 5)
    source[1] = " ".join(sentences(30, 6))
    corpus.write("test", source, source)
    done = generate(data=corpus.preprocess(run, splits=("test",)))
    assert f"test: 1 of 3 sources are longer than {POSITIONS - 1} tokens and were cut there: line 2" in done.log
    assert done.lines("S")[1].split() == source[1].split()[: POSITIONS - 1]
    assert sorted(done.translations()) == [0, 1, 2]
    assert len(done.translations()[1].split()) > 0


def test_sources_alone_suffice(generate: Generate, toy: Toy, tmp_path: Path) -> None:
    data = Path(shutil.copytree(toy.bin, tmp_path / "bin"))
    for kind in ("bin", "idx"):
        (data / f"test.en-de.de.{kind}").unlink()
    done = generate(data=data)
    assert done.translations() == generate().translations()
    assert not done.lines("T")
    assert "Generate test" not in done.stdout


def test_results_can_go_to_a_file(generate: Generate, tmp_path: Path) -> None:
    generate("--results-path", str(tmp_path), "--quiet")
    assert "Generate test with beam=5: BLEU" in (tmp_path / "generate-test.txt").read_text()


def test_half_precision_on_a_cpu(generate: Generate) -> None:
    reference = generate().translations()
    found = generate("--fp16").translations()
    assert sum(found[number] == line for number, line in reference.items()) >= LINES["test"] - 2


def test_the_task_must_be_named(run: Runner, toy: Toy) -> None:
    message = run(
        "fairseq-generate", toy.bin, "--user-dir", PLUGIN, "--cpu", "--path", toy.best, expect=1
    ).error()  # fmt: skip
    assert "the model translates in one pass, which other tasks do not know: add --task ctc_nat" in message


# ---- with a PMLM folder ---------------------------------------------------------------------------------------------


def test_data_and_checkpoint_suffice_after_training_from_a_folder(generate: Generate, pieces: Pieces) -> None:
    assert not (pieces.folder / "only for training").exists()
    done = generate(data=pieces.bin, path=pieces.checkpoint, cwd=Path("/"))
    assert done.translations() == done.lines("T")


def test_with_its_tokenizer_everything_is_plain_text(generate: Generate, pieces: Pieces) -> None:
    done = generate("--bpe", "pmlm", "--pmlm-tokenizer", str(pieces.pmlm), data=pieces.bin, path=pieces.checkpoint)
    assert done.lines("S") == {i: source for i, (source, _) in enumerate(pieces.test)}
    assert done.lines("T") == {i: target for i, (_, target) in enumerate(pieces.test)}
    assert {i: rest.split("\t")[1] for i, rest in done.lines("D").items()} == done.lines("T")
    assert "BLEU = 100.00" in done.stdout


def test_the_tokenizer_must_be_named(generate: Generate, pieces: Pieces) -> None:
    message = generate("--bpe", "pmlm", data=pieces.bin, path=pieces.checkpoint, expect=1).error()
    assert "--bpe pmlm needs --pmlm-tokenizer FOLDER: the PMLM folder that tokenised the data" in message
