import json
import subprocess
import sys

import pytest
from sacrebleu.metrics.bleu import BLEU

from nat_plugin import scoring
from nat_plugin.data.literature import clean_corpus
from nat_plugin.scoring import score, significance
from plugin_common.errors import UserError

REFERENCES = {
    "de": ["Das ist ein Rich-Text-Format.", "Er sagt: „Nein, Dr. Hahn.“ Gut. Das war's.", "3,5 % sind’s…"],
    "en": ["This is a rich-text format.", "He says: “No, Dr. Hahn.” Good. That’s it.", "It is 3.5 % , so ."],
    "ro": ["Ştiinţa e aici.", "Şi «ţara» mea…", "Da, în 2016."],
}
DIRECTIONS = [("wmt14", "de"), ("wmt14", "en"), ("wmt16", "ro"), ("wmt16", "en"), ("iwslt14", "en"), ("iwslt14", "de")]


def values(scores) -> dict[str, float]:
    return {one.name: one.value for one in scores}


@pytest.mark.parametrize(("dataset", "language"), DIRECTIONS)
def test_reference_itself_scores_100(dataset, language):
    scores = values(score(dataset, language, REFERENCES[language], REFERENCES[language]))
    assert list(scores.values()) == pytest.approx([100] * len(scores))


@pytest.mark.parametrize(("dataset", "language"), DIRECTIONS)
def test_perfect_output_of_a_model_scores_100_tokenised(tmp_path, dataset, language):
    """A model writes the spelling (for IWSLT14 the lower case) that cleaning gave its training text."""
    other = {"wmt14": {"de": "en", "en": "de"}, "wmt16": {"ro": "en", "en": "ro"}, "iwslt14": {"de": "en", "en": "de"}}
    source = other[dataset][language]
    (tmp_path / "raw").mkdir()
    for split in ("train", "valid", "test"):
        for one in (source, language):
            (tmp_path / "raw" / f"{split}.{one}").write_text("".join(f"{line}\n" for line in REFERENCES[one]))
    clean_corpus(dataset, source, language, tmp_path / "raw", tmp_path / "clean")
    output = (tmp_path / "clean" / f"test.{language}").read_text().split("\n")[:-1]
    scores = values(score(dataset, language, output, REFERENCES[language]))
    assert scores["BLEU tokenised"] == pytest.approx(100)
    if dataset != "iwslt14":
        assert scores["sacreBLEU"] < 99.9  # the published reference keeps its quotes and cedillas


def test_plain_scores_are_sacrebleus_own():
    hypotheses = ["This is a rich text format.", "He says no. Good.", "It is 3.5 %."]
    found = {one.name: one for one in score("wmt14", "en", hypotheses, REFERENCES["en"])}
    metric = BLEU()
    assert found["sacreBLEU"].value == metric.corpus_score(hypotheses, [REFERENCES["en"]]).score
    assert found["sacreBLEU"].signature == str(metric.get_signature())
    assert found["chrF2"].signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")


def test_wmt14_splits_compounds():
    """Four of the five tokens of "rich ##AT##-##AT## text" style count although one half of the compound is wrong."""
    hypothesis, reference = ["Das ist ein Rich-Wort jetzt da ."], ["Das ist ein Rich-Text jetzt da ."]
    plain = BLEU(tokenize="none", force=True).corpus_score(hypothesis, [reference]).score
    assert values(score("wmt14", "de", hypothesis, reference))["BLEU tokenised"] > plain + 10


def test_iwslt14_ignores_case():
    lower = [line.lower() for line in REFERENCES["en"]]
    assert values(score("iwslt14", "en", lower, REFERENCES["en"]))["sacreBLEU"] == pytest.approx(100)
    assert values(score("wmt14", "en", lower, REFERENCES["en"]))["sacreBLEU"] < 90


def test_romanian_with_and_without_diacritics():
    plain = ["Stiinta e aici.", "Si «tara» mea…", "Da, in 2016."]
    scores = values(score("wmt16", "ro", plain, REFERENCES["ro"]))
    assert scores["BLEU tokenised, no diacritics"] == pytest.approx(100)
    assert scores["BLEU tokenised"] < 60


