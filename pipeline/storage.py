"""Files that are complete or absent, paths that stay inside their folder, bounded reads.

Folders may come from an attacker. Nothing here follows a link to write, waits for a pipe, or reads
more than the caller allows.

While a file is written it has another name, unique to its writer: ``NAME.1f2e3d4c.partial``. The
writer holds a ``flock`` on it, so that the leftovers of killed writers can be told from files that
are being written.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from distinit.schemas.errors import CacheCorruptError, DistInitError, StorageError
from distinit.schemas.wording import shell_line, shown

__all__ = [
    "PARTIAL_SUFFIX",
    "atomic_path",
    "atomic_write_bytes",
    "create_partial",
    "fsync_dir",
    "fsync_file",
    "move_synced",
    "open_for_writing",
    "open_inside",
    "open_regular",
    "read_bounded",
    "read_inside",
    "refuse_links",
    "remove_dead_partials",
    "safe_join",
    "sha256_file",
    "storage_errors",
    "write_text",
]

PARTIAL_SUFFIX = ".partial"

_AGAIN = "run the same command again"
_RESUMABLE = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "your disk quota is used up: free some space",
    errno.EFBIG: "the file size limit is reached (`ulimit -f`): raise it",
    errno.EIO: "the disk reports an error: check it (`dmesg`)",
}
"""What to do before the same command is run again."""
_REMEDIES = {
    errno.ENOTDIR: "a part of that path is a file: choose another folder",
    errno.EISDIR: "a folder has that name: choose another path",
    errno.EEXIST: "a file has that name: choose another folder",
    errno.ELOOP: "the path is a symbolic link, which is not followed: remove it",
    errno.EROFS: "the file system is read-only: choose a folder you can write to",
    errno.EACCES: "you have no permission to write there: change it or choose another folder",
    errno.EPERM: "you have no permission to write there: change it or choose another folder",
}
_REGULAR = "a regular file"
_BLOCK_BYTES = 1 << 20
_PARTIAL_NAME = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)}")


@contextmanager
def storage_errors(path: Path, again: str = _AGAIN) -> Iterator[None]:
    """Turn an OSError of the disk (full, read-only, no permission) into a StorageError.

    ``again``: what the user does once the disk has room.
    """
    try:
        yield
    except OSError as error:
        remedies = _REMEDIES | {n: f"{text}, then {again}" for n, text in _RESUMABLE.items()}
        if error.errno not in remedies:
            raise
        raise StorageError(
            f"cannot write {path}",
            found=os.strerror(error.errno),  # libraries embellish strerror
            remedy=remedies[error.errno],
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a new, empty file to write; on success it is synced and renamed to ``path``.

    It lies next to ``path``, and its name is unique: of several writers of one path the last to
    finish wins. On an error it is removed and ``path`` is unchanged.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, descriptor = create_partial(path)
        try:
            yield partial
            fsync_file(partial)
            partial.replace(path)
            fsync_dir(path.parent)
        finally:
            with suppress(OSError):
                partial.unlink()
            os.close(descriptor)


def create_partial(path: Path) -> tuple[Path, int]:
    """A new, empty file to be renamed to ``path``, and a descriptor to write it.

    The file counts as being written until the descriptor is closed. Raises StorageError.
    """
    while True:
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
        descriptor = open_for_writing(partial, os.O_EXCL)
        # ``remove_dead_partials`` may have found it before it was locked.
        if _try_lock(descriptor, if_unsupported=True) and os.fstat(descriptor).st_nlink:
            return partial, descriptor
        os.close(descriptor)


def remove_dead_partials(folder: Path) -> None:
    """Remove what killed writers left directly in ``folder``; files being written are kept.

    Only files that have the name of a partial file as ``create_partial`` makes it are touched.
    Raises StorageError.
    """
    with storage_errors(folder):
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if _PARTIAL_NAME.fullmatch(path.name) and not path.is_symlink():
                _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    try:
        descriptor = open_regular(path)
    except OSError:  # not a file, or its writer has just finished
        return
    try:
        if _try_lock(descriptor, if_unsupported=False):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, if_unsupported: bool) -> bool:
    """Whether the lock was free and is now held.

    On file systems without locks, ``if_unsupported`` is returned.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return if_unsupported
    return True


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees either the old bytes or the new ones."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, unless it has this content already. Raises StorageError."""
    data = text.encode()
    if not (path.is_file() and path.read_bytes() == data):
        atomic_write_bytes(path, data)


