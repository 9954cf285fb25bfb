"""A place in a dataset repository of the Hugging Face hub: ``hf://datasets/ORG/NAME[@REV][/path]``.

Files are read through their plain URLs, and written in commits of many files each.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distinit.pipeline.transport.remote import NetworkError, open_remote, read_range
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import shown

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["HubStore", "refuse_too_many_files"]

_ADDRESS = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?(?P<path>/[\w./@+-]+)?"
)
_FILES_PER_COMMIT = 100
_FILES_PER_FOLDER = 10_000
_PUBLIC_ENDPOINT = "https://huggingface.co"


class HubStore:
    """See Store. Credentials are those of huggingface_hub: ``HF_TOKEN``, or ``hf auth login``."""

    def __init__(self, address: str) -> None:
        match = _ADDRESS.fullmatch(address.rstrip("/"))
        if match is None:
            raise ConfigError(
                "this address is not a place on the hub",
                expected="hf://datasets/ORGANISATION/NAME, then @REVISION or /path if needed",
                found=shown(address),
            )
        self.shown = address.rstrip("/")
        self._repo, self._revision = match["repo"], match["revision"] or "main"
        self._folder = (match["path"] or "").strip("/")
        self._endpoint = os.environ.get("HF_ENDPOINT", _PUBLIC_ENDPOINT).rstrip("/")
        self._pending: dict[str, Any] = {}  # by path: a commit that failed is tried again
        self._parent: str | None = None  # our last commit; None: that which is read
        self._lock = threading.Lock()

    @cached_property
    def _api(self) -> HfApi:
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise ConfigError(
                "hf:// URLs need a package that is not installed",
                remedy="install the extra hf: pip install 'distinit[hf]'",
            ) from None
        return HfApi(endpoint=self._endpoint)

    @cached_property
    def _headers(self) -> dict[str, str]:
        _ = self._api  # refuses if the package is missing
        from huggingface_hub import get_token

        token = get_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    @cached_property
    def _commit(self) -> str:
        """The commit that is read: all files are of the same one."""
        with _hub_errors():
            info = self._api.repo_info(self._repo, repo_type="dataset", revision=self._revision)
        return info.sha or self._revision

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _url(self, name: str) -> str:
        return f"{self._endpoint}/datasets/{self._repo}/resolve/{self._commit}/{self._path(name)}"

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See Store."""
        with open_remote(self._url(name), offset, self._headers) as opened:
            yield opened

    def read_range(self, name: str, offset: int, size_bytes: int) -> bytes:
        """See Store."""
        return read_range(self._url(name), offset, size_bytes, self._headers)

    @cached_property
    def _large_files(self) -> dict[str, tuple[int, str]]:
        """Path -> size and sha256 of the files that the hub knows the sha256 of."""
        with _hub_errors():
            tree = self._api.list_repo_tree(
                self._repo, repo_type="dataset", revision=self._revision, recursive=True
            )
            lfs = [(entry.path, getattr(entry, "lfs", None)) for entry in tree]
        return {path: (found.size, found.sha256) for path, found in lfs if found is not None}

    def holds(self, name: str, size_bytes: int, sha256: str) -> bool:
        """See Store. The hub knows the sha256 of large files; small ones are sent again."""
        with self._lock:
            return self._large_files.get(self._path(name)) == (size_bytes, sha256)

    def write(self, name: str, path: Path, sha256: str) -> None:
        """See Store, but the file appears with the next commit, at ``flush`` at the latest."""
        _ = self._api
        from huggingface_hub import CommitOperationAdd

        self._add(CommitOperationAdd(path_in_repo=self._path(name), path_or_fileobj=str(path)))

    def remove(self, name: str) -> None:
        """See Store."""
        _ = self._api
        from huggingface_hub import CommitOperationDelete

        with _hub_errors():
            exists = self._api.file_exists(
                self._repo, self._path(name), repo_type="dataset", revision=self._revision
            )
        if exists:
            self._add(CommitOperationDelete(path_in_repo=self._path(name)))

    def _add(self, operation: Any) -> None:
        with self._lock:
            self._pending[operation.path_in_repo] = operation
            if len(self._pending) >= _FILES_PER_COMMIT:
                self._commit_pending()

    def flush(self) -> None:
        """See Store: commit what was written."""
        with self._lock:
            if self._pending:
                self._commit_pending()

    def _commit_pending(self) -> None:
        """Commit onto our last commit: the hub refuses it if somebody else has made one since."""
        with _hub_errors():
            made = self._api.create_commit(
                self._repo,
                [*self._pending.values()],
                commit_message=f"distinit cache push: {len(self._pending)} files",
                repo_type="dataset",
                revision=self._revision,
                parent_commit=self._parent or self._commit,
            )
        self._parent = made.oid
        self._pending = {}


@contextmanager
def _hub_errors() -> Iterator[None]:
    """Turn errors of the hub into NetworkErrors, without their messages, which may have tokens."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reasons = {
            401: "access denied",
            403: "access denied",
            404: "no such repository or file",
            412: "somebody else has changed the repository since this push began",
        }
        reason = reasons.get(status or 0) or (f"HTTP status {status}" if status else None)
        raise NetworkError(
            reason or type(error).__name__, final=status in reasons, missing=status == 404
        ) from None


def refuse_too_many_files(names: Sequence[str], address: str) -> None:
    """Raise ConfigError if a folder would have more files than the hub accepts."""
    counts: dict[str, int] = {}
    for name in names:
        *folders, _ = name.split("/")
        parent = "/".join(folders)
        counts[parent] = counts.get(parent, 0) + 1
    fullest = max(counts, key=lambda folder: counts[folder])
    if counts[fullest] > _FILES_PER_FOLDER:
        raise ConfigError(
            f"the cache has too many files for {address}",
            expected=f"at most {_FILES_PER_FOLDER:,} files in a folder, as the hub requires",
            found=f"{counts[fullest]:,} files in {fullest}: one for each unit",
            remedy="divide the videos into several caches, or use s3://",
        )
