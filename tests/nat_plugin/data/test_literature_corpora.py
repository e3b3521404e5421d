import pytest

from nat_plugin.data.literature_corpora import DATASETS, SPLITS, dataset_for
from plugin_common.errors import UserError

NEWSTEST = "test-full/newstest2014-deen"


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_facts_fit_together(dataset):
    names = [archive.name for archive in dataset.archives]
    assert len(set(names)) == len(names)
    assert {part.archive for part in dataset.parts} == set(names)
    assert {part.split for part in dataset.parts} <= set(SPLITS)
    for archive in dataset.archives:
        assert archive.url.startswith("https://") and archive.url.endswith(f"/{archive.name}")
        assert archive.sha256 is None or len(archive.sha256) == 64
        assert archive.md5 is None or len(archive.md5) == 32
        if not archive.has_checksum:  # then all its parts' line counts are known
            assert all(part.lines for part in dataset.parts if part.archive == archive.name)


def test_one_name_means_one_file_in_all_data_sets():
    archives = {}
    for dataset in DATASETS.values():
        for archive in dataset.archives:
            assert archives.setdefault(archive.name, archive) == archive


def test_line_counts_are_those_that_papers_give():
    def lines(name, split):
        return sum(part.lines for part in DATASETS[name].parts if part.split == split)

    assert lines("wmt16", "train") == 612_422
    assert (lines("wmt16", "valid"), lines("wmt16", "test")) == (1999, 1999)
    assert (lines("wmt14", "valid"), lines("wmt14", "test")) == (3000, 3003)
    assert lines("iwslt14", "test") == 6750


@pytest.mark.parametrize(
    ("name", "source", "target", "split", "expected"),
    [
        ("wmt14", "en", "de", "test", [f"{NEWSTEST}-src.en.sgm", f"{NEWSTEST}-ref.de.sgm"]),
        ("wmt14", "de", "en", "test", [f"{NEWSTEST}-src.de.sgm", f"{NEWSTEST}-ref.en.sgm"]),
        ("wmt16", "en", "ro", "test", ["test/newstest2016-enro-src.en.sgm", "test/newstest2016-enro-ref.ro.sgm"]),
        ("wmt16", "ro", "en", "valid", ["dev/newsdev2016-roen-src.ro.sgm", "dev/newsdev2016-roen-ref.en.sgm"]),
        ("iwslt14", "en", "de", "train", ["de-en/train.tags.de-en.en", "de-en/train.tags.de-en.de"]),
    ],
)
def test_members_of_a_direction(name, source, target, split, expected):
    part = next(part for part in DATASETS[name].parts if part.split == split)
    assert [part.candidates(source, target, language)[0] for language in (source, target)] == expected


def test_other_direction_stands_in_where_one_is_missing():
    part = next(part for part in DATASETS["wmt16"].parts if part.split == "valid")
    assert part.candidates("en", "ro", "ro") == ["dev/newsdev2016-enro-ref.ro.sgm", "dev/newsdev2016-roen-src.ro.sgm"]


@pytest.mark.parametrize(
    ("name", "source", "target", "message"),
    [
        ("wmt15", "en", "de", "wmt15: no such data set; expected one of wmt14"),
        ("wmt14", "en", "fr", r"wmt14: has no pair en-fr .*wmt16 \(en-ro, both directions\)"),
        ("wmt16", "ro", "ro", "wmt16: has no pair ro-ro"),
    ],
)
def test_unsupported_pair(name, source, target, message):
    with pytest.raises(UserError, match=message):
        dataset_for(name, source, target)