def test_signatures_say_all_that_is_needed():
    signatures = {(d, t): score(d, t, REFERENCES[t], REFERENCES[t])[2].signature for d, t in DIRECTIONS}
    for (_, language), signature in signatures.items():
        assert "tok:none" in signature and "version:" in signature and "sacremoses:" in signature
        assert f"lang:{language}" in signature
    assert "prep:moses-punctuation+moses-tokens+compound-split" in signatures["wmt14", "de"]
    assert "romanian-comma-below" in signatures["wmt16", "ro"]
    assert "romanian" not in signatures["wmt16", "en"]
    assert "caseless-moses-tokens" in signatures["iwslt14", "en"]


def test_paired_bootstrap():
    references = [f"This is sentence number {number} of the test set." for number in range(60)]
    worse = [line.replace("sentence number", "word") for line in references]
    compared = {one.name: one for one in significance("wmt14", "en", worse, references, references, samples=200)}
    assert set(compared) == {"sacreBLEU", "chrF2"}
    assert compared["sacreBLEU"].p_value < 0.05
    assert compared["sacreBLEU"].system == pytest.approx(100) and compared["sacreBLEU"].baseline < 90
    assert "bs:200" in compared["sacreBLEU"].signature and "seed:" in compared["sacreBLEU"].signature
    same = significance("wmt14", "en", references, references, references, samples=200)
    assert all(one.p_value > 0.5 for one in same)


@pytest.mark.parametrize(
    ("dataset", "language", "hypotheses", "message"),
    [
        ("wmt15", "de", ["a"], "wmt15: no such data set"),
        ("wmt16", "de", ["a"], "--target-lang de: wmt16 has the languages en and ro"),
        ("wmt14", "de", ["a", "b"], "2 hypotheses for 1 references"),
    ],
)
def test_bad_input(dataset, language, hypotheses, message):
    with pytest.raises(UserError, match=message):
        score(dataset, language, hypotheses, ["a"])


def test_no_line_at_all():
    with pytest.raises(UserError, match="no reference at all"):
        score("wmt14", "de", [], [])


def test_command(tmp_path):
    (tmp_path / "hyp").write_text("Das ist ein Format.\n\n3,5 % sind's...\n")
    (tmp_path / "ref").write_text("".join(f"{line}\n" for line in REFERENCES["de"]))
    command = [sys.executable, "-m", "nat_plugin.scoring", "--dataset", "wmt14", "--target-lang", "de"]
    command += ["--hypotheses", str(tmp_path / "hyp"), "--references", str(tmp_path / "ref")]
    done = subprocess.run([*command, "--json", str(tmp_path / "out.json")], capture_output=True, text=True, check=True)
    assert "1 of 3 lines are empty" in done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["lines"], result["empty_hypotheses"]) == (3, 1)
    for one in result["scores"]:
        assert f"{one['name']}\t{one['value']:.2f}\t{one['signature']}" in done.stdout.split("\n")


def test_command_compares_with_a_baseline_and_refuses_bad_input(tmp_path, capsys):
    for name in ("hyp", "base", "ref"):
        (tmp_path / name).write_text("A line of text.\nAnother one here.\n")
    arguments = ["--dataset", "iwslt14", "--target-lang", "en", "--hypotheses", str(tmp_path / "hyp")]
    arguments += ["--references", str(tmp_path / "ref"), "--baseline", str(tmp_path / "base")]
    assert scoring.main([*arguments, "--json", "-"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["significance"]] == ["sacreBLEU", "chrF2"]
    assert scoring.main(arguments) == 0
    assert "sacreBLEU\t100.00 -> 100.00\tp = " in capsys.readouterr().out
    (tmp_path / "base").write_text("A line of text.\n")
    assert scoring.main(arguments) == 1
    assert "1 hypotheses for 2 references" in capsys.readouterr().err
