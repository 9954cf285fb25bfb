"""What a receiving team does first: read a cache's card, and check every byte of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.progress import NullProgress, Progress
from distinit.schemas.base import Record
from distinit.schemas.errors import CacheError
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.video import SamplingConfig
from distinit.schemas.wording import counted

__all__ = ["CacheInfo", "CacheVerification", "cache_info", "cache_verify"]

_PROBLEMS_SHOWN = 20


class CacheInfo(Record):
    """A cache in short. ``teachers`` is what each ``teacher.json`` says."""

    path: str
    format_version: int
    content_digest: str = Field(description="empty while the cache is not complete")
    complete: bool
    corpus_digest: str
    videos: int
    failed: int
    frames: int
    rows: int
    units: int
    capacity: int
    sampling: SamplingConfig
    teachers: dict[str, TeacherRecord]

    def summary(self) -> str:
        """The card of the cache."""
        state = "complete" if self.complete else "NOT COMPLETE: run the same extract again"
        sampling = self.sampling.model_dump(exclude_defaults=True) or "all frames"
        lines = [
            f"cache     {self.path} ({state})",
            f"digest    {self.content_digest or '-'}",
            f"videos    {self.videos}, of which {self.failed} failed",
            f"frames    {self.frames} decoded, {self.rows} rows ({sampling})",
            f"units     {self.units} of {self.capacity} rows",
        ]
        for name, record in self.teachers.items():
            identity = record.identity
            lines += [
                "",
                f"teacher   {name}: {identity.architecture}",
                f"          {identity.classes} {identity.target} ({identity.label_space}), "
                f"{record.encoding}, {record.precision}",
                f"          weights {identity.weights_sha256[:16]}, "
                f"fingerprint {record.fingerprint[:16]}",
            ]
            if record.fidelity is not None:
                lines.append(f"          encoding lost: {record.fidelity}")
        return "\n".join(lines)


class CacheVerification(Record):
    """Every disagreement between the bytes and the records."""

    path: str
    ok: bool
    deep: bool
    files: int
    rows: int
    bytes: int
    problems: tuple[str, ...]

    def summary(self) -> str:
        """The verdict, then the problems."""
        checked = (
            f"{counted(self.files, 'file')}, {counted(self.rows, 'row')}, {self.bytes / 1e6:.1f} MB"
        )
        if self.ok:
            how = "every byte agrees" if self.deep else "files and sizes agree (no checksums)"
            return f"ok: {checked}: {how}"
        lines = [f"DAMAGED: {checked}: {counted(len(self.problems), 'problem')}"]
        lines += [f"  {problem}" for problem in self.problems[:_PROBLEMS_SHOWN]]
        if len(self.problems) > _PROBLEMS_SHOWN:
            lines.append(f"  ... {len(self.problems) - _PROBLEMS_SHOWN} more (--json has all)")
        lines.append("  to do: do not train from it; fetch it again, or ask its sender for a copy")
        return "\n".join(lines)


def cache_info(path: Path) -> CacheInfo:
    """Read manifest and teacher records; also of an incomplete cache. Raises CacheError."""
    cache = TargetCache.open(path, allow_incomplete=True)
    manifest = cache.manifest
    return CacheInfo(
        path=str(path),
        format_version=manifest.format_version,
        content_digest=manifest.content_digest,
        complete=manifest.complete,
        corpus_digest=manifest.corpus.digest,
        videos=manifest.corpus.videos,
        failed=manifest.corpus.failed,
        frames=manifest.corpus.frames,
        rows=manifest.row_space.rows,
        units=manifest.row_space.units,
        capacity=manifest.row_space.capacity,
        sampling=manifest.sampling,
        teachers=dict(cache.teachers),
    )


def cache_verify(path: Path, *, deep: bool, progress: Progress | None = None) -> CacheVerification:
    """Check a cache; damage is reported, not raised. Raises CacheError where there is none."""
    if not (path / "manifest.json").is_file():
        raise CacheError(
            f"{path} is no target cache",
            expected="a folder with a manifest.json",
            remedy="give the folder that `distinit extract --cache` wrote",
        )
    progress = progress or NullProgress()
    started = False

    def on_unit(_done: int, total: int) -> None:
        nonlocal started
        if not started:
            progress.start("verify", total, "units")
            started = True
        progress.advance()

    report = verify_cache(path, deep=deep, on_unit=on_unit)
    progress.finish()
    return CacheVerification(
        path=str(path),
        ok=report.ok,
        deep=report.deep,
        files=report.files,
        rows=report.rows,
        bytes=report.bytes,
        problems=report.problems,
    )
