import argparse
import json

import pytest

from nid_plugin.documents import DocumentSettings
from nid_plugin.documents.options import add_document_options, document_settings
from plugin_common.errors import UserError


def parsed(*words) -> DocumentSettings:
    parser = argparse.ArgumentParser()
    add_document_options(parser)
    return document_settings(parser.parse_args(list(words)))


def test_the_defaults_are_those_of_the_data_class():
    assert parsed("a.txt") == DocumentSettings(("a.txt",))


def test_every_option_reaches_the_settings(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    settings = parsed(
        *("a", "b", "--input-format", "txt", "--txt-documents", "paragraphs", "--text-column", "body"),
        *("--dataset-config", "c", "--dataset-split", "s", "--dataset-revision", "r", "--shuffle-buffer", "5"),
        *("--seed", "6", "--take", "8", "--shard", "2/4", "--min-document-tokens", "1"),
        *("--max-document-tokens", "9", "--length-tokenizer", str(tmp_path), "--drop-duplicates"),
        *("--drop-near-duplicates", "0.7", "--language", "de", "--language-certainty", "0.9"),
        *("--halve-at", "token", "--halve-tokenizer", str(tmp_path), "--smallest-half", "0.1"),
    )
    assert settings == DocumentSettings(
        ("a", "b"), "txt", "paragraphs", "body", "c", "s", "r", 5, 6, None, 8, 2, 4, 1, 9, str(tmp_path), True, 0.7,
        "de", 0.9, "token", str(tmp_path), "de", 0.1,
    )  # fmt: skip
    assert json.loads(json.dumps(settings.as_dict())) == settings.as_dict()


def test_near_duplicates_without_a_number():
    assert parsed("a", "--drop-near-duplicates", "--seed", "2").near_duplicates == 0.8
    assert parsed("a", "--sample", "3", "--sentence-language", "fr").sentence_language == "fr"


def test_all_wrong_options_at_once(tmp_path):
    with pytest.raises(UserError) as caught:
        parsed(
            *("-", "--sample", "0", "--take", "0", "--shard", "0/4", "--min-document-tokens", "9"),
            *("--max-document-tokens", "8", "--drop-near-duplicates", "1.5", "--language-certainty", "1"),
            *("--smallest-half", "0.5", "--shuffle-buffer", "-1", "--halve-at", "token"),
            *("--length-tokenizer", str(tmp_path)),
        )
    message = str(caught.value)
    assert message.startswith("12 problems:")
    for problem in (
        "--sample 0: expected 1 or more",
        "--take 0: expected 1 or more",
        "--sample draws from all documents, --take stops",
        "--shard 0/4: expected K/N with K from 1 to N",
        "--max-document-tokens 8 is less than --min-document-tokens 9",
        "--drop-near-duplicates 1.5: expected",
        "--language-certainty 1.0: expected",
        "--smallest-half 0.5: expected",
        "--shuffle-buffer -1: expected 0 or more",
        "--halve-at token needs --halve-tokenizer",
        "- (standard input) needs --input-format",
        f"--length-tokenizer {tmp_path}: the folder has no tokenizer.json",
    ):
        assert problem in message


@pytest.mark.parametrize("shard", ["x", "1", "1/", "/2", "-1/2", "1/0", "3/2", "1/2/3"])
def test_wrong_shards(shard):
    with pytest.raises(UserError, match=r"--shard .*expected K/N"):
        parsed("a", f"--shard={shard}")


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_seeds_beyond_64_bits(seed):
    with pytest.raises(UserError, match=rf"--seed {seed}: expected a number of 64 bits"):
        parsed("a", f"--seed={seed}")
    assert parsed("a", f"--seed={-(2**63)}").seed == -(2**63)
