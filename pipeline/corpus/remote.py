"""Videos behind URLs, through fsspec: what they are, where they are, their bytes.

URLs may carry credentials (``user:password@``, signed queries). Only ``public_url`` of one is
ever stored or shown, and no text of a network library, as those repeat the URL.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import fsspec

from distinit.schemas.errors import CorpusError

__all__ = [
    "NetworkError",
    "RemoteStat",
    "find_remote",
    "is_url",
    "open_remote",
    "public_url",
    "remote_stat",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = ("http", "https")
_S3 = ("s3", "s3a")
_CONNECT_SECONDS, _SILENCE_SECONDS = 30, 60
_BLOCK_BYTES = 8 << 20
_VERSION_KEYS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "mtime")
# Names of aiohttp's and botocore's classes: neither is imported here unless it is needed.
_UNREACHABLE = (
    (
        {"ClientConnectorCertificateError", "ClientConnectorSSLError", "SSLError"},
        "its TLS certificate is not trusted (SSL_CERT_FILE, for s3:// AWS_CA_BUNDLE, "
        "names a file of authorities)",
        True,
    ),
    ({"NoCredentialsError", "PartialCredentialsError"}, "there are no credentials", True),
    (
        {"ClientConnectorError", "ConnectionTimeoutError"}
        | {"EndpointConnectionError", "ConnectTimeoutError"},
        "the server does not answer",
        False,
    ),
)


class NetworkError(Exception):
    """Something of another machine could not be had.

    ``final``: trying again will not help. ``unreachable``: the server itself does not answer.
    """

    def __init__(self, reason: str, *, final: bool = False, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.final = final
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """``size_bytes`` is None if the server does not say; ``version`` changes with the content
    (63 bits of its tags' digest), 0 if the server has no tag for it.
    """

    size_bytes: int | None
    version: int


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL and no path."""
    return _URL.match(text) is not None


def public_url(url: str) -> str:
    """``url`` without what may be secret: user, password, query and fragment.

    Raises CorpusError for text that is no URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise CorpusError("a URL cannot be read", found=error, remedy="check the list") from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def remote_stat(url: str) -> RemoteStat:
    """Ask for size and version. Raises NetworkError, CorpusError for an unusable URL."""
    system, path = _system(url)
    with _network_errors():
        info = system.info(path)
    tags = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key)]
    digest = hashlib.sha256("|".join(tags).encode()).digest()
    return RemoteStat(info.get("size"), int.from_bytes(digest[:8]) >> 1 if tags else 0)


@contextmanager
def open_remote(url: str, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The bytes behind ``url`` in blocks, from ``offset`` on, or from 0 where that is refused.

    Yields where the blocks begin, and the blocks. Raises as ``remote_stat``.
    """
    system, path = _system(url)
    with _network_errors():
        start, file = (_open_web if _scheme(url) in _WEB else _open_store)(system, path, offset)
    try:
        yield start, _blocks(file)
    finally:
        file.close()


def _open_web(system: Any, path: str, offset: int) -> tuple[int, BinaryIO]:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    # Block size 0: one plain response. One range a block is slow, and not every server has them.
    # The size is not needed then; without one the server would be asked again.
    file = system.open(path, "rb", block_size=0, size=1, headers=headers)
    partial = file.r.status == 206 and file.r.headers.get("Content-Range", "").startswith(
        f"bytes {offset}-"
    )
    return offset if partial else 0, file


def _open_store(system: Any, path: str, offset: int) -> tuple[int, BinaryIO]:
    file = system.open(path, "rb", block_size=_BLOCK_BYTES)
    file.seek(offset)
    return offset, file


def find_remote(folder: str) -> list[str]:
    """URLs of all files below a folder of an object store; hidden ones are skipped.

    Raises CorpusError where it cannot be listed.
    """
    if _scheme(folder) in _WEB:
        raise CorpusError(
            f"{public_url(folder)} is no video, and web servers do not list folders",
            expected="the URL of a video, or of a folder in an object store (s3://)",
            remedy="write the URLs of the videos into a .txt, .csv or .parquet list",
        )
    system, path = _system(folder)
    try:
        with _network_errors():
            found = [system.unstrip_protocol(key) for key in system.find(path)]
    except NetworkError as error:
        raise CorpusError(
            f"cannot list {public_url(folder)}", found=error, remedy="check URL and credentials"
        ) from None
    return [url for url in found if "/." not in url]


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while True:
        with _network_errors():
            block = file.read(_BLOCK_BYTES)
        if not block:
            return
        yield block


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _system(url: str) -> tuple[Any, str]:
    """The file system that knows ``url``, and its name there."""
    if "::" in url or _scheme(url) not in fsspec.available_protocols():
        raise CorpusError(
            f"cannot fetch {public_url(url)}",
            expected="an http://, https:// or s3:// URL, or another that fsspec knows",
            remedy="check the URL, or download the videos",
        )
    try:
        system, path = fsspec.core.url_to_fs(url, **_options(_scheme(url)))
    except ImportError as error:
        raise CorpusError(
            f"{_scheme(url)}:// URLs need a package that is not installed",
            found=error,
            remedy="install it (for s3://: pip install 'distinit[s3]')",
        ) from error
    return system, path


def _options(scheme: str) -> dict[str, Any]:
    if scheme in _S3:
        return {"use_listings_cache": False}  # whether a video has changed is asked anew
    if scheme not in _WEB:
        return {}
    import aiohttp

    # aiohttp's own limit is five minutes in all: a long video takes longer.
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
    )
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every file system of fsspec has its own
        raise _network_error(error) from None


def _network_error(error: BaseException) -> NetworkError:
    """What ``error`` means, told without its text."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        # fsspec calls everything that a web server does not give "not found".
        told = _network_error(error.__cause__)
        if told.unreachable or hasattr(error.__cause__, "status"):
            return told
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NetworkError("there is no such file", final=True)
    if isinstance(error, PermissionError) or status in (401, 403):
        return NetworkError("access denied", final=True)
    if isinstance(status, int):
        refused = 400 <= status < 500 and status not in (408, 416, 429)
        return NetworkError(f"HTTP status {status}", final=refused)
    names = {kind.__name__ for kind in type(error).__mro__}
    for kinds, reason, final in _UNREACHABLE:
        if names & kinds:
            return NetworkError(reason, final=final, unreachable=True)
    return NetworkError(type(error).__name__)
