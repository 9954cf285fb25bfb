"""Signs a cache, and compares the files of a cache with what its sender signed.

One statement has the name and the sha256 of every published file, so that two exchanged files are
found. Digests come from bytes that were read in the same command, never from a file of the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.signature_file import read_signature
from distinit.pipeline.cache.signing_library import (
    import_signing,
    signature_of,
    signature_problem,
)
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.cache.verify import VerifyReport
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.records import MAX_RECORD_BYTES
from distinit.pipeline.signing_keys import read_public_key, sha256_of_key
from distinit.pipeline.storage import atomic_write_bytes, refuse_links, sha256_file
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.wording import counted, one_line

__all__ = ["SignatureCheck", "check_signature", "locked_for_signing", "sign_verified"]

_SUBJECT = "distinit-target-cache"  # the name of what is signed, for people
_BYTES_PER_FILE = 1_000  # of a signature: at most 400 for a name of 150 characters
_MAX_FILE_BYTES = 16 << 30  # a shard of 32,768 rows and 2**17 classes takes half of it


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """The result of a check against one public key.

    Attributes:
        key_sha256: Of the given public key.
        files: Files of the cache that are as they were signed.
        absent: Signed files that a partial copy does not have; 0 for a whole cache, in which they
            are problems.
        problems: One line each, safe to print; empty if the key's owner signed exactly this cache.
    """

    key_sha256: str
    files: int
    problems: tuple[str, ...]
    absent: int = 0


@contextmanager
def locked_for_signing(root: Path) -> Iterator[None]:
    """Keep other processes from writing the cache while it is verified and signed.

    Raises CacheError if it holds links, LockedError, StorageError.
    """
    layout = CacheLayout(root.resolve())
    refuse_links(layout.root, CacheError)
    with WriterLock(layout.lock):
        yield


def sign_verified(
    root: Path, report: VerifyReport, private_key: Path, password: bytes | None
) -> int:
    """Sign all published files of a cache that was just verified; returns their number.

    Raises CacheCorruptError if the report has problems, CacheError if the cache is not complete,
    StorageError.
    """
    layout = CacheLayout(root.resolve())
    _refuse_unfit(layout, report)
    sha256 = {name: _digest(layout, name, report.sha256) for name in _names(layout)}
    data = signature_of(_SUBJECT, sha256, private_key, password)
    atomic_write_bytes(layout.signature, data)
    return len(sha256)


def _refuse_unfit(layout: CacheLayout, report: VerifyReport) -> None:
    if report.problems:
        raise CacheCorruptError(
            f"{layout.root} is damaged: it was not signed",
            expected="a cache without problems",
            found=f"{counted(len(report.problems), 'problem')}; the first: {report.problems[0]}",
            remedy=f"run `{layout.verify_command()}`, and repair the cache first",
        )
    if not report.complete:
        raise CacheError(
            f"{layout.root} is not complete: it was not signed",
            expected="a complete cache",
            remedy=f"run `{layout.verify_command()}`, which shows what is missing",
        )


def _names(layout: CacheLayout) -> list[str]:
    """Every published file, the list of checksums included, sorted."""
    names = [name for name in list_tree(layout).files if name != layout.copy.name]
    return sorted(names + ([layout.checksums.name] if layout.checksums.is_file() else []))


def _digest(layout: CacheLayout, name: str, known: Mapping[str, str]) -> str:
    """The sha256 of one file; "" if it is larger than any file of a cache, or unreadable."""
    if name in known:
        return known[name]
    try:
        return sha256_file(layout.root / name, _MAX_FILE_BYTES)
    except OSError:
        return ""


def check_signature(root: Path, public_key: Path, known: Mapping[str, str]) -> SignatureCheck:
    """Compare all files of a cache with the signature of a key's owner.

    In a partial copy (``copy.json``), every file must be signed, but not every signed file must be
    there: which ones belong to the copy is checked by ``verify_copy``.

    Args:
        root: Folder of the cache.
        public_key: PEM file, which the user trusts.
        known: Name -> sha256 of files that were already hashed in this run.

    Raises:
        ConfigError: The key cannot be used, or model-signing is not installed.
    """
    import_signing()
    layout = CacheLayout(root.resolve())
    pem = read_public_key(public_key)
    key_sha256 = sha256_of_key(pem)
    names = _names(layout)
    signed, problem = _signed_digests(layout, pem, _BYTES_PER_FILE * len(names))
    if problem:
        line = one_line(f"{layout.signature.name}: {problem}")
        return SignatureCheck(key_sha256, 0, (line,))
    here = {name: _digest(layout, name, known) if name in signed else "" for name in names}
    same = sum(digest == signed.get(name) for name, digest in here.items())
    absent = signed.keys() - here.keys() if layout.copy.is_file() else set()
    wanted = {name: digest for name, digest in signed.items() if name not in absent}
    return SignatureCheck(key_sha256, same, tuple(_differences(here, wanted)), len(absent))


def _signed_digests(
    layout: CacheLayout, public_pem: bytes, limit_bytes: int
) -> tuple[dict[str, str], str]:
    """Name -> sha256 of all files that the owner of the key has signed, and why there are none."""
    try:
        signature = read_signature(layout.signature, max(MAX_RECORD_BYTES, limit_bytes))
    except FileNotFoundError:
        return {}, "missing: the cache is not signed"
    except CacheCorruptError as error:
        return {}, f"not a signature of a cache: {error.found}"
    key_sha256 = sha256_of_key(public_pem)
    if signature.key_sha256 != key_sha256:
        found = signature.key_sha256[:64]
        return {}, f"made with another key: its public key has sha256 {found}, not {key_sha256}"
    problem = signature_problem(signature.data, signature.sha256, public_pem)
    return signature.sha256, f"not valid: {problem}" if problem else ""


def _differences(here: Mapping[str, str], signed: Mapping[str, str]) -> list[str]:
    """One line for each file that is not as it was signed."""
    lines = []
    for name in sorted(here.keys() | signed.keys()):
        if name not in here:
            lines.append(f"{name}: signed, but not here")
        elif name not in signed:
            lines.append(f"{name}: not signed")
        elif here[name] != signed[name]:
            lines.append(f"{name}: not the bytes that were signed")
    return [one_line(line) for line in lines]
