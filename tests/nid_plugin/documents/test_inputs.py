import os

import pytest

from nid_plugin.documents import DocumentCounts, DocumentSettings
from nid_plugin.documents.inputs import Input, kind_by_ending, list_inputs
from plugin_common.errors import UserError


def found(*names, counts=None, **options) -> list[Input]:
    return list_inputs(DocumentSettings(tuple(map(str, names)), **options), counts or DocumentCounts())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.parquet", "parquet"),
        ("a.b.jsonl", "jsonl"),
        ("A.JSONL.ZST", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.txt.gz", "txt"),
        ("urlsf_subset00.tar", "tar"),
        ("a.tar.xz", "tar"),
        ("a.tgz", "tar"),
        ("a.json", None),
        ("a.zst", None),
    ],
)
def test_kinds_by_ending(name, kind):
    assert kind_by_ending(name) == kind


def test_folders_are_read_in_sorted_order_and_other_files_counted(tmp_path):
    for name in ("b/2.jsonl", "b/1.txt", "a/3.parquet", "c.tar", "LICENSE", ".hidden.txt", ".git/x.txt", "b/x.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    counts = DocumentCounts()
    listed = found(tmp_path, counts=counts)
    assert [(file.kind, file.name) for file in listed] == [
        ("tar", f"{tmp_path}/c.tar"),
        ("parquet", f"{tmp_path}/a/3.parquet"),
        ("txt", f"{tmp_path}/b/1.txt"),
        ("jsonl", f"{tmp_path}/b/2.jsonl"),
    ]
    assert counts.other_files == 2
    assert found(tmp_path, input_format="txt") == [Input("txt", f"{tmp_path}/b/1.txt")]


def test_inputs_keep_the_order_given_and_formats_can_be_forced(tmp_path):
    (tmp_path / "dump").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    assert found(tmp_path / "dump", tmp_path / "a.txt", input_format="jsonl") == [
        Input("jsonl", f"{tmp_path}/dump"),
        Input("jsonl", f"{tmp_path}/a.txt"),
    ]
    assert found("-", input_format="txt") == [Input("txt", "-")]


def test_names_of_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found("Skylion007/openwebtext", "ag_news") == [
        Input("dataset", "Skylion007/openwebtext"),
        Input("dataset", "ag_news"),
    ]
    assert found(tmp_path, input_format="dataset") == [Input("dataset", str(tmp_path))]


def test_folders_of_data_sets(tmp_path):
    for name in ("saved", "dict", "configs", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("x")
    (tmp_path / "saved" / "state.json").write_text("{}")
    (tmp_path / "dict" / "dataset_dict.json").write_text("{}")
    (tmp_path / "configs" / "README.md").write_text("---\nlicense: mit\nconfigs:\n- config_name: a\n---\n# Title\n")
    (tmp_path / "plain" / "README.md").write_text("# Title\n\nconfigs: none\n")
    kinds = [found(tmp_path / name)[0].kind for name in ("saved", "dict", "configs", "plain")]
    assert kinds == ["saved_dataset", "saved_dataset", "dataset", "txt"]


def test_all_problems_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(UserError) as caught:
        found("none.jsonl", "no/such/folder", "empty", "a.docx")
    message = str(caught.value)
    assert message.startswith("4 problems:")
    assert "none.jsonl: no such file or folder" in message
    assert "no/such/folder: no such file" in message
    assert "empty: the folder has no files to read (expected .parquet, .jsonl" in message
    assert "a.docx: unknown ending; expected .parquet" in message


def test_pipes_in_folders_are_passed_over(tmp_path):
    """Opening one would wait for its other end."""
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "c.txt").symlink_to("b.txt")
    (tmp_path / "d.txt").symlink_to("nowhere")
    counts = DocumentCounts()
    names = [file.name.removeprefix(f"{tmp_path}/") for file in found(tmp_path, counts=counts)]
    assert names == ["b.txt", "c.txt", "d.txt"]  # a broken link is told about when it is read
    assert counts.other_files == 1


def test_a_file_is_no_data_set_and_an_empty_name_is_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"a\.txt: a file; --input-format dataset expects"):
        found(tmp_path / "a.txt", input_format="dataset")
    with pytest.raises(UserError, match="an INPUT is empty"):
        found("")
