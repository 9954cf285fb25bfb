"""Opens the cache of an audit: as it is, or with the logits of a vocabulary in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.combining.source import open_source
from distinit.pipeline.combining.writing import write_derived
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import PARTIAL_SUFFIX, refuse_links
from distinit.pipeline.transport.remote import is_url
from distinit.pipeline.vocabulary.files import read_vocabulary
from distinit.schemas.audit import AuditConfig
from distinit.schemas.errors import ConfigError, StorageError
from distinit.stages.cache_relabel import relabelled_blueprint

__all__ = ["cache_to_audit"]

_FOLDER = f"relabelled{PARTIAL_SUFFIX}"
_LOCK = ".lock"
_CACHE = "cache"


@contextmanager
def cache_to_audit(config: AuditConfig, progress: Progress) -> Iterator[TargetCache]:
    """The cache of ``config``. With a vocabulary, a relabelled one, which exists until the end.

    It lies in ``config.out``. What an audit that was killed has left of it is removed first. The
    features are compared with their sha256 as they are read.

    Raises what ``cache_relabel`` raises, and LockedError if another audit writes there.
    """
    if config.vocabulary is None:
        yield TargetCache.open(config.cache)
        return
    if is_url(config.cache):
        raise ConfigError(
            "an audit with a vocabulary reads all features of the cache",
            expected="a cache in a folder",
            found=config.cache,
            remedy="copy it with `distinit cache pull` first",
        )
    vocabulary = read_vocabulary(Path(config.vocabulary))
    source = open_source(Path(config.cache), progress, verify=False)
    blueprint = relabelled_blueprint(source, [vocabulary], config.teacher, "float16")
    with _temporary_cache(Path(config.out) / _FOLDER) as folder:
        write_derived(folder, [source], blueprint, progress)
        yield TargetCache.open(folder)


@contextmanager
def _temporary_cache(parent: Path) -> Iterator[Path]:
    """A place for a cache in the folder ``parent``, which is removed at the end with its content.

    A killed process leaves the lock file in ``parent``, which tells its folder from a user's.
    Raises LockedError, and StorageError for a folder with other files.
    """
    _refuse_others(parent)
    with WriterLock(parent / _LOCK):
        try:
            shutil.rmtree(parent / _CACHE, ignore_errors=True)
            yield parent / _CACHE
        finally:
            shutil.rmtree(parent / _CACHE, ignore_errors=True)
            with suppress(OSError):
                (parent / _LOCK).unlink()  # the last file, so that the folder stays recognisable
                parent.rmdir()


def _refuse_others(parent: Path) -> None:
    """Raise StorageError unless ``parent`` is missing, empty, or left by a killed audit."""
    names = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    others = [name for name in names if name not in (_LOCK, _CACHE)]
    if parent.is_symlink() or others or names == [_CACHE]:
        raise StorageError(
            f"{parent} is not a folder of an audit: the logits are not written there",
            expected="no folder of that name",
            found="a link" if parent.is_symlink() else ", ".join(names[:5]),
            remedy="rename or remove it, or choose another --out",
        )
    refuse_links(parent)
