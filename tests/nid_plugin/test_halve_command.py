import argparse
import json

import pytest

from nid_plugin import halve_command
from plugin_common.errors import UserError

TEXTS = [f"This is document {number}. It has a second sentence, and an end." for number in range(20)]


def run(*words) -> None:
    parser = argparse.ArgumentParser()
    halve_command.configure(parser)
    halve_command.run(parser.parse_args([str(word) for word in words]))


def test_halves_report_and_what_is_said(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, TEXTS[0], "x"]))
    out, report = tmp_path / "halves.jsonl", tmp_path / "counts.json"
    run(tmp_path / "a.jsonl", "--min-document-tokens", "2", "--drop-duplicates", "--out", out, "--report", report)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["prompt"] + line["second_half"] for line in lines] == TEXTS
    told = json.loads(report.read_text())
    assert told["counts"] == {"read": 22, "kept": 20, "dropped": {"too_short": 1, "duplicates": 1}, "other_files": 0}
    assert told["settings"]["inputs"] == [str(tmp_path / "a.jsonl")]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith(
        "22 documents read, 20 kept\n  1 too short\n  1 equal to an earlier document\n" + f"{out}: 20 halves\n"
    )


def test_nothing_is_written_where_nothing_is_left(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no document is left"):
        run(tmp_path / "a.txt", "--out", tmp_path / "halves.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_name_that_is_no_utf8(tmp_path):
    file = tmp_path / "caf\udce9.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    out, report = tmp_path / "halves.jsonl", tmp_path / "counts.json"
    run(file, "--min-document-tokens", "2", "--out", out, "--report", report)
    assert json.loads(out.read_text().partition("\n")[0])["source"] == str(tmp_path / r"caf\udce9.jsonl:1")
    assert json.loads(report.read_text())["settings"]["inputs"] == [str(file)]
