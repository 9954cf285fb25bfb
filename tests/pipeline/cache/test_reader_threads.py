"""One TeacherTargets, many threads: no shard is closed while another thread reads it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import caches

from distinit.pipeline.cache import TargetCache, teacher_targets


def test_threads_share_one_reader(
    cache_root: Path,
    corpus: Any,
    teachers: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Room for one open shard: every read of another unit closes one.
    monkeypatch.setattr(teacher_targets, "files_at_once", lambda: 1)
    cache = TargetCache.open(cache_root)
    targets = cache.targets(teachers[0].id)
    video_id = corpus.id_of("c")  # over more than two units
    rows_N = cache.index.rows_of(video_id, np.arange(150))
    said_NC = caches.logits_of(video_id, teachers[0], np.arange(150)).astype(np.float16)

    def read(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(150)[:20]
        return np.array_equal(targets.logits(rows_N[order]), said_NC[order].astype(np.float32))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(400)))
    assert found == [True] * 400
