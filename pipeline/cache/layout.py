"""Paths of all files of a target cache. They are part of the format that others read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.units import committed_units, unit_name
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.teacher import TEACHER_ID_PATTERN
from distinit.schemas.wording import shell_line, shown

__all__ = ["DAMAGE_REMEDY", "PULL_NOTES", "CacheLayout"]

PULL_NOTES = ".pull"
"""File of a folder in which a pull has not ended: the sha256 of the list of its files."""
DAMAGE_REMEDY = (
    "if you extracted the cache, add --repair to the same `distinit extract`; if you received it, "
    "run the same `distinit cache pull URL FOLDER` again, which fetches just the damaged files"
)
"""What to do about a damaged file of a unit."""


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """All paths of the cache in folder ``root``."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def readme(self) -> Path:
        return self.root / "README.md"

    @property
    def croissant(self) -> Path:
        return self.root / "croissant.json"

    @property
    def checksums(self) -> Path:
        return self.root / "manifest-sha256.txt"

    @property
    def signature(self) -> Path:
        """Signs the names and digests of all other published files; see ``signature``."""
        return self.root / "cache.sig"

    @property
    def copy(self) -> Path:
        """What a partial copy of a cache holds; whole caches do not have it. See ``copies``."""
        return self.root / "copy.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.parquet"

    @property
    def videos(self) -> Path:
        return self.root / "videos.parquet"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def fence(self) -> Path:
        """The token of the run that may commit; see ``fence``."""
        return self.root / ".fence"

    @property
    def staging(self) -> Path:
        """Files of unfinished unit groups; removed when a writer opens the cache."""
        return self.root / ".staging"

    def frames(self, unit: int) -> Path:
        return self.root / "frames" / f"{unit_name(unit)}.parquet"

    def teacher(self, teacher_id: str) -> Path:
        """Folder of one teacher. Raises CacheCorruptError if the id is not a plain folder name."""
        if not TEACHER_ID_PATTERN.fullmatch(teacher_id):
            raise CacheCorruptError(
                "a teacher id is not a plain folder name",
                expected="letters, digits and . _ @ + - only",
                found=shown(teacher_id),
                remedy="do not use this cache; ask its sender for a clean copy",
            )
        return self.root / "teachers" / teacher_id

    def teacher_record(self, teacher_id: str) -> Path:
        return self.teacher(teacher_id) / "teacher.json"

    def array(self, teacher_id: str, name: str) -> Path:
        """Folder of one Zarr array: ``logits``, ``logits_affine`` or ``logits_ids``."""
        return self.teacher(teacher_id) / name

    def array_metadata(self, teacher_id: str, name: str) -> Path:
        return self.array(teacher_id, name) / "zarr.json"

    def shard(self, teacher_id: str, name: str, unit: int) -> Path:
        return self.array(teacher_id, name) / "c" / str(unit) / "0"

    def confidence(self, teacher_id: str, unit: int) -> Path:
        return self.teacher(teacher_id) / "confidence" / f"{unit_name(unit)}.parquet"

    def statistics(self, teacher_id: str) -> Path:
        """Mean and covariance of a feature teacher; see ``moments_file``."""
        return self.teacher(teacher_id) / "statistics.safetensors"

    def unit_moments(self, teacher_id: str, unit: int) -> Path:
        """Moments of one unit, from its commit until the statistics are merged; not published."""
        return self.teacher(teacher_id) / "moments" / f"{unit_name(unit)}.safetensors"

    def commit(self, teacher_id: str, unit: int) -> Path:
        return self.teacher(teacher_id) / "commits" / f"{unit_name(unit)}.json"

    def committed_units(self, teacher_id: str) -> frozenset[int]:
        """Units with a commit record of this teacher."""
        return committed_units(self.teacher(teacher_id) / "commits")

    def verify_command(self) -> str:
        """The shell command that checks this cache."""
        return shell_line(["distinit", "cache", "verify", str(self.root)])

    def relative(self, path: Path) -> str:
        """The path as it is written in records: relative to the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()
