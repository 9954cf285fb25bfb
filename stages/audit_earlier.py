"""Removes the report of an earlier audit before the next one writes to the same folder."""

from __future__ import annotations

import re
from pathlib import Path

from distinit.pipeline.records import read_record
from distinit.pipeline.storage import fsync_dir, storage_errors
from distinit.schemas.audit import AuditResult
from distinit.schemas.errors import StorageError

__all__ = ["remove_earlier_report"]

_FIGURE = re.compile(
    r"([^/]+-(entropy|kept|classes|reliability|joint|norms|spectrum)|drift-[0-9]+-[^/]+)\.(png|pdf)"
    r"|[^/]+-(most-confident|least-confident|outliers)\.png"
)
"""Names that an audit gives to its figures. Others are not removed, whatever audit.json lists."""


def remove_earlier_report(out: Path) -> None:
    """Remove the page, the figures and the numbers of an earlier audit, which will change.

    The figures are those that its audit.json lists, and all other files stay. That file is removed
    last, so that a process that is killed here leaves the list to the next one.

    Raises StorageError.
    """
    figures = _figures_in(out / "audit.json")
    with storage_errors(out):
        for name in ("report.html", *figures, "audit.json"):
            (out / name).unlink(missing_ok=True)
        if out.is_dir():
            fsync_dir(out)


def _figures_in(record: Path) -> list[str]:
    """Figures that a report names; none if it is missing, unreadable or of another version."""
    try:
        found = read_record(record, AuditResult, error=StorageError, remedy="")
    except StorageError:
        return []
    return [name for name in found.pictures if _FIGURE.fullmatch(name)]
