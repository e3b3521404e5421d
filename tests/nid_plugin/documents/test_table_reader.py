import pyarrow as pa
import pytest
from pyarrow import parquet

from nid_plugin.documents import DocumentSettings, table_reader
from nid_plugin.documents.table_reader import read_dataset, read_parquet
from plugin_common.errors import UserError

datasets = pytest.importorskip("datasets")
TEXTS = [f"Document {number}. ä" for number in range(1000)]


def write(path, **columns) -> str:
    parquet.write_table(pa.table(columns), path, row_group_size=300)
    return str(path)


def cells(documents) -> list:
    return [cell for cell, _ in documents]


def test_parquet_gives_texts_and_rows(tmp_path):
    file = write(tmp_path / "a.parquet", text=TEXTS, n=list(range(1000)))
    documents = list(read_parquet([file], "text"))
    assert cells(documents) == TEXTS
    assert documents[0][1] == f"{file}:1"
    assert documents[999][1] == f"{file}:1000"


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_parquet_reads_every_type_of_text(tmp_path, kind):
    plain = pa.array(TEXTS[:5])
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    file = write(tmp_path / "a.parquet", text=column)
    decoded = [cell.decode() if isinstance(cell, bytes) else cell for cell in cells(read_parquet([file], "text"))]
    assert decoded == TEXTS[:5]


def test_parquet_gives_empty_cells_and_bytes_that_are_no_utf8(tmp_path):
    wrong = pa.array([b"good", b"\xff", None]).view(pa.string())
    file = write(tmp_path / "a.parquet", text=wrong)
    assert cells(read_parquet([file], "text")) == [b"good", b"\xff", None]


def test_parquet_without_the_column_lists_those_it_has(tmp_path):
    file = write(tmp_path / "a.parquet", body=["x"], id=[1])
    with pytest.raises(UserError, match="no column 'text'; --text-column takes one of 'body', 'id'"):
        list(read_parquet([file], "text"))
    with pytest.raises(UserError, match="column 'id' holds int64, expected text"):
        list(read_parquet([file], "id"))


def test_broken_parquet(tmp_path):
    file = tmp_path / "a.parquet"
    write(file, text=TEXTS)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"a\.parquet: not a sound parquet file"):
        list(read_parquet([str(file)], "text"))
    damaged = bytearray(data)
    damaged[200:2000] = bytes(1800)
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="not a sound parquet file"):
        list(read_parquet([str(file)], "text"))
    with pytest.raises(UserError, match="No such file"):
        list(read_parquet([str(tmp_path / "none.parquet")], "text"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A data set saved in three ways."""
    folder = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict({"text": TEXTS, "n": list(range(1000))})
    data.save_to_disk(folder / "saved")
    datasets.DatasetDict({"train": data, "test": data.select(range(10))}).save_to_disk(folder / "dict")
    (folder / "configs").mkdir()
    data.to_parquet(folder / "configs" / "a.parquet")
    data.select(range(5)).to_parquet(folder / "configs" / "b.parquet")
    (folder / "configs" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: a.parquet\n- config_name: two\n  data_files: b.parquet\n---\n"
    )
    return folder


def read(folder, **options) -> list:
    settings = DocumentSettings((str(folder),), **options)
    return list(read_dataset(str(folder), settings, saved=folder.name in ("saved", "dict")))


def test_data_sets_in_folders(folders):
    assert cells(read(folders / "saved")) == TEXTS
    assert cells(read(folders / "dict", dataset_split="test")) == TEXTS[:10]
    documents = read(folders / "configs", dataset_config="two")
    assert cells(documents) == TEXTS[:5]
    assert documents[4][1] == f"{folders / 'configs'}[two]/train:5"


def test_the_parts_of_a_data_set_are_shuffled_by_the_seed(folders):
    documents = read(folders / "dict", shuffle_buffer=100, seed=1)
    once = cells(documents)
    assert sorted(once) == sorted(TEXTS) != once
    assert len({source for _, source in documents}) == 1000
    assert once == cells(read(folders / "dict", shuffle_buffer=100, seed=1))
    assert once != cells(read(folders / "dict", shuffle_buffer=100, seed=2))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("dict", {"dataset_split": "dev"}, "no split dev; --dataset-split takes one of train, test"),
        ("configs", {}, r"Config name is missing.*\['one', 'two'\]"),
        ("configs", {"dataset_config": "three"}, r"'three' not found\. Available: \['one', 'two'\]"),
        (
            "configs",
            {"dataset_config": "one", "dataset_split": "dev"},
            r"Bad split: dev\. Available splits: \['train'\]",
        ),
        ("configs", {"dataset_config": "one", "text_column": "body"}, "no column 'body'.* one of 'text', 'n'"),
        ("saved", {"text_column": "n"}, "column 'n' holds int64"),
    ],
)
def test_what_a_data_set_does_not_have(folders, name, options, says):
    with pytest.raises(UserError, match=says):
        read(folders / name, **options)


def test_a_hub_out_of_reach(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = DocumentSettings(("nobody/nothing",))
    with pytest.raises(UserError, match=r"nobody/nothing/train: cannot be read as a data set .* hub can be reached"):
        list(read_dataset("nobody/nothing", settings, saved=False))


def test_a_column_of_nothing_holds_no_text(tmp_path):
    assert cells(read_parquet([write(tmp_path / "a.parquet", text=pa.nulls(3))], "text")) == [None] * 3


def test_checksums_of_pages_are_checked(tmp_path):
    file = tmp_path / "a.parquet"
    parquet.write_table(
        pa.table({"text": TEXTS}), file, compression="none", use_dictionary=False, write_page_checksum=True
    )
    data = file.read_bytes()
    file.write_bytes(data.replace(b"Document 500", b"Document 5OO", 1))
    with pytest.raises(UserError, match=r"a\.parquet: .*not a sound parquet file \(.*[Cc][Rr][Cc]"):
        list(read_parquet([str(file)], "text"))


def test_rows_are_numbered_in_each_of_several_files(tmp_path):
    files = [write(tmp_path / f"{name}.parquet", text=[f"{name}{n}" for n in range(3)]) for name in "ab"]
    found = [(cell, source.rpartition("/")[2]) for cell, source in read_parquet(files, "text")]
    assert found == [(f"{name}{n}", f"{name}.parquet:{n + 1}") for name in "ab" for n in range(3)]


@pytest.mark.parametrize(("characters", "rows"), [(10, 1024), (4000, 1024), (2**16, 63), (2**23, 1)])
def test_long_documents_are_taken_fewer_at_a_time(tmp_path, monkeypatch, characters, rows):
    taken = []
    monkeypatch.setattr(
        table_reader, "prefetched", lambda batches: (taken.append(len(batch[2])) or batch for batch in batches)
    )
    texts = [f"{number} {'x' * characters}" for number in range(max(3, min(1500, 2 * rows)))]
    parquet.write_table(pa.table({"n": range(len(texts)), "text": texts}), tmp_path / "a.parquet", use_dictionary=False)
    assert cells(read_parquet([str(tmp_path / "a.parquet")], "text")) == texts
    assert rows * 0.95 <= taken[0] <= rows
