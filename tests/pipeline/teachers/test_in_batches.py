"""Batches on a GPU, run on the CPU: filled from several videos, halved if memory runs out."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from helpers.teachers import batch_sizes
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.batch_device import HostDevice
from distinit.pipeline.teachers.in_batches import InBatches
from distinit.schemas.errors import TeacherError

CPU = HostDevice(torch.device("cpu"))


def in_batches(teacher: NetworkTeacher, size: int) -> InBatches:
    """The forward pass of GPUs, run on the CPU."""
    return InBatches(teacher._prepare, teacher._network, size, device=CPU, name=teacher.id)


def test_out_of_memory_halves_the_batch_and_is_remembered(
    hungry: NetworkTeacher, frames_NHWC: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    expected_NC = hungry.forward(frames_NHWC)
    batches = in_batches(hungry, 16)
    batch_sizes(hungry).clear()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(batches.submit(frames_NHWC)(), expected_NC, atol=1e-6)
    assert batch_sizes(hungry) == [16, 8, 4, 4, 4, 4, 4, 4]
    assert batches.batch_size == 4
    assert [record.getMessage() for record in caplog.records] == [
        "teacher hungry: out of memory with 16 frames per batch; continuing with 8",
        "teacher hungry: out of memory with 8 frames per batch; continuing with 4",
    ]
    batch_sizes(hungry).clear()
    batches.submit(frames_NHWC[:8])()
    assert batch_sizes(hungry) == [4, 4]  # a size that did not fit is not tried again


def test_a_short_batch_that_does_not_fit_is_halved_too(
    hungry: NetworkTeacher, frames_NHWC: np.ndarray
) -> None:
    batches = in_batches(hungry, 64)
    assert batches.submit(frames_NHWC[:6])().shape == (6, 3)
    assert batches.batch_size == 4


def test_a_device_without_memory_for_one_frame_is_an_error(
    hungry: NetworkTeacher, frames_NHWC: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(hungry._module), "most", 0)
    with pytest.raises(TeacherError, match="does not fit into the memory of its device"):
        in_batches(hungry, 4).submit(frames_NHWC)


def test_a_teacher_computes_all_logits_after_running_out_of_memory(
    hungry: NetworkTeacher, frames_NHWC: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    hungry._forward = in_batches(hungry, 32)
    assert hungry.batch_size == 32
    with caplog.at_level(logging.ERROR):
        first, second = hungry.submit(frames_NHWC), hungry.submit(frames_NHWC[::-1].copy())
    np.testing.assert_array_equal(first(), second()[::-1])
    assert hungry.batch_size == 4


def means(size: int, seen: list[list[int]]) -> InBatches:
    """A network whose output is the mean of each frame; ``seen``: the inputs of each batch."""

    def prepare(frames_NHWC: torch.Tensor) -> torch.Tensor:
        return frames_NHWC.float().mean(dim=(1, 2))  # frames of any size become 3 numbers

    def network(input_NC: torch.Tensor) -> torch.Tensor:
        seen.append(input_NC[:, 0].int().tolist())
        return input_NC

    return InBatches(prepare, network, size, device=CPU, name="means")


def grey(*levels: int, side: int = 2) -> np.ndarray:
    """Frames of one grey level each."""
    return np.stack([np.full((side, side, 3), level, np.uint8) for level in levels])


def test_frames_of_several_videos_and_sizes_share_a_batch() -> None:
    seen: list[list[int]] = []
    batches = means(4, seen)
    first = batches.submit(grey(1, 2, 3))
    assert seen == []  # the batch is not full
    second = batches.submit(grey(4, 5, 6, side=7))
    assert seen == [[1, 2, 3, 4]]
    np.testing.assert_array_equal(first()[:, 0], [1, 2, 3])
    assert len(seen) == 1  # these logits needed no other batch
    np.testing.assert_array_equal(second()[:, 0], [4, 5, 6])
    assert seen == [[1, 2, 3, 4], [5, 6, 0, 0]]  # padded to the size of all batches


def test_asking_for_logits_starts_all_batches_before_them() -> None:
    seen: list[list[int]] = []
    batches = means(2, seen)
    batches.submit(grey(1))
    last = batches.submit(grey(2, 3))
    np.testing.assert_array_equal(last()[:, 0], [2, 3])
    assert seen == [[1, 2], [3, 0]]


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=8),
)
def test_every_frame_gets_its_own_logits_in_the_order_of_submission(
    size: int, submissions: list[tuple[int, bool]]
) -> None:
    """``submissions``: the number of frames, and whether their logits are awaited at once."""
    seen: list[list[int]] = []
    batches = means(size, seen)
    level, waiting = 1, []
    for count, at_once in submissions:
        levels = list(range(level, level + count))
        level += count
        waiting.append((levels, batches.submit(grey(*levels))))
        if at_once:
            for expected, logits in waiting:
                assert logits()[:, 0].tolist() == expected
            waiting.clear()
    for expected, logits in waiting:
        assert logits()[:, 0].tolist() == expected
    assert all(len(batch) == size for batch in seen)
    assert [one for batch in seen for one in batch if one] == list(range(1, level))
