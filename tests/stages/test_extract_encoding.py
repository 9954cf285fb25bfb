"""An extraction reports the loss of the chosen encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.videos import make_video

from distinit.pipeline.cache.confidence import fidelity_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract


def test_the_loss_of_topk_is_reported(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=20)
    teachers = [{"name": "null", "id": e, "encoding": e} for e in ("float16", "topk-1")]
    teachers[1]["encoding"] = "topk:1"
    values = {"videos": str(tmp_path / "videos"), "cache": str(tmp_path / "cache")}
    result = extract(ExtractConfig.model_validate({**values, "teachers": teachers}))

    cache = TargetCache.open(tmp_path / "cache")
    rows_N = np.arange(20)
    near_NC = cache.targets("float16").logits(rows_N)
    kl_N = fidelity_of(near_NC, cache.targets("topk-1").logits(rows_N)).kl_nats
    loss = result.encoding_losses["topk-1"]
    assert loss == cache.teachers["topk-1"].fidelity
    assert np.allclose((loss.mean_kl_nats, loss.max_kl_nats), (kl_N.mean(), kl_N.max()), rtol=0.02)
    assert loss.mean_kl_nats > 1e-3 > result.encoding_losses["float16"].max_kl_nats
    assert loss.filter_flips == 0
    changed = f"changes the targets by {loss.mean_kl_nats:.2g} nats on average"
    assert f"topk-1: storing as topk:1 {changed}" in result.summary()
    assert "same decision of an entropy filter for 100 %" in result.summary()
