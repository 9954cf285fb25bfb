"""Describes a cache: what a team that receives one looks at first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.arrays import shard_bytes
from distinit.pipeline.cache.copies import describe_copy
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import read_commit
from distinit.pipeline.cache.remote_records import receive_manifest, receive_teachers
from distinit.pipeline.transport.remote import is_url
from distinit.pipeline.transport.stores import open_store
from distinit.schemas.base import Record
from distinit.schemas.copies import CopyRecord
from distinit.schemas.derivation import Derivation
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.provenance import Provenance
from distinit.schemas.teacher import TeacherIdentity, TeacherRecord
from distinit.schemas.video import SamplingConfig
from distinit.schemas.wording import counted, one_line
from distinit.stages.cache_signature import (
    claimed_key,
)

__all__ = ["CacheInfo", "cache_info"]


class CacheInfo(Record):
    """Summary of a cache; ``teachers`` are the records in ``teacher.json``."""

    path: str = Field(description="folder of the cache, or its URL without credentials")
    format_version: int = Field(description="version of the format on disk")
    content_digest: str = Field(description="empty while the cache is not complete")
    complete: bool = Field(description="every unit is committed")
    partial: str | None = Field(
        None, description="what a partial copy of a cache has; None: all of it"
    )
    missing: tuple[str, ...] = Field(
        description="what an incomplete cache lacks, and the commands that add it"
    )
    corpus_digest: str = Field(description="sha256 over the digests of the owner's videos")
    videos: int = Field(description="videos in the owner's corpus")
    failed: int = Field(
        description="videos without rows, because they could not be decoded or a teacher failed"
    )
    damaged: int = Field(description="videos in the cache of which frames are or may be missing")
    gone: int = Field(description="additional videos that the owner's corpus no longer has")
    frames: int = Field(description="decoded frames of the videos in the corpus")
    rows: int = Field(
        description="rows in use, including those of gone videos; of a partial copy: its own"
    )
    units: int = Field(description="planned units")
    capacity: int = Field(description="rows per unit")
    sampling: SamplingConfig = Field(description="which frames became rows")
    provenance: Provenance = Field(
        default_factory=Provenance, description="where it comes from, as its owner states it"
    )
    signature: str | None = Field(
        None, description="sha256 of the key that cache.sig claims; not checked. None: not signed"
    )
    teachers: dict[str, TeacherRecord] = Field(description="id -> its record in teacher.json")
    statistics: dict[str, bool] = Field(
        {},
        description="feature teacher -> whether the cache has its mean and covariance; empty "
        "for a cache at a URL",
    )
    derived_from: Derivation | None = Field(
        None, description="the caches that it was made from; null: extracted from videos"
    )

    def summary(self) -> str:
        """Text for the terminal."""
        state = self.partial or ("complete" if self.complete else "NOT COMPLETE")
        gone = f"; {self.gone} more {'is' if self.gone == 1 else 'are'} gone" if self.gone else ""
        included = " (including gone videos)" if self.gone else ""
        size = self._target_bytes()
        size_text = f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
        lines = [
            f"cache     {one_line(self.path)} ({state})",
            *(f"NOT COMPLETE: {line}" for line in self.missing),
            f"digest    {self.content_digest or '-'}",
            f"videos    {self.videos}, of which {self.failed} failed, {self.damaged} damaged{gone}",
            f"frames    {self.frames} decoded, {counted(self.rows, 'row')}{included} "
            f"({self.sampling})",
            f"units     {counted(self.units, 'unit')} of {self.capacity:,} rows each; the targets "
            f"have about {size_text}",
            *(f"{name:9} {one_line(value)}" for name, value in self.provenance.stated.items()),
        ]
        if self.derived_from is not None:
            first, *others = self.derived_from.lines(" taken from it")
            lines += [f"made by   {first}", *(f"          {line}" for line in others)]
        if self.provenance.missing:
            lines.append(f"not stated: {', '.join(self.provenance.missing)}")
        if self.signature is not None:
            lines.append(f"signed    with key {self.signature} (check it: verify --signed-by)")
        for name, record in self.teachers.items():
            lines += ["", *_teacher_lines(name, record)]
            if name in self.statistics:
                state = "in the cache" if self.statistics[name] else "none, see `cache statistics`"
                lines.append(f"          mean and covariance: {state}")
        return "\n".join(lines)

    def _target_bytes(self) -> int:
        """Size of the targets of all rows in use, as shards store them."""
        return sum(
            self.rows * shard_bytes(spec, self.capacity) // self.capacity
            for record in self.teachers.values()
            for spec in array_specs(record.encoding, record.identity.classes)
        )


def _teacher_lines(name: str, record: TeacherRecord) -> list[str]:
    """A few short lines, so that the teachers of a cache fit on one screen."""
    identity = record.identity
    lines = [
        f"teacher   {one_line(name)}: {one_line(identity.architecture)}",
        f"          {identity.classes} {identity.target} ({_kind_of(identity)}), "
        f"{record.encoding}, {record.precision}",
        f"          weights {identity.weights_sha256[:16]}, fingerprint {record.fingerprint[:16]}",
    ]
    if record.recipe is not None and record.identity.target == "logits":  # it is about entropies
        lines.append(f"          {record.recipe}")
    encoding_loss, precision_loss = record.losses
    if encoding_loss is not None:
        lines.append(f"          stored as {record.encoding}: {encoding_loss.brief()}")
    if precision_loss is not None:
        lines.append(f"          computed in {record.precision}: {precision_loss.brief()}")
    return lines


def _kind_of(identity: TeacherIdentity) -> str:
    """The label space of logits, or how features are pooled."""
    if identity.pool is None and identity.target == "features":
        return "as the network pools them"
    if identity.pool is None:
        return one_line(identity.label_space)
    cells = f", {identity.cells} cells of {identity.channels}" if identity.cells > 1 else ""
    return f"pool {identity.pool}{cells}"


def cache_info(source: Path | str) -> CacheInfo:
    """Read the manifest and teacher records of a cache, which may be incomplete or at a URL.

    Raises CacheError, and TransferError for a URL.
    """
    if isinstance(source, str) and is_url(source):
        store = open_store(source)
        manifest, _ = receive_manifest(store)
        return _info(store.shown, manifest, receive_teachers(store, manifest))
    cache = TargetCache.open(Path(source), allow_incomplete=True)
    key = claimed_key(Path(source))
    info = _info(str(source), cache.manifest, cache.teachers, cache.missing, key)
    features = [n for n, r in cache.teachers.items() if r.identity.target == "features"]
    present = {name: cache.layout.statistics(name).is_file() for name in features}
    info = info.model_copy(update={"statistics": present})
    if cache.copy is None:
        return info
    partial = describe_copy(cache.copy, cache.manifest)
    return info.model_copy(update={"partial": partial, "rows": _rows_of_copy(cache, cache.copy)})


def _rows_of_copy(cache: TargetCache, copy: CopyRecord) -> int:
    """Rows in use in the units of a partial copy."""
    record = cache.teachers[copy.teachers[0]]
    return sum(read_commit(cache.layout, record, unit).rows for unit in copy.units)


def _info(
    path: str,
    manifest: CacheManifest,
    teachers: Mapping[str, TeacherRecord],
    missing: tuple[str, ...] = (),
    signature: str | None = None,
) -> CacheInfo:
    return CacheInfo(
        path=path,
        format_version=manifest.format_version,
        content_digest=manifest.content_digest,
        complete=manifest.complete,
        missing=missing,
        corpus_digest=manifest.corpus.digest,
        videos=manifest.corpus.videos,
        failed=manifest.corpus.failed,
        damaged=manifest.corpus.damaged,
        gone=manifest.corpus.gone,
        frames=manifest.corpus.frames,
        rows=manifest.row_space.rows,
        units=manifest.row_space.units,
        capacity=manifest.row_space.capacity,
        sampling=manifest.sampling,
        provenance=manifest.provenance or Provenance(),
        signature=signature,
        teachers=dict(teachers),
        derived_from=manifest.derived_from,
    )
