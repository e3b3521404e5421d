"""The files and batches of an OpenAI-compatible endpoint, and what its errors mean."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import openai
from openai.types import Batch

from nid_plugin.completion.redaction import redactor
from nid_plugin.completion.settings import Connection
from nid_plugin.completion.teacher import OUT_OF_MONEY, TRANSIENT_STATUS, Unusable, error_text

PART = "nid_part"
"""Name of the batch's metadata that names the part."""

RETRIES = 4
"""Of calls that change nothing at the endpoint; the client waits as the endpoint asks, or longer each time."""


class Passing(Exception):
    """A call failed in a way that may pass; the message is for the user."""


class BatchClient:
    """A client of one endpoint's Batch API.

    Every method raises :class:`Passing` or :class:`nid_plugin.completion.teacher.Unusable`.
    """

    def __init__(self, connection: Connection) -> None:
        self._redact = redactor(connection.api_key)
        self._client = openai.OpenAI(
            api_key=connection.api_key or "none",
            base_url=connection.base_url,
            max_retries=RETRIES,
            timeout=httpx2.Timeout(connection.timeout, connect=min(30.0, connection.timeout)),
        )
        self._once = self._client.with_options(max_retries=0)
        self.address = str(self._client.base_url).rstrip("/")

    def upload(self, name: str, stream: BinaryIO) -> str:
        """Upload an input file; returns its id."""
        with self._meant():
            return self._once.files.create(file=(name, stream), purpose="batch").id

    def create(self, file_id: str, endpoint: Any, part: str) -> Batch:
        """Create a batch of an uploaded file, with one attempt: a second one might make a second batch."""
        with self._meant():
            return self._once.batches.create(
                input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata={PART: part}
            )

    def find(self, file_id: str, part: str) -> Batch | None:
        """The batch of a part, None where the endpoint lists none."""
        with self._meant():
            for batch in self._client.batches.list(limit=100):
                if batch.input_file_id == file_id or (batch.metadata or {}).get(PART) == part:
                    return batch
        return None

    def look(self, batch_id: str) -> Batch:
        """How far a batch is."""
        with self._meant(f"the batch {batch_id}"):
            return self._client.batches.retrieve(batch_id)

    def download(self, file_id: str, path: Path) -> None:
        """Put the content of a file into one of this machine."""
        with (
            self._meant(f"the file {file_id}"),
            self._client.files.with_streaming_response.content(file_id) as response,
            path.open("wb") as stream,
        ):
            for chunk in response.iter_bytes(1 << 18):
                stream.write(chunk)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextlib.contextmanager
    def _meant(self, what: str = "files and batches") -> Iterator[None]:
        try:
            yield
        except openai.APIStatusError as error:
            raise self._meaning(error, what) from error
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            raise Passing(self._redact(f"{type(cause).__name__}: {cause}")) from error

    def _meaning(self, error: openai.APIStatusError, what: str) -> Exception:
        status, message = error.status_code, self._redact(error_text(error))
        if status == 401:
            return Unusable(f"{self.address} does not accept the API key ({message})")
        if status == 402 or str(error.code or "") in OUT_OF_MONEY:
            return Unusable(f"{self.address}: no money left ({message}); add some and run the same command again")
        if status in (404, 405):
            return Unusable(
                f"{self.address} does not know {what} ({message}); is it the endpoint, and the key's project, that the "
                "batch was made with? --forget-batches gives open batches up; without --batch each request goes alone"
            )
        if status in TRANSIENT_STATUS or status >= 500:
            return Passing(message)
        return Unusable(f"{self.address} refuses ({message})")
