"""What a file is expected to be, and what it is: sizes and checksums."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin_common.errors import UserError

BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is downloaded; None where nothing is.

    Attributes:
        size: bytes.
        sha256, md5: hexadecimal digests.
        origin: where these are from, for messages.
    """

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    origin: str = ""

    @property
    def has_checksum(self) -> bool:
        return self.sha256 is not None or self.md5 is not None

    def problem(self, found: "Digest") -> str | None:
        """How ``found`` differs, as a phrase; None if it does not."""
        pairs = [("bytes", self.size, found.size), ("SHA-256", self.sha256, found.sha256), ("MD5", self.md5, found.md5)]
        differing = [f"{name} {got}, expected {want}" for name, want, got in pairs if want is not None and want != got]
        return f"{'; '.join(differing)} ({self.origin})" if differing else None


@dataclass(frozen=True)
class Digest:
    """Size in bytes and hexadecimal digests of a file."""

    size: int
    sha256: str
    md5: str


@dataclass
class Hashes:
    """Digests of what has been written so far."""

    size: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    def update(self, block: bytes) -> None:
        self.size += len(block)
        self.sha256.update(block)
        self.md5.update(block)

    def digest(self) -> Digest:
        return Digest(self.size, self.sha256.hexdigest(), self.md5.hexdigest())


def digest_of(path: Path) -> Digest:
    """Size and digests of the file ``path``.

    Raises:
        UserError: it cannot be read.
    """
    return hashes_of(path).digest()


def checked(path: Path, expected: Expected) -> Digest:
    """The digest of ``path``, which has to be what is expected.

    Raises:
        UserError: it differs, or cannot be read.
    """
    digest = digest_of(path)
    if problem := expected.problem(digest):
        raise UserError(
            f"{path}: altered or incomplete: {problem}; remove it and run the command again, or, if this file is "
            "meant, give its SHA-256 with --checksums FILE"
        )
    return digest


def hashes_of(path: Path) -> Hashes:
    """The running digests after the whole file ``path``; more may be added.

    Raises:
        UserError: it cannot be read.
    """
    hashes = Hashes()
    try:
        with path.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                hashes.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an archive") from error
    return hashes
