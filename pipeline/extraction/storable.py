"""Checks that a teacher's outputs can be stored in the encoding of its targets."""

from __future__ import annotations

import numpy as np

from distinit.pipeline.cache.encoding import first_unstorable
from distinit.schemas.errors import TargetError
from distinit.schemas.teacher import TeacherRecord

__all__ = ["require_storable"]


def require_storable(
    targets_NC: np.ndarray, teacher: TeacherRecord, frame_index_N: np.ndarray
) -> None:
    """Raise TargetError, naming the first such frame, if the encoding cannot store a target.

    The text up to the colon is the same for all frames and videos: reports group by it.
    """
    unstorable = first_unstorable(targets_NC, teacher.encoding)
    if unstorable is None:
        return
    row, what = unstorable
    raise TargetError(
        f"teacher {teacher.id} gave {what}: frame {frame_index_N[row]}; {_remedy(teacher, what)}"
    )


def _remedy(teacher: TeacherRecord, what: str) -> str:
    if what not in ("NaN", "infinity"):
        return "store this teacher with encoding int8" if "float16" in what else "scale its output"
    if teacher.precision != "fp32":
        return "use precision fp32"
    return "check its weights and its code"
