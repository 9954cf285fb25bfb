"""Looks into the network of a test's teacher."""

from __future__ import annotations

from typing import cast

from distinit.pipeline.teachers.base import NetworkTeacher


def batch_sizes(teacher: NetworkTeacher) -> list[int]:
    """The list to which the ``hungry`` network adds the size of each batch; it may be cleared."""
    return cast("list[int]", teacher._module.seen)
