"""Parts of a copy that show something else than the video."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.matching.other_frames import other_frames

FRAMES = 100


def moving(seed: int, frames: int = FRAMES) -> np.ndarray:
    """Hashes of a picture that moves steadily: 2 bits change from frame to frame."""
    rng = np.random.default_rng(seed)
    hash_N = [np.uint64(rng.integers(0, 2**64, dtype=np.uint64))]
    order = np.concatenate([rng.permutation(64) for _ in range(frames)])
    for first, second in order[: 2 * (frames - 1)].reshape(-1, 2):
        mask = (np.uint64(1) << np.uint64(first)) | (np.uint64(1) << np.uint64(second))
        hash_N.append(hash_N[-1] ^ mask)
    return np.array(hash_N, np.uint64)


def found(hash_N: np.ndarray, copy_F: np.ndarray, stride: int = 1) -> tuple[int, int] | None:
    index_K = np.arange(0, len(hash_N), stride)
    return other_frames(index_K, hash_N[index_K], copy_F, 4)


def test_a_part_of_another_video_is_found() -> None:
    hash_N, copy_F = moving(1), moving(1)
    assert found(hash_N, copy_F) is None
    copy_F[45:54] = moving(2)[:9]
    assert found(hash_N, copy_F) == (45, 53)
    assert found(hash_N, copy_F, stride=4) is None  # of these rows only two are in the part
    copy_F[45:60] = moving(2)[:15]
    assert found(hash_N, copy_F, stride=4) == (48, 56)


def test_a_reversed_part_is_found() -> None:
    hash_N, copy_F = moving(1), moving(1)
    copy_F[40:56] = copy_F[40:56][::-1]
    assert found(hash_N, copy_F) == (40, 46)  # its other half is as long


@pytest.mark.parametrize("frames", [1, 2])
def test_single_frames_may_differ(frames: int) -> None:
    hash_N, copy_F = moving(1), moving(1)
    copy_F[45 : 45 + frames] = moving(2)[:frames]
    assert found(hash_N, copy_F) is None


def test_dark_pictures_of_which_the_hashes_are_noise_may_differ() -> None:
    hash_N, copy_F = moving(1), moving(1)
    hash_N[:8] = np.random.default_rng(3).integers(0, 2**64, 8, np.uint64)
    copy_F[:8] = 0
    assert found(hash_N, copy_F) is None


def test_a_copy_that_is_shorter_is_compared_as_far_as_it_goes() -> None:
    assert found(moving(1), moving(1)[:50]) is None
    assert found(moving(1), moving(1)[:2]) is None
    assert found(moving(1), moving(2)[:3]) == (0, 2)
