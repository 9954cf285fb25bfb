"""The thresholds and quartiles of the audit are exact."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import caches

from distinit.pipeline.audit.quantiles import KEEP_FRACTIONS, read_quantiles
from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.audit import AuditConfig, ConfidenceAudit
from distinit.stages.audit import audit

EARLIER_BINS = 65_536
"""An approximate quantile was the upper edge of one of this many bins of entropy."""


@pytest.fixture
def cache(tmp_path: Path) -> TargetCache:
    caches.run_all(tmp_path / "cache", caches.CORPUS, caches.TEACHERS)
    return TargetCache.open(tmp_path / "cache")


def audited(cache: TargetCache, out: Path) -> dict[str, ConfidenceAudit]:
    result = audit(AuditConfig(cache=str(cache.layout.root), out=str(out)))
    found = {teacher.record.id: teacher.confidence for teacher in result.teachers}
    return {name: confidence for name, confidence in found.items() if confidence is not None}


def quantile_of_all_rows(cache: TargetCache, teacher_id: str, fraction: float) -> float:
    entropy_nats = cache.targets(teacher_id).entropy_nats
    return float(np.nanquantile(entropy_nats.astype(np.float64), fraction))


def without(root: Path, name: str) -> TargetCache:
    """The finished cache in ``root`` after the corpus has lost the video ``name``."""
    lost = caches.CORPUS.id_of(name)
    with caches.open_writer(root, caches.CORPUS, caches.TEACHERS) as writer:
        latest = writer.plan.latest
        latest[lost] = replace(latest[lost], in_corpus=False)
        writer.set_corpus(latest, {lost})
        writer.finalise()
    return TargetCache.open(root)


def test_the_audit_states_exact_quantiles(cache: TargetCache, tmp_path: Path) -> None:
    for teacher_id, confidence in audited(cache, tmp_path / "out").items():
        stated = {row.keep_fraction: row.max_entropy_nats for row in confidence.thresholds}
        assert stated == {
            fraction: quantile_of_all_rows(cache, teacher_id, fraction)
            for fraction in KEEP_FRACTIONS
        }
        bin_nats = math.log(cache.teachers[teacher_id].identity.classes) / EARLIER_BINS
        edges_nats = {bin_nats * round(threshold / bin_nats) for threshold in stated.values()}
        assert edges_nats.isdisjoint(stated.values()), "no bin edge could state these thresholds"
        assert confidence.quartiles_nats == tuple(stated[part] for part in (0.25, 0.5, 0.75))


def test_removed_videos_count_for_thresholds_but_not_for_quartiles(
    cache: TargetCache, tmp_path: Path
) -> None:
    before = {name: read_quantiles(cache, name) for name in cache.teachers}
    shrunk = without(cache.layout.root, "c")
    kept_rows = np.concatenate(
        [shrunk.index.rows_of(caches.CORPUS.id_of(name), range(64)) for name in "abde"]
    )
    kept_rows = kept_rows[kept_rows >= 0]
    confidence = audited(shrunk, tmp_path / "out")
    for teacher_id, earlier in before.items():
        found = read_quantiles(shrunk, teacher_id)
        assert found.thresholds_nats == earlier.thresholds_nats
        assert found.thresholds_nats == tuple(
            quantile_of_all_rows(shrunk, teacher_id, fraction) for fraction in KEEP_FRACTIONS
        )
        entropy_nats = shrunk.targets(teacher_id).entropy_nats[kept_rows].astype(np.float64)
        assert found.quartiles_nats == tuple(np.quantile(entropy_nats, (0.25, 0.5, 0.75)))
        assert found.quartiles_nats != earlier.quartiles_nats
        assert confidence[teacher_id].quartiles_nats == found.quartiles_nats
        assert confidence[teacher_id].frames == len(kept_rows) == 30 + 30 + 5 + 64
