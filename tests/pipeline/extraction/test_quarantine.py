"""Which video is to blame when workers die."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.plan import UnitGroup
from distinit.pipeline.extraction.quarantine import requeue
from distinit.pipeline.extraction.task import ExtractionTask, Note
from distinit.schemas.errors import ComputeError

TASK = ExtractionTask(GroupSpec(Path("cache"), 64, UnitGroup(0, 1, ()), (), "fence"))


def test_a_video_is_quarantined_after_deaths_at_which_it_was_alone() -> None:
    on_death = requeue(2)
    task = on_death(TASK, Note("innocent"), "killed")
    assert (task.one_at_a_time, task.quarantined) == (True, {})
    task = on_death(task, Note("culprit", alone=True), "killed")
    assert task.quarantined == {}
    task = on_death(task, Note("culprit", alone=True), "killed")
    assert task.quarantined == {"culprit": "quarantined: its worker died 2 times (killed)"}


def test_a_death_among_several_videos_blames_none_even_where_one_attempt_is_allowed() -> None:
    task = requeue(1)(TASK, Note("innocent"), "killed")
    assert (task.deaths, task.quarantined) == (("*",), {})


def test_deaths_before_the_first_video_end_the_run() -> None:
    on_death = requeue(2)
    task = on_death(TASK, None, "no memory")
    with pytest.raises(ComputeError, match="workers died before their first video"):
        on_death(task, None, "no memory")
