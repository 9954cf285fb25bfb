"""The cache that a training expects, to be compared with the one that it finds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distinit.schemas.base import Record, Sha256, differences, flatten
from distinit.schemas.teacher import TeacherRecord, identity_differences
from distinit.schemas.video import SamplingConfig

__all__ = ["ExpectedCache"]

_OF_TEACHER = {"encoding", "precision"}


class ExpectedCache(Record):
    """``cache.json`` of a distillation. `distinit cache info --json` has these keys, and more."""

    format_version: int = Field(description="version of the format on disk")
    content_digest: Sha256 | Literal[""] = Field(description="empty if it was not complete")
    corpus_digest: Sha256 = Field(description="sha256 over the digests of the owner's videos")
    videos: int = Field(ge=0, description="videos in the owner's corpus")
    frames: int = Field(ge=0, description="decoded frames of the videos in the corpus")
    rows: int = Field(ge=0, description="rows in use")
    units: int = Field(ge=0, description="planned units")
    capacity: int = Field(ge=0, description="rows per unit")
    sampling: SamplingConfig = Field(description="which frames became rows")
    teachers: dict[str, TeacherRecord] = Field(description="id -> its record in teacher.json")

    def differences(self, now: ExpectedCache, teacher_ids: tuple[str, ...]) -> list[str]:
        """``field: A there, B now`` for every field in which another cache differs.

        Only the teachers of ``teacher_ids`` are compared: others may have been added since. The
        content digest covers all teachers, so it is compared if the caches have the same ones.
        """
        left_out = {"teachers"}
        if self.teachers.keys() != now.teachers.keys():
            left_out.add("content_digest")
        fields = (flatten(x.model_dump(mode="json", exclude=left_out)) for x in (self, now))
        lines = differences(*fields)
        for name in teacher_ids:
            lines += [f"teacher {name}: {line}" for line in self._of_teacher(now, name)]
        if len(lines) == 1 and lines[0].startswith("content_digest: "):
            lines[0] += " (same teachers and videos: other values, or the rows in another order)"
        return lines

    def _of_teacher(self, now: ExpectedCache, name: str) -> list[str]:
        there, here = self.teachers.get(name), now.teachers.get(name)
        if there is None or here is None:
            found = ("absent" if record is None else "present" for record in (there, here))
            return ["{} there, {} now".format(*found)]
        lines = identity_differences(there.identity, here.identity)
        return lines + differences(*(r.model_dump(include=_OF_TEACHER) for r in (there, here)))
