"""The mean of a teacher's stored outputs over each video, against a loop over its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.progress import RecordingProgress
from helpers.sources import FRAMES, digest_of, logits_of, video_id_of

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.frozen import teacher_features as module
from distinit.pipeline.frozen.teacher_features import teacher_features
from distinit.schemas.errors import CacheError

NAMES = ("c", "unknown", "a", "bad", "short")


@pytest.mark.parametrize(("cache", "every"), [("two", 1), ("sparse", 9), ("features", 1)])
def test_outputs_are_averaged_per_video_and_matched_by_digest(
    stored: Path, cache: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 5)
    progress = RecordingProgress()
    mean_NC, exists_N = teacher_features(
        TargetCache.open(stored / cache), "alpha", [digest_of(name) for name in NAMES], progress
    )
    assert exists_N.tolist() == [True, False, True, False, True]
    assert mean_NC.dtype == torch.float32
    assert mean_NC.shape == (5, 7)
    assert progress.advanced == 5
    for row, name in enumerate(NAMES):
        if not exists_N[row]:
            assert mean_NC[row].tolist() == [0.0] * 7
            continue
        frames = range(0, FRAMES[name], every)
        expected_C = np.mean([logits_of(video_id_of(name), "alpha", i) for i in frames], axis=0)
        if cache != "features":
            expected_C = expected_C - expected_C.mean()
        np.testing.assert_allclose(mean_NC[row].numpy(), expected_C, atol=1e-5)


def test_a_cache_of_other_videos_is_an_error(stored: Path) -> None:
    cache = TargetCache.open(stored / "one")
    with pytest.raises(CacheError, match="no target of teacher alpha for these videos"):
        teacher_features(cache, "alpha", ["0" * 64], RecordingProgress())
    with pytest.raises(CacheError, match='no teacher "beta"'):
        teacher_features(cache, "beta", [digest_of("a")], RecordingProgress())
