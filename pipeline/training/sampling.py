"""Which clips an epoch contains, in which order, and every random choice about them.

Everything is a function of (seed, epoch, sample), not of a generator's state, so any batch can be
drawn again on its own. Therefore a run resumes exactly in the middle of an epoch, and the order is
the same for any number of workers and loader threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distinit.schemas.training import ClipConfig

__all__ = [
    "ClipChoices",
    "ClipSampler",
    "Purpose",
    "clip_frames",
    "clip_videos",
    "epoch_permutation",
    "random_clip_starts",
    "torch_seed",
    "uniforms",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PHILOX_WORDS = 4  # doubles per counter increment of Philox 4x64


class Purpose(IntEnum):
    """What a random number decides. Each purpose has a separate stream of numbers."""

    ORDER = 0
    REMAINDER = 1
    CLIP = 2
    TARGET = 3
    DROPOUT = 4


def _bits(seed: int, epoch: int, purpose: Purpose, counter: int = 0) -> np.random.Philox:
    key = np.array([seed % 2**64, epoch], np.uint64)
    return np.random.Philox(key=key, counter=np.array([counter, 0, 0, purpose], np.uint64))


def _generator(seed: int, epoch: int, purpose: Purpose, counter: int = 0) -> np.random.Generator:
    return np.random.Generator(_bits(seed, epoch, purpose, counter))


def uniforms(seed: int, epoch: int, purpose: Purpose, samples_N: Ints, width: int) -> Floats:
    """Uniform numbers [N, width] in [0, 1); row i depends only on sample ``samples_N[i]``."""
    blocks = -(-width // PHILOX_WORDS)
    padded = blocks * PHILOX_WORDS
    count = len(samples_N)
    if count and samples_N[-1] - samples_N[0] == count - 1 and (np.diff(samples_N) == 1).all():
        generator = _generator(seed, epoch, purpose, int(samples_N[0]) * blocks)
        return generator.random((count, padded))[:, :width]
    # Advancing one generator is cheaper than creating one per row.
    bits, position = _bits(seed, epoch, purpose), 0
    generator = np.random.Generator(bits)
    rows = np.empty((count, padded))
    for row, sample in zip(rows, samples_N.tolist(), strict=True):
        bits.advance(sample * blocks - position)
        generator.random(out=row)
        position = (sample + 1) * blocks
    return rows[:, :width]


def torch_seed(seed: int, step: int, shard: int) -> int:
    """Seed of torch's generator for one shard of one step (dropout, stochastic depth)."""
    generator = _generator(seed, step, Purpose.DROPOUT, shard)
    return int(generator.integers(0, 2**63))


def epoch_permutation(seed: int, epoch: int, samples: int) -> Ints:
    """The order in which an epoch visits samples 0 .. samples-1."""
    return _generator(seed, epoch, Purpose.ORDER).permutation(samples)


def clip_videos(seed: int, epoch: int, videos: int, samples_N: Ints, clips: int) -> Ints:
    """The video of each sample [N]: in an epoch of ``clips`` each video occurs equally often ± 1.

    Complete rounds visit every video once. The last, partial round visits a random subset, a
    different one in each epoch.
    """
    whole = clips // videos * videos
    video_N = samples_N % videos
    partial_N = samples_N >= whole
    if partial_N.any():
        video_N[partial_N] = _last_round(seed, epoch, videos)[video_N[partial_N]]
    return video_N


@lru_cache(maxsize=2)  # 8 bytes per video each; loader threads are at most one epoch ahead
def _last_round(seed: int, epoch: int, videos: int) -> Ints:
    return _generator(seed, epoch, Purpose.REMAINDER).permutation(videos)


def random_clip_starts(uniform_N: Floats, frame_counts_N: Ints, frames: int) -> Ints:
    """First frame of each clip [N]: uniform over all starts that fit; 0 for short videos."""
    starts_N = np.maximum(1, frame_counts_N - frames + 1)
    return np.floor(uniform_N * starts_N).astype(np.int64)


def clip_frames(start_N: Ints, frame_counts_N: Ints, frames: int) -> Ints:
    """Frame indices [N, frames] of clips of consecutive frames; short videos are repeated."""
    return (start_N[:, None] + np.arange(frames)) % frame_counts_N[:, None]


@dataclass(frozen=True, slots=True)
class ClipChoices:
    """Every random choice about N clips of T frames."""

    video_N: Ints
    frames_NT: Ints
    crop_N2: Floats
    """(vertical, horizontal) position of the crop in [0, 1); 0 is the top or left edge."""
    flip_N: NDArray[np.bool_]


Starts = Callable[[Ints, Floats, Ints, int], Ints]
"""(videos [N], uniform numbers [N], frame counts [N], clip length) -> first frames [N]."""


def _any_start(_video_N: Ints, uniform_N: Floats, frame_counts_N: Ints, frames: int) -> Ints:
    return random_clip_starts(uniform_N, frame_counts_N, frames)


class ClipSampler:
    """Draws the clips of each epoch from videos with known frame counts."""

    def __init__(
        self,
        frame_counts: Sequence[int] | Ints,
        clip: ClipConfig,
        clips: int | None,
        seed: int,
        starts: Starts = _any_start,
    ):
        """``clips``: clips per epoch; None takes one per video. ``starts`` picks first frames."""
        self._frame_counts_V = np.asarray(frame_counts, np.int64)
        self._clip = clip
        self._seed = seed
        self._starts = starts
        self.clips = len(self._frame_counts_V) if clips is None else clips

    def order(self, epoch: int) -> Ints:
        """Samples of the epoch, in the order they are trained on."""
        return epoch_permutation(self._seed, epoch, self.clips)

    def choices(self, epoch: int, samples_N: Ints) -> ClipChoices:
        """Video, frames, crop and flip of each sample."""
        video_N = clip_videos(self._seed, epoch, len(self._frame_counts_V), samples_N, self.clips)
        uniform = uniforms(self._seed, epoch, Purpose.CLIP, samples_N, 4)
        counts_N = self._frame_counts_V[video_N]
        start_N = self._starts(video_N, uniform[:, 0], counts_N, self._clip.frames)
        return ClipChoices(
            video_N=video_N,
            frames_NT=clip_frames(start_N, counts_N, self._clip.frames),
            crop_N2=uniform[:, 1:3],
            flip_N=uniform[:, 3] < self._clip.flip,
        )

    def target_uniforms(self, epoch: int, samples_N: Ints) -> Floats:
        """Uniform numbers [N, T] that choose the target frames; the same for every teacher."""
        return uniforms(self._seed, epoch, Purpose.TARGET, samples_N, self._clip.frames)
