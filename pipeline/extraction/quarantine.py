"""Retries the task of a dead worker, without a video that keeps killing workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from distinit.pipeline.compute.executor import OnDeath
from distinit.pipeline.extraction.task import ExtractionTask, Note
from distinit.schemas.errors import ComputeError

__all__ = ["requeue"]

_STARTING = ""  # stands for a death before the first video
_SEVERAL = "*"  # stands for a death while several videos were in progress


def requeue(max_attempts: int) -> OnDeath[ExtractionTask]:
    """A policy that retries tasks; a video at which workers died ``max_attempts`` times fails.

    Only deaths of workers with a single video in progress count: so the first death of a task, at
    which several videos were in progress, is the fault of none, and after it they run one by one.
    """

    def on_death(task: ExtractionTask, last_note: Note | None, reason: str) -> ExtractionTask:
        culprit = _STARTING if last_note is None else last_note.video_id
        if last_note is not None and not last_note.alone:
            culprit = _SEVERAL
        deaths = (*task.deaths, culprit)
        task = replace(task, deaths=deaths)
        if culprit == _SEVERAL or Counter(deaths)[culprit] < max_attempts:
            return task
        if culprit == _STARTING:
            raise ComputeError(
                f"workers died before their first video ({max_attempts} times)",
                found=reason,
                remedy="check the memory and GPUs of the workers, or try --workers 0",
            )
        verdict = f"quarantined: its worker died {max_attempts} times ({reason})"
        return replace(task, quarantined={**task.quarantined, culprit: verdict})

    return on_death
