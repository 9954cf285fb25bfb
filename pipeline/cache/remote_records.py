"""The records of a cache elsewhere: the manifest and the list of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.published import (
    CHECKSUMS,
    COPY,
    MANIFEST,
    PublishedFile,
    max_list_bytes,
    parse_list,
)
from distinit.pipeline.cache.records import checked_teacher
from distinit.pipeline.cache.state import summary_of
from distinit.pipeline.records import MAX_RECORD_BYTES, parse_record
from distinit.pipeline.transport.receive import receive_bytes, receive_if_there
from distinit.pipeline.transport.stores import Store
from distinit.schemas.errors import CacheCorruptError, CacheError, TransferError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import one_line

__all__ = ["RemoteRecords", "receive_manifest", "receive_records", "receive_teachers"]

_ASK_SENDER = "check the address, and ask the sender of the cache"


@dataclass(frozen=True, slots=True)
class RemoteRecords:
    """What describes a complete cache elsewhere, and the bytes that it was read from."""

    manifest: CacheManifest
    files: dict[str, PublishedFile]
    manifest_bytes: bytes
    list_bytes: bytes

    @property
    def list_sha256(self) -> str:
        """Identifies the cache with all its bytes."""
        return hashlib.sha256(self.list_bytes).hexdigest()


def receive_manifest(store: Store) -> tuple[CacheManifest, bytes]:
    """The manifest of a cache elsewhere, checked as a local one.

    Raises CacheError if there is none, CacheCorruptError, TransferError.
    """
    data = receive_if_there(store, MANIFEST, MAX_RECORD_BYTES)
    if data is None:
        raise CacheError(
            f"{one_line(store.shown)} is not a target cache: it has no manifest.json",
            expected="a folder or URL below which a cache was written or sent",
            remedy="check the address; a cache whose sending was interrupted has no "
            "manifest.json yet",
            named_input=True,
        )
    manifest = parse_record(
        data,
        CacheManifest,
        f"{store.shown}/{MANIFEST}",
        error=CacheCorruptError,
        remedy=_ASK_SENDER,
    )
    for teacher_id in manifest.teachers:
        CacheLayout(Path()).teacher(teacher_id)  # refuses ids that are not folder names
    return manifest, data


def receive_teachers(store: Store, manifest: CacheManifest) -> dict[str, TeacherRecord]:
    """The records of all teachers, which the manifest has the digests of.

    Raises CacheCorruptError, TransferError.
    """
    records = {}
    for teacher_id, summary in manifest.teachers.items():
        layout = CacheLayout(Path())
        name = layout.relative(layout.teacher_record(teacher_id))
        record = parse_record(
            receive_bytes(store, name, MAX_RECORD_BYTES),
            TeacherRecord,
            f"{store.shown}/{name}",
            error=CacheCorruptError,
            remedy=_ASK_SENDER,
        )
        records[teacher_id] = checked_teacher(record, teacher_id, f"{store.shown}/{name}")
        found = summary_of(record, summary.units_committed)
        if found != summary:
            raise CacheCorruptError(
                f"{store.shown}: the manifest and the record of teacher {teacher_id} disagree",
                expected=summary.model_dump(),
                found=found.model_dump(),
                remedy=_ASK_SENDER,
            )
    return records


def receive_records(store: Store, expect: str | None = None) -> RemoteRecords:
    """The manifest and the list of files of a complete cache.

    Raises CacheError if the cache is missing, incomplete, a partial copy, or does not have the
    content digest ``expect``; CacheCorruptError; TransferError.
    """
    manifest, data = receive_manifest(store)
    if not manifest.complete:
        raise CacheError(
            f"the cache at {store.shown} is not complete",
            expected="every unit of every teacher",
            remedy="ask its sender to complete it first",
        )
    if expect not in (None, manifest.content_digest):
        raise CacheError(
            f"{store.shown} is not the expected cache: nothing was copied",
            expected=f"content digest {expect}",
            found=f"content digest {manifest.content_digest}",
            remedy="check the address and the published digest",
        )
    _refuse_copies(store)
    listed = receive_bytes(store, CHECKSUMS, max_list_bytes(manifest))
    files = parse_list(listed, manifest, store.shown)
    if files[MANIFEST].sha256 != hashlib.sha256(data).hexdigest():
        raise TransferError(
            f"{store.shown}: manifest.json is not the one that manifest-sha256.txt lists",
            expected=f"sha256 {files[MANIFEST].sha256}",
            found="other bytes",
            remedy="if the cache is being replaced, try again later; otherwise ask its sender",
        )
    return RemoteRecords(manifest, files, data, listed)


def _refuse_copies(store: Store) -> None:
    if receive_if_there(store, COPY, MAX_RECORD_BYTES) is not None:
        raise CacheError(
            f"{store.shown} is only a partial copy of a cache",
            expected="a whole cache",
            remedy="use the address of the cache that it was copied from",
        )
