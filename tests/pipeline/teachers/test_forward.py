"""Batch sizes: halved if memory runs out, found by measuring; logits computed in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.teachers import batch_sizes
from torch import nn

from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.forward import FrameByFrame, find_batch_size, seconds_of
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.teacher import TeacherRequest

CPU = torch.device("cpu")


def made_device(
    seconds_per_batch: float, seconds_per_frame: float, max_frames: int
) -> Callable[[int], float]:
    """The time per batch on a made-up device with memory for ``max_frames``."""

    def seconds_for(size: int) -> float:
        if size > max_frames:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return seconds_per_batch + size * seconds_per_frame

    return seconds_for


@pytest.mark.parametrize(
    ("seconds_per_batch", "seconds_per_frame", "max_frames", "best"),
    [
        (0.0, 1.0, 10_000, 8),  # one frame keeps the device busy: larger batches are no faster
        (64.0, 1.0, 10_000, 512),  # 512 gives 1.125 times the rate of 256, 1,024 only 1.06
        (64.0, 1.0, 100, 64),  # the largest that fits into memory
        (1.0, 0.0, 10_000, 1024),  # the largest that is tried
        (1.0, 1.0, 4, 8),  # even the first size does not fit: it is halved later
    ],
)
def test_the_batch_size_grows_until_it_is_no_longer_faster(
    seconds_per_batch: float, seconds_per_frame: float, max_frames: int, best: int
) -> None:
    device = made_device(seconds_per_batch, seconds_per_frame, max_frames)
    assert find_batch_size(device) == best


def test_the_search_for_a_batch_size_runs_the_network(hungry: NetworkTeacher) -> None:
    batch_sizes(hungry).clear()
    assert find_batch_size(hungry._seconds_for) == 8
    assert batch_sizes(hungry) == [8]  # out of memory in the first batch
    assert seconds_of(lambda: time.sleep(0.01), CPU) >= 0.01


def test_on_a_cpu_the_batch_size_is_fixed_and_does_not_change_any_bit(
    hungry: NetworkTeacher, frames_NHWC: np.ndarray
) -> None:
    assert hungry.batch_size == 32
    request = TeacherRequest(name="plugin:hungry_plugin:hungry")
    five = load_teacher(request, batch_size=5, compiled=True)  # compiled: for GPUs only
    assert five.batch_size == 5
    np.testing.assert_array_equal(five.forward(frames_NHWC), hungry.forward(frames_NHWC))


def test_logits_are_computed_in_the_background_by_single_threads() -> None:
    together = threading.Barrier(3, timeout=60)  # two frames at once, and this thread
    threads: list[int] = []

    def network(frame_1HWC: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        together.wait()
        return frame_1HWC.float().mean(dim=(1, 2))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        frames = np.arange(2, dtype=np.uint8).repeat(12).reshape(2, 2, 2, 3)
        pending = FrameByFrame(network, 32).submit(frames)
        together.wait()
        np.testing.assert_array_equal(pending(), [[0, 0, 0], [1, 1, 1]])
        assert threads == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Attention(nn.Module):
    """Matrix products large enough for several threads; torch uses another library for them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3 * 16, 512)
        self.attention = nn.MultiheadAttention(512, 8, batch_first=True)
        self.head = nn.Linear(512, 3)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        tokens_NTC = self.mix(x_NCHW.reshape(len(x_NCHW), 196, -1)[:, :, :48])
        mixed_NTC = self.attention(tokens_NTC, tokens_NTC, tokens_NTC)[0]
        logits_NC: torch.Tensor = self.head(mixed_NTC.mean(1))
        return logits_NC


def test_matrix_products_have_the_same_bits_for_any_number_of_threads() -> None:
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        network = Attention().eval()
        frames = np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)

        def run(frame_NHWC: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return network(frame_NHWC.permute(0, 3, 1, 2) / 255)

        before = torch.get_num_threads()
        logits = []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                logits.append(FrameByFrame(run, 32).submit(frames)())
        finally:
            torch.set_num_threads(before)
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