def open_for_writing(path: Path, flags: int = 0) -> int:
    """A descriptor to read and write a file, which is created if it is missing; never a link.

    Raises StorageError if the path is a link, a folder or a special file, or a file with content
    that has another name too (a hard link): a write would change the content under both names.
    """
    with storage_errors(path):
        flags |= os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o644)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise StorageError(f"cannot write {path}", expected=_REGULAR, found="a special file")
    if status.st_nlink > 1 and status.st_size > 0:  # an empty .lock in a copy by `cp -al` may stay
        os.close(descriptor)
        named, copy = shell_line([str(path)]), shell_line([f"{path}.copy"])
        raise StorageError(
            f"cannot write {path}",
            expected="a file with one name",
            found=f"a hard link: the file has {status.st_nlink} names, and all would change",
            remedy=f"replace it with a copy: cp {named} {copy} && mv {copy} {named}",
        )
    return descriptor


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file; never waits for a pipe or a device.

    Raises OSError: as ``os.open``, and with EINVAL for a pipe, a device, a socket or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def open_inside(root: Path, path: Path) -> int:
    """As ``open_regular``, for a file below ``root``, which must be a resolved path.

    Raises OSError: as ``open_regular``, and with ELOOP if a link leads out of ``root``.
    """
    descriptor = open_regular(path)
    try:
        real = str(Path(f"/proc/self/fd/{descriptor}").readlink())  # of the file that was opened
    except OSError:
        real = os.path.realpath(path)
    if not real.startswith(f"{root}{os.sep}"):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "a link that leads outside of the folder", str(path))
    return descriptor


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """All bytes of a regular file. Raises OSError: as ``open_regular``, EFBIG above the limit."""
    return _read_all(open_regular(path), path, limit_bytes)


def read_inside(root: Path, path: Path, limit_bytes: int) -> bytes:
    """As ``read_bounded``, for a file below ``root``. Raises OSError also as ``open_inside``."""
    return _read_all(open_inside(root, path), path, limit_bytes)


def _read_all(descriptor: int, path: Path, limit_bytes: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        size_bytes = os.fstat(descriptor).st_size
        _refuse_above(limit_bytes, size_bytes, path)
        data = file.read(size_bytes + 1)  # read() allocates as many bytes as it is asked for
        while len(data) > size_bytes and (more := file.read(_BLOCK_BYTES)):
            data += more  # files of /proc report size 0, others may grow
            _refuse_above(limit_bytes, len(data), path)
    _refuse_above(limit_bytes, len(data), path)
    return data


def _refuse_above(limit_bytes: int, size_bytes: int, path: Path) -> None:
    if size_bytes > limit_bytes:
        raise OSError(errno.EFBIG, f"more than {limit_bytes:,} bytes", str(path))


def refuse_links(root: Path, error: type[DistInitError] = StorageError) -> None:
    """Raise ``error`` unless everything below ``root`` is a regular file or a folder.

    To be called before the first write into a folder that may come from someone else: through a
    link in it, a write or a removal could reach any other place. ``root`` itself may be a link.
    """
    folders = [root] if root.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise error(
                        f"{root} holds a link or a special file: nothing is written there",
                        expected="files and folders only",
                        found=_kind_of(Path(entry.path), root),
                        remedy="remove it, or give another folder",
                    )


def _kind_of(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    return f"{name} -> {path.readlink()}" if path.is_symlink() else f"{name}, a special file"


def fsync_file(path: Path) -> None:
    """Flush one file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power failure."""
    fsync_file(path)


def move_synced(staged: Path, final: Path) -> None:
    """Move a whole file to its place on the same disk, so that it survives a power failure."""
    fsync_file(staged)
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(final)
    fsync_dir(final.parent)
    fsync_dir(final.parent.parent)  # the folder of a shard may be new


def sha256_file(path: Path, limit_bytes: int | None = None) -> str:
    """Hex sha256 of a regular file's bytes, read in bounded memory. Raises as ``read_bounded``."""
    with os.fdopen(open_regular(path), "rb") as file:
        if limit_bytes is not None:
            _refuse_above(limit_bytes, os.fstat(file.fileno()).st_size, path)
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_join(root: Path, relative: str) -> Path:
    """``root / relative``, for a relative path that may come from a hostile manifest.

    Raises CacheCorruptError for absolute paths, ``..``, symbolic links that lead out of ``root``,
    and names with backslashes or unprintable characters.
    """
    pure = PurePosixPath(relative)
    unusable = "\\" in relative or not relative.isprintable() or not relative
    if pure.is_absolute() or ".." in pure.parts or unusable:
        raise CacheCorruptError(
            "a record names a path outside of its folder",
            expected=f"a relative path below {root}",
            found=shown(relative),
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    joined = root / relative
    real = Path(os.path.realpath(joined))  # Path.resolve raises if links form a circle
    if not real.is_relative_to(os.path.realpath(root)):
        raise CacheCorruptError(
            "a link in the folder leads outside of it",
            expected=f"files below {root}",
            found=f"{relative} -> {real}",
            remedy="do not use this folder; ask its sender for a clean copy",
        )
    return joined
