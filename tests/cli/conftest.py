"""What several tests of commands need."""

import pytest

from nat_plugin.data.literature_corpora import DATASETS
from tests.loopback_corpora import make_archives


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A folder with the archives of each data set."""
    folder = tmp_path_factory.mktemp("served")
    for dataset in DATASETS:
        make_archives(folder / dataset, dataset)
    return folder
