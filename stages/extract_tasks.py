"""The unit groups that an extraction still has to fill."""

from __future__ import annotations

from collections.abc import Sequence

from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.extraction.task import ExtractionTask
from distinit.pipeline.progress import Progress
from distinit.schemas.wording import counted, one_line

__all__ = ["pending_tasks", "report_removed"]

_SHOWN = 20


def pending_tasks(writer: CacheWriter, *, replan: bool) -> list[ExtractionTask]:
    """All pending tasks; after the last of them, those of videos that must be planned again.

    An earlier run may have ended before it planned them again. ``replan``: whether to do so.
    """
    groups = writer.pending_groups()
    if replan and not groups and writer.replan_spilled():
        groups = writer.pending_groups()
    return [ExtractionTask(spec) for spec in groups]


def report_removed(tasks: Sequence[ExtractionTask], progress: Progress) -> None:
    """Report videos that were removed from the corpus and get no rows in the pending units."""
    paths = sorted({task.path_of(video_id) for task in tasks for video_id in task.spec.gone})
    if paths:
        more = ", ..." if len(paths) > _SHOWN else ""
        progress.message(
            f"{counted(len(paths), 'removed video')} will get no rows in the pending units: "
            f"{', '.join(map(one_line, paths[:_SHOWN]))}{more}"
        )
