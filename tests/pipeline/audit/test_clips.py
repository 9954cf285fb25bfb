"""Clips are counted as distillation draws them: thresholds agree with keep_fraction."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from helpers import caches

from distinit.pipeline.audit.bins import EntropyBins
from distinit.pipeline.audit.clips import clip_weights, drawn_clips
from distinit.pipeline.cache.quantile import weighted_quantile
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.targets import TargetReader
from distinit.schemas.audit import AuditConfig
from distinit.schemas.distill import TargetConfig


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> TargetCache:
    root = tmp_path_factory.mktemp("clips") / "cache"
    caches.run_all(root, caches.CORPUS, caches.TEACHERS)
    return TargetCache.open(root)


@pytest.mark.parametrize("pick", ["random", "center"])
def test_the_share_at_a_threshold_gives_the_same_clips_as_keep_fraction(
    pick: Literal["random", "center"], cache: TargetCache
) -> None:
    config = AuditConfig(cache="c", out="o", clip_frames=4, pick=pick)
    bins = EntropyBins.of(caches.CLASSES)
    weight_B = clip_weights(cache, "alpha", config, bins)
    assert weight_B.sum() == pytest.approx(5)  # one per video that was decoded
    reader = TargetReader(TargetConfig(pick=pick), cache.targets("alpha"))
    drawn = drawn_clips(cache, reader, 4)
    blocks = list(drawn.entropies(reader)())
    entropy_M, weight_M = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    share_B = np.cumsum(weight_B) / weight_B.sum()
    for place in np.flatnonzero(weight_B).tolist()[::7]:
        edge_nats = (place + 1) * bins.step_nats
        kept = weight_M[entropy_M <= np.float32(edge_nats)].sum()
        assert share_B[place] == pytest.approx(kept / weight_M.sum(), abs=1e-12)
        exact_nats = weighted_quantile(drawn.entropies(reader), float(min(share_B[place], 1)))
        assert exact_nats <= edge_nats
        assert weight_M[entropy_M <= np.float32(exact_nats)].sum() == pytest.approx(kept)


def test_targets_that_are_averages_are_sampled(cache: TargetCache) -> None:
    config = AuditConfig(cache="c", out="o", clip_frames=4, pick="all")
    weight_B = clip_weights(cache, "beta", config, EntropyBins.of(5))
    assert weight_B.sum() == 65_536
