"""Small archives laid out like those of WMT14, WMT16 and IWSLT14, and a server for them on the loopback interface.

    names = make_archives(folder, "wmt16")          # the archives and SHA256SUMS
    with serve(folder) as url:                       # http://127.0.0.1:PORT
        nat download wmt16 --source-lang en --target-lang ro --output raw \
            --mirror URL --checksums FOLDER/SHA256SUMS

``--checksums`` is needed because these archives are not the published ones; use one folder for each data set.
Sentences are those of the quickstart corpus.
"""

import contextlib
import gzip
import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from nat_plugin.data.literature_corpora import DATASETS

SENTENCES = Path(__file__).resolve().parent.parent / "examples" / "quickstart" / "data"
SUMS = "SHA256SUMS"


def make_archives(
    folder: Path, dataset: str, *, train_pairs: int = 90, valid_pairs: int = 9, test_pairs: int = 10
) -> list[str]:
    """Write the archives of ``dataset`` and their ``SHA256SUMS`` into ``folder``; returns the archives' names.

    ``train_pairs`` are shared out among the training corpora, ``test_pairs`` among the parts of the test set. Both
    directions can be taken from them. Archives hold other members, too, as the real ones do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    benchmark = DATASETS[dataset]
    other = next(language for language in benchmark.languages if language != "en")
    english, foreign = (read_sentences(other, language) for language in ("en", other))
    sizes = {"train": train_pairs, "valid": valid_pairs, "test": test_pairs}
    contents: dict[str, dict[str, bytes]] = {archive.name: {} for archive in benchmark.archives}
    position = 0
    for part in benchmark.parts:
        same_split = [one for one in benchmark.parts if one.split == part.split]
        size = sizes[part.split] // len(same_split)
        if part is same_split[-1]:
            size = sizes[part.split] - size * (len(same_split) - 1)
        pairs = {"en": english[position : position + size], other: foreign[position : position + size]}
        position += size
        for source, target in (("en", other), (other, "en")):
            for language in (source, target):
                name = part.candidates(source, target, language)[0]
                contents[part.archive][name] = _member(part.format, pairs[language], language, part.name)
    assert position <= len(english), "the quickstart corpus has no more sentences"
    for name, members in contents.items():
        pack(folder / name, {**members, f"{Path(next(iter(members))).parent}/README": b"nothing to see here\n"})
    write_sums(folder)
    return list(contents)


def read_sentences(other: str, language: str) -> list[str]:
    """The quickstart corpus of English and ``other``, in ``language``; pair k is sentence k of both."""
    text = (SENTENCES / f"en-{other}" / f"train.{language}").read_text(encoding="utf-8")
    return text.split("\n")[:-1]


def pack(path: Path, members: dict[str, bytes]) -> None:
    """Write a zip, or a gzipped tar, with these members; the same bytes each time."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name.removeprefix("./")), content)
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_sums(folder: Path) -> Path:
    """Write ``SHA256SUMS`` for all archives of ``folder``, as sha256sum prints it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if path.suffix in (".tgz", ".zip")
    ]
    (folder / SUMS).write_text("".join(lines))
    return folder / SUMS


def _member(format: str, sentences: Sequence[str], language: str, name: str) -> bytes:
    if format == "lines":
        return "".join(f"{sentence}\n" for sentence in sentences).encode()
    if format == "tagged":
        return _talks(sentences).encode()
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<mteval>\n' if name.startswith("TED") else ""
    rows = [f'<seg id="{number}"> {escape(sentence)} </seg>' for number, sentence in enumerate(sentences, 1)]
    body = "\n".join(["<p>", *rows, "</p>"])
    return f'{head}<srcset setid="{name}" srclang="{language}">\n<doc docid="1">\n{body}\n</doc>\n</srcset>\n'.encode()


def _talks(sentences: Sequence[str]) -> str:
    """Tagged transcripts as IWSLT's: each talk's first two sentences are its title and description."""
    lines = []
    for start in range(0, len(sentences), 12):
        title, *rest = sentences[start : start + 12]
        number = start // 12 + 1
        lines += [f"<url>http://talks.invalid/{number}</url>", "<keywords>talks, words</keywords>"]
        lines += [f"<talkid>{number}</talkid>", f"<title>{title}</title>"]
        lines += [f"<description>{rest[0]}</description>"] if rest else []
        lines += [f" {sentence}" for sentence in rest[1:]]
    return "".join(f"{line}\n" for line in lines)


@dataclass
class Server:
    """A file server whose behaviour a test may change while it runs.

    Attributes:
        url: where it listens.
        ranges: whether it continues where asked to.
        validators: whether it sends ``ETag``.
        lengths: whether it sends ``Content-Length``.
        drop_after: for each of the next responses, after how many bytes of the body the connection is cut (None: not).
        stall_after: for each of the next responses, after how many bytes it waits for ``go_on`` (None: not).
        go_on: lets stalled responses end.
        statuses: for each of the next requests, the status to refuse it with (None: serve it).
        requests: (path, value of Range or "") of what was asked for.
    """

    url: str = ""
    ranges: bool = True
    validators: bool = True
    lengths: bool = True
    drop_after: list[int | None] = field(default_factory=list)
    stall_after: list[int | None] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    statuses: list[int | None] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve ``folder`` within the block; gives the URL."""
    with running_server(folder) as server:
        yield server.url


@contextlib.contextmanager
def running_server(folder: Path, **behaviour: Any) -> Iterator[Server]:
    """Serve ``folder`` within the block; gives the :class:`Server`."""
    server = Server(**behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, folder, server)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, folder: Path, server: Server) -> None:
    server.requests.append((request.path, request.headers.get("Range", "")))
    status = server.statuses.pop(0) if server.statuses else None
    path = folder / request.path.rpartition("/")[2]
    if status is None and not path.is_file():
        status = 404
    if status is not None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(asked[1]) if asked and server.ranges and request.headers.get("If-Range", etag) == etag else None
    if start is not None and start >= len(content):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(content)}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    request.send_response(200 if start is None else 206)
    if start is not None:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    body = content[start or 0 :]
    if server.lengths:
        request.send_header("Content-Length", str(len(body)))
    else:
        request.send_header("Connection", "close")
        request.close_connection = True
    if server.validators:
        request.send_header("ETag", etag)
    request.end_headers()
    drop = server.drop_after.pop(0) if server.drop_after else None
    stall = server.stall_after.pop(0) if server.stall_after else None
    with contextlib.suppress(ConnectionError):  # the client may have had enough
        if stall is not None:
            request.wfile.write(body[:stall])
            server.go_on.wait(30)
            body = body[stall:]
        request.wfile.write(body[:drop])
    if drop is not None:
        request.close_connection = True


def download_words(
    served: Path,
    output: Path,
    mirror: str | Path,
    dataset: str = "iwslt14",
    pair: tuple[str, str] = ("de", "en"),
    sums: bool = True,
) -> list[str]:
    """The command line of ``nat download``; ``served`` holds the archives that ``mirror`` gives."""
    words = ["download", dataset, "--source-lang", pair[0], "--target-lang", pair[1], "--output", str(output)]
    words += ["--mirror", str(mirror), "--retries", "1", "--timeout", "5"]
    return words + (["--checksums", str(served / dataset / SUMS)] if sums else [])


def manifest(output: Path) -> dict[str, Any]:
    """What the command wrote about its work."""
    return json.loads((output / "manifest.json").read_text())
