"""How many frames reach the teachers of a worker at a time."""

from __future__ import annotations

import pytest

from distinit.pipeline.extraction.worker_teachers import WorkerTeachers
from distinit.pipeline.teachers.null import NullTeacher
from distinit.schemas.teacher import TeacherRequest


class SizedTeacher(NullTeacher):
    """The null teacher with another batch size; ``on_gpu``: its frames do not stay on the host."""

    def __init__(self, batch_size: int, *, on_gpu: bool) -> None:
        super().__init__(TeacherRequest(name="null"))
        self._size, self._on_gpu = batch_size, on_gpu

    @property
    def batch_size(self) -> int:
        return self._size

    @property
    def holds_frames(self) -> bool:
        return not self._on_gpu


@pytest.mark.parametrize(
    ("sizes_on_gpu", "expected"),
    [
        ([(256, False)], 32),
        ([(16, False)], 16),
        ([(64, True)], 64),
        ([(1024, True)], 128),
        ([(1024, True), (256, False)], 32),
        ([(64, True), (96, True)], 96),
    ],
)
def test_blocks_are_larger_where_all_teachers_are_on_gpus(
    sizes_on_gpu: list[tuple[int, bool]], expected: int
) -> None:
    teachers = {
        f"teacher{n}": SizedTeacher(size, on_gpu=on_gpu)
        for n, (size, on_gpu) in enumerate(sizes_on_gpu)
    }
    assert WorkerTeachers(teachers).block_frames == expected
