"""Lists and reads files at URLs, through fsspec.

URLs may contain credentials (``user:password@``, signed queries). Only the ``public_url`` is ever
stored or shown, and never a message of a network library, since it could contain the URL.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import fsspec

from distinit.schemas.errors import CorpusError

__all__ = [
    "NetworkError",
    "NoRangesError",
    "RemoteStat",
    "find_remote",
    "is_url",
    "network_errors",
    "open_remote",
    "public_url",
    "read_range",
    "remote_stat",
    "remote_system",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = ("http", "https")
_S3 = ("s3", "s3a")
_CONNECT_SECONDS, _SILENCE_SECONDS = 30, 60
_BLOCK_BYTES = 8 << 20
_PACE_SECONDS, _PACE_BYTES = 60.0, 64 << 10  # the least that a server has to send
_PLAIN = {"Accept-Encoding": "identity"}
_VERSION_KEYS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "mtime")
# Class names of aiohttp and botocore, which are imported only if they are needed.
_UNREACHABLE = (
    (
        {"ClientConnectorCertificateError", "ClientConnectorSSLError", "SSLError"},
        "its TLS certificate is not trusted (SSL_CERT_FILE, for s3:// AWS_CA_BUNDLE, "
        "names a file of trusted authorities)",
        True,
    ),
    ({"NoCredentialsError", "PartialCredentialsError"}, "no credentials found", True),
    (
        {"ClientConnectorError", "ConnectionTimeoutError"}
        | {"EndpointConnectionError", "ConnectTimeoutError"},
        "the server does not respond",
        False,
    ),
)


class NetworkError(Exception):
    """Something could not be read from another machine.

    ``final``: trying again will not help. ``unreachable``: the server itself does not respond.
    ``missing``: there is no such file.
    """

    def __init__(
        self,
        reason: str,
        *,
        final: bool = False,
        unreachable: bool = False,
        missing: bool = False,
    ) -> None:
        super().__init__(reason)
        self.final = final or missing
        self.unreachable = unreachable
        self.missing = missing


class NoRangesError(NetworkError):
    """The server sends only whole files."""

    def __init__(self) -> None:
        super().__init__("the server does not send parts of files", final=True)


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """Size and version of a remote file.

    ``size_bytes`` is None if the server does not report it. ``version`` changes with the content:
    it is 63 bits of the digest of the server's tags (ETag, ...), or 0 if there are none.
    """

    size_bytes: int | None
    version: int


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL and not a path."""
    return _URL.match(text) is not None


def public_url(url: str) -> str:
    """``url`` without the parts that may be secret: user, password, query and fragment.

    Raises CorpusError for text that is not a URL.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # refuses numbers above 65,535
    except ValueError as error:
        raise CorpusError("a URL is malformed", found=error, remedy="check the URL") from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def remote_stat(url: str) -> RemoteStat:
    """Request size and version. Raises NetworkError, and CorpusError for an unusable URL."""
    system, path = remote_system(url)
    with network_errors():
        info = system.info(path)
    tags = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key)]
    digest = hashlib.sha256("|".join(tags).encode()).digest()
    return RemoteStat(info.get("size"), int.from_bytes(digest[:8]) >> 1 if tags else 0)


@contextmanager
def open_remote(
    url: str, offset: int = 0, headers: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The bytes at ``url`` in blocks, from ``offset``, or from 0 if the server refuses offsets.

    Yields the offset of the first block, and the blocks. ``headers``: more headers of the request
    to a web server. Raises as ``remote_stat``.
    """
    system, path = remote_system(url)
    with network_errors():
        if _scheme(url) in _WEB:
            start, file = _open_web(system, path, offset, headers or {})
        else:
            start, file = _open_store(system, path, offset)
    try:
        yield start, _blocks(file)
    finally:
        file.close()


def read_range(
    url: str, offset: int, size_bytes: int, headers: Mapping[str, str] | None = None
) -> bytes:
    """``size_bytes`` bytes at ``offset``, or fewer if the file ends there.

    Raises NetworkError; NoRangesError if a web server does not send the range that it was asked
    for; CorpusError for an unusable URL.
    """
    system, path = remote_system(url)
    end = offset + size_bytes
    if _scheme(url) not in _WEB:
        with network_errors():
            data: bytes = system.cat_file(path, start=offset, end=end)
        return data
    asked = {**(headers or {}), "Range": f"bytes={offset}-{end - 1}"}
    with network_errors():
        file = system.open(path, "rb", block_size=0, size=1, headers=_PLAIN | asked)
        try:
            found = file.r.headers.get("Content-Range", "")
            if file.r.status != 206 or not found.startswith(f"bytes {offset}-"):
                raise NoRangesError
            parts, missing, pace = [], size_bytes, _Pace()
            while missing and (part := pace.read(file, missing)):
                parts.append(part)
                missing -= len(part)
        finally:
            file.close()
    return b"".join(parts)[:size_bytes]


