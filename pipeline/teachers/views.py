"""The views (sizes and crops) in which the teachers of a run need each frame."""

from __future__ import annotations

from collections.abc import Iterable

from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.video.views import View

__all__ = ["teacher_views"]


def teacher_views(teachers: Iterable[Teacher]) -> tuple[dict[str, View], dict[str, str]]:
    """The distinct views of ``teachers`` by name, and the name of each teacher's view by id.

    Teachers with equal views share one, so that ffmpeg delivers its frames once.
    """
    view_of_id = {teacher.id: teacher.view for teacher in teachers}
    name_of = {view: f"view{i}" for i, view in enumerate(dict.fromkeys(view_of_id.values()))}
    views = {name: view for view, name in name_of.items()}
    return views, {teacher_id: name_of[view] for teacher_id, view in view_of_id.items()}
