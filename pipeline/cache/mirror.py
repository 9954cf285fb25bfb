"""Local copies of the records and tables of caches elsewhere, so that these can be opened.

They lie under ``$XDG_CACHE_HOME/distinit/remote/<sha256 of the list of checksums>/``: a machine
receives the same cache once, and another one never gets its folder. The folder may be deleted
while no process uses it.
"""

from __future__ import annotations

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.pull import pull_records
from distinit.pipeline.cache.remote_records import receive_records
from distinit.pipeline.derived import index_folder, is_private
from distinit.pipeline.progress import Progress
from distinit.pipeline.transport.stores import open_store
from distinit.schemas.errors import StorageError

__all__ = ["mirror_records"]

_THREADS = 8


def mirror_records(address: str, progress: Progress) -> CacheLayout:
    """Receive all files but the shards of the cache at ``address``, unless they are here.

    The manifest and the list of files are received each time. Raises CacheError,
    CacheCorruptError, ConfigError, TransferError, StorageError.
    """
    store = open_store(address)
    records = receive_records(store)
    key = index_folder(records.list_sha256)
    folder = key.parent / "remote" / key.name
    pull_records(store, records, folder, workers=_THREADS, progress=progress)
    if not (is_private(folder.parent) and is_private(folder)):
        raise StorageError(
            f"{folder} can be written by others: it is not read",
            expected="a folder where only you can write",
            remedy="remove it, or set XDG_CACHE_HOME to another folder",
        )
    return CacheLayout(folder.resolve())