def _open_web(
    system: Any, path: str, offset: int, headers: Mapping[str, str]
) -> tuple[int, BinaryIO]:
    asked = {"Range": f"bytes={offset}-"} if offset else {}
    headers = {**_PLAIN, **headers, **asked}
    # Block size 0: one plain response. One range request per block would be slow, and not every
    # server supports them. The size is not used, but without it fsspec would send a request for it.
    file = system.open(path, "rb", block_size=0, size=1, headers=headers)
    resumed = file.r.status == 206 and file.r.headers.get("Content-Range", "").startswith(
        f"bytes {offset}-"
    )
    return offset if resumed else 0, file


def _open_store(system: Any, path: str, offset: int) -> tuple[int, BinaryIO]:
    file = system.open(path, "rb", block_size=_BLOCK_BYTES)
    file.seek(offset)
    return offset, file


def find_remote(folder: str) -> list[str]:
    """URLs of all files below a folder of an object store, except hidden ones.

    Raises CorpusError if it cannot be listed.
    """
    if _scheme(folder) in _WEB:
        raise CorpusError(
            f"{public_url(folder)} is not a video, and web servers do not list folders",
            expected="the URL of a video, or of a folder in an object store (s3://)",
            remedy="write the URLs of the videos into a .txt, .csv or .parquet list",
        )
    system, path = remote_system(folder)
    try:
        with network_errors():
            found = [system.unstrip_protocol(key) for key in system.find(path)]
    except NetworkError as error:
        raise CorpusError(
            f"cannot list {public_url(folder)}", found=error, remedy="check URL and credentials"
        ) from None
    return [url for url in found if "/." not in url]


class _Pace:
    """Reads from one connection, and refuses a server that sends a few bytes now and then."""

    def __init__(self) -> None:
        self._seconds, self._bytes = 0.0, 0

    def read(self, file: BinaryIO, size_bytes: int) -> bytes:
        """As ``file.read``. Raises NetworkError below 64 KiB per minute of waiting."""
        began = time.monotonic()
        block = file.read(size_bytes)
        self._seconds += time.monotonic() - began
        self._bytes += len(block)
        if self._seconds >= _PACE_SECONDS:
            if block and self._bytes < _PACE_BYTES:
                raise NetworkError("the server sends less than 64 KiB per minute", final=True)
            self._seconds, self._bytes = 0.0, 0
        return block


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    pace = _Pace()
    while True:
        with network_errors():
            block = pace.read(file, _BLOCK_BYTES)
        if not block:
            return
        yield block


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def remote_system(url: str) -> tuple[Any, str]:
    """The fsspec file system for ``url``, and the path in it."""
    if "::" in url or _scheme(url) not in fsspec.available_protocols():
        raise CorpusError(
            f"cannot fetch {public_url(url)}",
            expected="an http://, https:// or s3:// URL, or another URL that fsspec supports",
            remedy="check the URL, or download the videos",
        )
    try:
        system, path = fsspec.core.url_to_fs(url, **_options(_scheme(url)))
    except ImportError as error:
        raise CorpusError(
            f"{_scheme(url)}:// URLs need a package that is not installed",
            found=error,
            remedy="install it (for s3://: pip install s3fs)",
        ) from error
    return system, path


def _options(scheme: str) -> dict[str, Any]:
    if scheme in _S3:
        return {"use_listings_cache": False}  # so that changed videos are noticed
    if scheme not in _WEB:
        return {}
    import aiohttp

    # aiohttp's default limit is five minutes in total, which is too short for long videos.
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
    )
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


@contextmanager
def network_errors() -> Iterator[None]:
    """Turn every exception of a network library into a NetworkError, without its message."""
    try:
        yield
    except NetworkError:
        raise
    except Exception as error:  # every file system of fsspec raises other exceptions
        raise _network_error(error) from None


def _network_error(error: BaseException) -> NetworkError:
    """``error`` as a NetworkError, without its message."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        # fsspec reports every failed request to a web server as "not found".
        cause = _network_error(error.__cause__)
        if cause.unreachable or hasattr(error.__cause__, "status"):
            return cause
    names = {kind.__name__ for kind in type(error).__mro__}
    if "TooManyRedirects" in names:
        return NetworkError("it redirects again and again", final=True)
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NetworkError("no such file", missing=True)
    if isinstance(error, PermissionError) or status in (401, 403):
        return NetworkError("access denied", final=True)
    if isinstance(status, int):
        refused = 400 <= status < 500 and status not in (408, 416, 429)
        return NetworkError(f"HTTP status {status}", final=refused)
    if "RedirectClientError" in names or "InvalidUrlRedirectClientError" in names:
        return NetworkError("it redirects to an address that is not on the web", final=True)
    for kinds, reason, final in _UNREACHABLE:
        if names & kinds:
            return NetworkError(reason, final=final, unreachable=True)
    return NetworkError(type(error).__name__)
