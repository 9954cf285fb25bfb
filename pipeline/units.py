"""Names of units in target caches and frame stores: ``unit-00042``."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["committed_units", "unit_name"]

_COMMIT_NAME = re.compile(r"unit-([0-9]{5,13})\.json")


def unit_name(unit: int) -> str:
    """Name of unit number ``unit``: ``unit-00042``."""
    return f"unit-{unit:05d}"


def committed_units(commits: Path) -> frozenset[int]:
    """Units that have a record in the folder ``commits``; none if the folder does not exist.

    Raises OSError if the folder cannot be read.
    """
    try:
        names = [path.name for path in commits.iterdir()]
    except FileNotFoundError:
        return frozenset()
    matches = (_COMMIT_NAME.fullmatch(name) for name in names)
    units = {int(match[1]): match.string for match in matches if match is not None}
    return frozenset(unit for unit, name in units.items() if name == f"{unit_name(unit)}.json")
