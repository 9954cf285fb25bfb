"""Places from which files are received, and to which they are sent: folders, S3, web servers.

A store names its files by paths relative to its address. Whatever it delivers is untrusted: the
receiver checks sizes and digests.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from distinit.pipeline.storage import (
    atomic_path,
    open_inside,
    open_regular,
    safe_join,
    sha256_file,
    storage_errors,
)
from distinit.pipeline.transport.hub import HubStore
from distinit.pipeline.transport.remote import (
    NetworkError,
    is_url,
    network_errors,
    open_remote,
    public_url,
    read_range,
    remote_system,
)
from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.wording import reason_of

__all__ = ["FolderStore", "ObjectStore", "Store", "WebStore", "open_store"]

_BLOCK_BYTES = 8 << 20
_DIGEST_KEY = "distinit-sha256"  # of the metadata that an object store keeps with each object


class Store(Protocol):
    """Files below one address. Methods may be called from several threads.

    All of them raise NetworkError.
    """

    @property
    def shown(self) -> str:
        """The address without credentials, for messages."""

    def read(
        self, name: str, offset: int = 0
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The offset of the first block, which is ``offset`` or 0, and blocks of bytes."""

    def read_range(self, name: str, offset: int, size_bytes: int) -> bytes:
        """``size_bytes`` bytes at ``offset``, or fewer if the file ends there."""

    def holds(self, name: str, size_bytes: int, sha256: str) -> bool:
        """Whether the store has this file; False if that cannot be told without reading it."""

    def write(self, name: str, path: Path, sha256: str) -> None:
        """Store a copy of ``path``, which then is whole or absent."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is no error."""

    def flush(self) -> None:
        """Wait until everything that was written and removed is visible to others."""


class FolderStore:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @property
    def shown(self) -> str:
        """The path."""
        return str(self.root)

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See Store."""
        with _read_errors():
            descriptor = open_inside(self.root, safe_join(self.root, name))
        with os.fdopen(descriptor, "rb") as file:
            file.seek(offset)
            yield offset, iter(lambda: file.read(_BLOCK_BYTES), b"")

    def read_range(self, name: str, offset: int, size_bytes: int) -> bytes:
        """See Store."""
        with _read_errors():
            descriptor = open_inside(self.root, safe_join(self.root, name))
            with os.fdopen(descriptor, "rb") as file:
                file.seek(offset)
                return file.read(size_bytes)

    def holds(self, name: str, size_bytes: int, sha256: str) -> bool:
        """See Store. The file is read."""
        path = safe_join(self.root, name)
        try:
            if path.is_symlink() or path.stat().st_size != size_bytes:
                return False
            return sha256_file(path, size_bytes) == sha256
        except OSError:
            return False

    def write(self, name: str, path: Path, sha256: str) -> None:
        """See Store. Raises StorageError."""
        target = safe_join(self.root, name)
        with (
            os.fdopen(open_regular(path), "rb") as source,
            atomic_path(target) as partial,
            partial.open("wb") as file,
        ):
            while block := source.read(_BLOCK_BYTES):
                file.write(block)

    def remove(self, name: str) -> None:
        """See Store. Raises StorageError."""
        path = safe_join(self.root, name)
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def flush(self) -> None:
        """See Store: nothing waits."""


class WebStore:
    """Files below a URL of a web server, which are only read."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    @property
    def shown(self) -> str:
        """The URL without credentials."""
        return public_url(urlunsplit(self._parts)).rstrip("/")

    def url_of(self, name: str) -> str:
        """The URL of one file; the query of the base URL, such as a signature, is kept."""
        path = f"{self._parts.path.rstrip('/')}/{quote(name)}"
        return urlunsplit(self._parts._replace(path=path))

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See Store."""
        with open_remote(self.url_of(name), offset) as opened:
            yield opened

    def read_range(self, name: str, offset: int, size_bytes: int) -> bytes:
        """See Store. Raises NetworkError if the server does not send parts of files."""
        return read_range(self.url_of(name), offset, size_bytes)

    def holds(self, name: str, size_bytes: int, sha256: str) -> bool:
        """See Store: a web server does not tell."""
        return False

    def write(self, name: str, path: Path, sha256: str) -> None:
        """Not possible."""
        raise NetworkError("web servers take no files", final=True)

    def remove(self, name: str) -> None:
        """Not possible."""
        raise NetworkError("web servers remove no files", final=True)

    def flush(self) -> None:
        """See Store: nothing waits."""


class ObjectStore:
    """Objects below a prefix of a bucket, through fsspec. Each keeps its sha256 as metadata."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    @property
    def shown(self) -> str:
        """The URL."""
        return public_url(self._url)

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See Store."""
        with open_remote(f"{self._url}/{name}", offset) as opened:
            yield opened

    def read_range(self, name: str, offset: int, size_bytes: int) -> bytes:
        """See Store."""
        return read_range(f"{self._url}/{name}", offset, size_bytes)

    def holds(self, name: str, size_bytes: int, sha256: str) -> bool:
        """See Store. An object counts if it was sent by ``write``, with these bytes."""
        system, path = remote_system(f"{self._url}/{name}")
        try:
            with network_errors():
                if system.info(path)["size"] != size_bytes:
                    return False
                return bool(system.metadata(path).get(_DIGEST_KEY) == sha256)
        except NetworkError as error:
            if error.unreachable:
                raise
            return False

    def write(self, name: str, path: Path, sha256: str) -> None:
        """See Store: an object appears once all its bytes have arrived."""
        system, remote = remote_system(f"{self._url}/{name}")
        with network_errors():
            system.put_file(str(path), remote, Metadata={_DIGEST_KEY: sha256})

    def remove(self, name: str) -> None:
        """See Store."""
        system, remote = remote_system(f"{self._url}/{name}")
        with network_errors():
            if system.exists(remote):
                system.rm_file(remote)

    def flush(self) -> None:
        """See Store: nothing waits."""


@contextmanager
def _read_errors() -> Iterator[None]:
    """Turn errors of a local file into a NetworkError: other places are read in the same way."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NetworkError("no such file", missing=True) from None
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG
        raise NetworkError(reason_of(error), final=True, missing=too_long) from None
    except DistInitError as error:
        raise NetworkError(error.problem, final=True) from None


def open_store(address: str) -> Store:
    """The store at a path or URL; nothing is read yet. Raises ConfigError, CorpusError."""
    if not is_url(address):
        return FolderStore(Path(address))
    public_url(address)  # refuses malformed ones
    scheme = address.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return WebStore(address)
    if scheme in ("s3", "s3a"):
        return ObjectStore(address)
    if scheme == "hf":
        return HubStore(address)
    parts = urlsplit(address)
    if scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderStore(Path(unquote(parts.path)))
    raise ConfigError(
        f"a cache cannot be moved to or from {public_url(address)}",
        expected="a folder, or a URL that begins with s3://, http://, https://, hf:// or file:///",
        remedy="check the URL",
    )
