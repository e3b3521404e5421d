"""A data set by its name, streamed through the real client from a hub on loopback."""

import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TEXTS = [f"This is document {number}. It has a second sentence." for number in range(50)]
COMMIT = "a" * 40
FILE = "data/train-00000.parquet"


def parquet_bytes() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": TEXTS, "n": list(range(50))}), buffer)
    return buffer.getvalue()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as the client asks for: one public data set, ``me/prose``, with one file."""

    protocol_version = "HTTP/1.1"
    data = b""

    def log_message(self, *args):
        pass

    def send(self, body: bytes, status: int = 200, **headers: str):
        self.send_response(status)
        headers |= {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, "ETag": '"b"', "Accept-Ranges": "bytes"}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        size = len(self.data)
        file = {"type": "file", "path": FILE, "size": size, "oid": "b" * 40}
        if "/me/prose" not in path:
            self.send(b"{}", 404, X_Error_Code="RepoNotFound")
        elif path.endswith(FILE) and (wanted := self.headers.get("Range")):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last or size), size - 1)
            self.send(self.data[int(first) : end + 1], 206, Content_Range=f"bytes {first}-{end}/{size}")
        elif path.endswith(FILE):
            self.send(self.data)
        elif "/resolve/" in path:
            self.send(b"{}", 404, X_Error_Code="EntryNotFound")
        elif path.endswith("/data"):
            self.send(json.dumps([file]).encode())
        elif "/tree/" in path:
            self.send(json.dumps([{"type": "directory", "path": "data", "size": 0, "oid": "c" * 40}]).encode())
        else:
            about = {"id": "me/prose", "sha": COMMIT, "private": False, "siblings": [{"rfilename": FILE}], "tags": []}
            self.send(json.dumps(about).encode())

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def hub():
    Hub.data = parquet_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def halve(hub, home, *words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nid_plugin.cli", "halve", *words, "--min-document-tokens", "2", "--out", "-"]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("HF_HUB_OFFLINE", None)
    environment.pop("HF_DATASETS_OFFLINE", None)
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=100)


def test_a_data_set_by_its_name(hub, tmp_path):
    done = halve(hub, tmp_path, "me/prose", "--take", "3")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["prompt"] + record["second_half"] for record in records] == TEXTS[:3]
    assert records[2]["source"] == "me/prose/train:3"
    assert not list(tmp_path.rglob("*.parquet"))  # streamed, not downloaded


def test_a_name_that_the_hub_does_not_know(hub, tmp_path):
    done = halve(hub, tmp_path, "nobody/nothing")
    assert done.returncode == 1
    assert "nobody/nothing/train: cannot be read as a data set" in done.stderr
    assert "Traceback" not in done.stderr
