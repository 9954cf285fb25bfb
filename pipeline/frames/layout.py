"""Names of the files in a frame store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.units import committed_units, unit_name
from distinit.schemas.errors import FrameStoreError

__all__ = ["ROWS_PER_BATCH", "StoreLayout"]

# Every record batch but the last has this many rows, so that a reader finds the batch of a row by
# division. A writer holds one batch in memory; 512 JPEGs of 128x171 take about 4 MB.
ROWS_PER_BATCH = 512


@dataclass(frozen=True)
class StoreLayout:
    """Paths of ``store.json``, ``unit-NNNNN.arrow`` and ``commits/unit-NNNNN.json`` in ``root``."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The manifest: geometry and units."""
        return self.root / "store.json"

    @property
    def commits(self) -> Path:
        """Folder of the commit records."""
        return self.root / "commits"

    @property
    def lock(self) -> Path:
        """The lock that a writer holds; see ``pipeline/lock.py``."""
        return self.root / ".lock"

    def unit_file_name(self, unit: int) -> str:
        """Name of the file with a unit's frames, relative to the root."""
        return f"{unit_name(unit)}.arrow"

    def unit(self, unit: int) -> Path:
        """The file with a unit's frames."""
        return self.root / self.unit_file_name(unit)

    def commit_name(self, unit: int) -> str:
        """Path of a unit's commit record, relative to the root."""
        return f"commits/{unit_name(unit)}.json"

    def commit(self, unit: int) -> Path:
        """The commit record of a unit."""
        return self.root / self.commit_name(unit)

    def committed_units(self) -> frozenset[int]:
        """Units with a commit record. Raises FrameStoreError if the folder cannot be read."""
        try:
            return committed_units(self.commits)
        except OSError as error:
            raise FrameStoreError(
                f"cannot read {self.commits}",
                expected="the folder of the store's commit records",
                found=error.strerror,
            ) from error
