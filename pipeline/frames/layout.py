"""Names of the files of a frame store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from distinit.schemas.errors import FrameStoreError

__all__ = ["ROWS_PER_BATCH", "StoreLayout"]

# Every record batch but the last has this many rows, so that a reader finds a row's batch by
# division. 512 JPEGs of 128x171 are some 4 MB: what a writer holds in memory.
ROWS_PER_BATCH = 512

_COMMIT = re.compile(r"unit-([0-9]{5,13})\.json")


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

    def unit_name(self, unit: int) -> str:
        """File name of a unit's frames, relative to the root."""
        return f"unit-{unit:05d}.arrow"

    def unit(self, unit: int) -> Path:
        """File of a unit's frames."""
        return self.root / self.unit_name(unit)

    def commit_name(self, unit: int) -> str:
        """Path of a unit's commit record, relative to the root."""
        return f"commits/unit-{unit:05d}.json"

    def commit(self, unit: int) -> Path:
        """Commit record of a unit."""
        return self.root / self.commit_name(unit)

    def committed_units(self) -> frozenset[int]:
        """Units with a commit record. Raises FrameStoreError where the folder cannot be read."""
        try:
            names = [path.name for path in self.commits.iterdir()]
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise FrameStoreError(
                f"cannot read {self.commits}",
                expected="the folder of the store's commit records",
                found=error.strerror,
            ) from error
        matches = (_COMMIT.fullmatch(name) for name in names)
        units = {int(match[1]): match.string for match in matches if match is not None}
        return frozenset(u for u, name in units.items() if name == self.commit(u).name)
