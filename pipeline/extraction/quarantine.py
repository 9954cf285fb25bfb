"""What becomes of a task whose worker died: try again, without a video that kills workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from distinit.pipeline.compute.executor import OnDeath
from distinit.pipeline.extraction.worker import ExtractionTask, Note
from distinit.schemas.errors import ComputeError

__all__ = ["requeue"]

_STARTING = ""  # stands for a death before the first video


def requeue(max_attempts: int) -> OnDeath[ExtractionTask]:
    """Requeue a task; a video under way at ``max_attempts`` deaths is recorded as failed."""

    def on_death(task: ExtractionTask, last_note: Note | None, reason: str) -> ExtractionTask:
        culprit = last_note.video_id if last_note is not None else _STARTING
        deaths = (*task.deaths, culprit)
        task = replace(task, deaths=deaths)
        if Counter(deaths)[culprit] < max_attempts:
            return task
        if culprit == _STARTING:
            raise ComputeError(
                f"workers die before they begin ({max_attempts} times)",
                found=reason,
                remedy="look at the memory and GPUs of the workers, or try --workers 0",
            )
        verdict = f"quarantined: its worker died {max_attempts} times ({reason})"
        return replace(task, quarantined={**task.quarantined, culprit: verdict})

    return on_death
