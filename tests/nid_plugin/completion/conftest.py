"""A server of the Batch API, for the tests of batches."""

from collections.abc import Iterator

import pytest

from nid_plugin.completion import batch_client
from tests.nid_plugin.completion.batch_runs import anew
from tests.nid_plugin.completion.batch_server import BatchServer, batch_server


@pytest.fixture(scope="module")
def started() -> Iterator[BatchServer]:
    """One server for all."""
    with batch_server() as server:
        yield server


@pytest.fixture
def server(started: BatchServer, monkeypatch: pytest.MonkeyPatch) -> BatchServer:
    """The server, as if new."""
    monkeypatch.setattr(batch_client, "RETRIES", 0)
    monkeypatch.setattr("os.fsync", lambda fd: None)  # processes are killed here, machines are not
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *words, **named: None)  # slow, not needed
    anew(started)
    return started
