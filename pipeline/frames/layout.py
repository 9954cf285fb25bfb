"""Names of the files of a frame store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.units import committed_units, unit_name
from distinit.schemas.errors import FrameStoreError

__all__ = ["ROWS_PER_BATCH", "StoreLayout"]

# Every record batch but the last has this many rows, so that a reader finds a row's batch by
# division. 512 JPEGs of 128x171 are some 4 MB: what a writer holds in memory.
ROWS_PER_BATCH = 512


@dataclass(frozen=True)
class StoreLayout:
    """``store.json``, ``unit-NNNNN.arrow`` and ``commits/unit-NNNNN.json`` below ``root``."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The geometry and the number of units."""
        return self.root / "store.json"

    @property
    def commits(self) -> Path:
        """Folder of the commit records."""
        return self.root / "commits"

    @property
    def lock(self) -> Path:
        """Held by whoever writes; see ``pipeline/lock.py``."""
        return self.root / ".lock"

    def unit_file_name(self, unit: int) -> str:
        """File name of a unit's frames, relative to the root."""
        return f"{unit_name(unit)}.arrow"

    def unit(self, unit: int) -> Path:
        """File of a unit's frames."""
        return self.root / self.unit_file_name(unit)

    def commit_name(self, unit: int) -> str:
        """Path of a unit's commit record, relative to the root."""
        return f"commits/{unit_name(unit)}.json"

    def commit(self, unit: int) -> Path:
        """Commit record of a unit."""
        return self.root / self.commit_name(unit)

    def committed_units(self) -> frozenset[int]:
        """Units with a commit record. Raises FrameStoreError where the folder cannot be read."""
        try:
            return committed_units(self.commits)
        except OSError as error:
            raise FrameStoreError(
                f"cannot read {self.commits}",
                expected="the folder of the store's commit records",
                found=error.strerror,
            ) from error
