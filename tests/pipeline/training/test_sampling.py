"""Random choices are functions of (seed, epoch, sample)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.training.sampling import (
    ClipSampler,
    Purpose,
    clip_frames,
    clip_videos,
    epoch_permutation,
    random_clip_starts,
    torch_seed,
    uniforms,
)
from distinit.schemas.training import ClipConfig

UNIFORMS_7_3_2 = [0.641452890414212, 0.9202776252873417]
PERMUTATION_7_3 = [4, 0, 5, 3, 1, 2]


@given(
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 1000),
    first=st.integers(0, 10_000),
    count=st.integers(0, 20),
    width=st.integers(1, 33),
)
def test_numbers_of_a_sample_do_not_depend_on_the_other_samples(
    seed: int, epoch: int, first: int, count: int, width: int
) -> None:
    samples = np.arange(first, first + count)
    block = uniforms(seed, epoch, Purpose.CLIP, samples, width)
    backwards = uniforms(seed, epoch, Purpose.CLIP, samples[::-1], width)
    assert block.shape == (count, width)
    assert np.array_equal(block, backwards[::-1])
    assert ((block >= 0) & (block < 1)).all()


def test_seed_epoch_purpose_and_sample_all_matter() -> None:
    sample = np.array([5])
    rows = [
        uniforms(*key, sample + shift, 3).tobytes()
        for key, shift in [
            ((0, 0, Purpose.CLIP), 0),
            ((1, 0, Purpose.CLIP), 0),
            ((0, 1, Purpose.CLIP), 0),
            ((0, 0, Purpose.TARGET), 0),
            ((0, 0, Purpose.CLIP), 1),
        ]
    ]
    assert len(set(rows)) == 5


def test_values_stay_the_same_between_versions() -> None:
    """A changed value would silently change every stored run."""
    assert uniforms(7, 3, Purpose.CLIP, np.array([2]), 2)[0].tolist() == pytest.approx(
        UNIFORMS_7_3_2, abs=0
    )
    assert epoch_permutation(7, 3, 6).tolist() == PERMUTATION_7_3


def test_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    orders = [epoch_permutation(0, epoch, 50) for epoch in (0, 1, 0)]
    assert sorted(orders[0].tolist()) == list(range(50))
    assert np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])


@given(videos=st.integers(1, 40), clips=st.integers(1, 200), epoch=st.integers(0, 5))
def test_every_video_occurs_equally_often_give_or_take_one(
    videos: int, clips: int, epoch: int
) -> None:
    video_N = clip_videos(3, epoch, videos, np.arange(clips), clips)
    counts = np.bincount(video_N, minlength=videos)
    assert len(counts) == videos
    assert counts.max() - counts.min() <= 1


def test_the_last_partial_round_differs_between_epochs() -> None:
    chosen = {tuple(sorted(clip_videos(0, e, 20, np.arange(5), 5).tolist())) for e in range(10)}
    assert len(chosen) > 5


@given(
    count=st.integers(1, 100),
    frames=st.integers(1, 40),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_clips_stay_inside_the_video_and_short_videos_are_repeated(
    count: int, frames: int, uniform: float
) -> None:
    counts = np.array([count])
    start = random_clip_starts(np.array([uniform]), counts, frames)
    indices = clip_frames(start, counts, frames)[0]
    assert 0 <= start[0] <= max(0, count - frames)
    if count >= frames:
        assert indices.tolist() == list(range(start[0], start[0] + frames))
    else:
        assert indices.tolist() == [i % count for i in range(frames)]


def test_starts_reach_both_ends() -> None:
    starts = random_clip_starts(np.array([0.0, 1 - 1e-9]), np.array([10, 10]), 8)
    assert starts.tolist() == [0, 2]


def test_choices_of_a_batch_equal_those_of_the_epoch() -> None:
    sampler = ClipSampler([10, 3, 30], ClipConfig(frames=4), 100, seed=1)
    whole = sampler.choices(2, np.arange(100))
    part = sampler.choices(2, np.array([70, 4]))
    assert np.array_equal(part.frames_NT, whole.frames_NT[[70, 4]])
    assert np.array_equal(part.crop_N2, whole.crop_N2[[70, 4]])
    assert np.array_equal(part.flip_N, whole.flip_N[[70, 4]])
    assert np.array_equal(part.video_N, whole.video_N[[70, 4]])
    assert np.array_equal(
        sampler.target_uniforms(2, np.array([4])), sampler.target_uniforms(2, np.arange(100))[[4]]
    )
    assert sampler.target_uniforms(2, np.array([4])).shape == (1, 4)


@pytest.mark.parametrize(("flip", "low", "high"), [(0.0, 0, 0), (1.0, 1, 1), (0.5, 0.45, 0.55)])
def test_flips_have_the_configured_probability(flip: float, low: float, high: float) -> None:
    sampler = ClipSampler([10], ClipConfig(flip=flip), 2000, seed=1)
    assert low <= sampler.choices(0, np.arange(2000)).flip_N.mean() <= high


def test_one_clip_per_video_without_clips_per_epoch() -> None:
    sampler = ClipSampler([10, 11, 12], ClipConfig(), None, seed=0)
    order = sampler.order(0)
    assert sorted(sampler.choices(0, order).video_N.tolist()) == [0, 1, 2]


def test_dropout_seeds_differ_by_step_and_shard() -> None:
    seeds = {torch_seed(0, step, shard) for step in range(5) for shard in range(5)}
    assert len(seeds) == 25
