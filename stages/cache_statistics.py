"""Computes the statistics of the feature teachers of a cache again, from its stored rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.feature_statistics import FeatureStatistics, read_statistics
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_manifest, read_teacher, refuse_no_cache
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.progress import NullProgress, Progress
from distinit.schemas.base import Record
from distinit.schemas.errors import CacheError
from distinit.schemas.wording import counted, first_names, one_line

__all__ = ["StatisticsResult", "TeacherStatistics", "cache_statistics"]


class TeacherStatistics(Record):
    """The statistics of one feature teacher, in a few numbers."""

    vectors: int = Field(ge=1, description="rows, or cells of the grids of all rows")
    channels: int = Field(ge=1, description="values per vector")
    mean_norm: float = Field(ge=0, description="Euclidean norm of the mean vector")
    median_std: float = Field(
        ge=0, description="median of the standard deviations of the channels, in feature units"
    )

    @classmethod
    def of(cls, statistics: FeatureStatistics) -> TeacherStatistics:
        """The numbers of a teacher."""
        return cls(
            vectors=statistics.vectors,
            channels=len(statistics.mean_C),
            mean_norm=float(np.linalg.norm(statistics.mean_C)),
            median_std=float(np.median(statistics.std_C)),
        )


class StatisticsResult(Record):
    """What was computed."""

    path: str = Field(description="folder of the cache")
    content_digest: str = Field(description="unchanged")
    teachers: dict[str, TeacherStatistics] = Field(description="by id of the feature teacher")
    outdated_signature: bool = Field(description="whether cache.sig signs the cache as it was")

    def summary(self) -> str:
        """Text for the terminal."""
        lines = [f"cache     {one_line(self.path)}"]
        lines += [
            f"teacher   {one_line(name)}: {counted(found.vectors, 'vector')} of "
            f"{counted(found.channels, 'channel')}, median standard deviation "
            f"{found.median_std:.4g}, norm of the mean {found.mean_norm:.4g}"
            for name, found in self.teachers.items()
        ]
        if self.outdated_signature:
            lines.append("cache.sig signs the cache as it was: run `distinit cache sign` again")
        return "\n".join(lines)


def cache_statistics(root: Path, *, progress: Progress | None = None) -> StatisticsResult:
    """Write the statistics of every feature teacher. The content digest does not change.

    Raises CacheError for a cache that is incomplete, partial or has no feature teacher,
    CacheCorruptError for rows that cannot be read, LockedError, StorageError.
    """
    progress = progress or NullProgress()
    refuse_no_cache(root)
    layout = CacheLayout(root)
    refuse_copy(layout)
    manifest = read_manifest(layout)
    names = [name for name, teacher in manifest.teachers.items() if teacher.target == "features"]
    if not names or not manifest.complete:
        raise CacheError(
            f"the statistics of {root} cannot be computed",
            expected="a complete cache with a feature teacher",
            found=f"teachers {first_names(sorted(manifest.teachers))}, which store logits"
            if manifest.complete
            else "an incomplete cache",
            remedy="`distinit extract` completes a cache, and computes its statistics",
        )
    with CacheWriter.create_or_open(
        root, videos=(), sampling=manifest.sampling, teachers={}
    ) as writer:
        for line in writer.repairs:
            progress.message(f"repair: {line}")
        writer.discard_statistics()
        manifest = writer.finalise(progress)
        return StatisticsResult(
            path=str(root),
            content_digest=manifest.content_digest,
            teachers={
                name: TeacherStatistics.of(read_statistics(layout, read_teacher(layout, name)))
                for name in names
            },
            outdated_signature=writer.outdated_signature,
        )
