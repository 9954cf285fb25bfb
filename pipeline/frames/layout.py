"""Names of the files of a frame store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["StoreLayout"]


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

    def unit_name(self, unit: int) -> str:
        """File name of a unit's frames, relative to the root."""
        return f"unit-{unit:05d}.arrow"

    def unit(self, unit: int) -> Path:
        """File of a unit's frames."""
        return self.root / self.unit_name(unit)

    def commit(self, unit: int) -> Path:
        """Commit record of a unit."""
        return self.commits / f"unit-{unit:05d}.json"

    def committed_units(self) -> frozenset[int]:
        """Units with a commit record."""
        numbers = (path.stem.removeprefix("unit-") for path in self.commits.glob("unit-*.json"))
        return frozenset(int(number) for number in numbers if number.isdigit())
