"""What the results of merge, subset and encode have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.manifest import CacheManifest

__all__ = ["derived_fields"]


def derived_fields(out: Path, manifest: CacheManifest, notes: Iterable[str]) -> dict[str, Any]:
    """The fields of ``DerivedCache`` for a cache that has been written."""
    corpus = manifest.corpus
    return {
        "out": str(out),
        "content_digest": manifest.content_digest,
        "videos": corpus.videos + corpus.gone,
        "failed": corpus.failed,
        "rows": manifest.row_space.rows,
        "units": manifest.row_space.units,
        "fidelity": {name: r.losses[0] for name, r in TargetCache.open(out).teachers.items()},
        "notes": tuple(notes),
    }
