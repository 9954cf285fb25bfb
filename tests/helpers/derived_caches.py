"""Caches to merge, cut and encode again: parts of one corpus, and what is stored in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from helpers.caches import CORPUS, TEACHERS, Corpus, make_teacher

from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.combining.rows import RowReader
from distinit.pipeline.combining.source import open_source
from distinit.pipeline.progress import NullProgress

ALL_TEACHERS = (
    *TEACHERS,
    make_teacher("features", classes=9, target="features"),
    make_teacher("topk", encoding="topk:3", weights="1" * 64),
)
"""float16, int8, features and top-k."""


def part(names: Iterable[str]) -> Corpus:
    """Some videos of the corpus."""
    return Corpus({name: CORPUS.frames[name] for name in names}, CORPUS.broken)


def assert_valid(root: Path) -> str:
    """The folder is a complete cache on which verification finds nothing; its digest."""
    report = verify_cache(root)
    assert (report.problems, report.complete) == ((), True)
    assert not any("left behind" in note for note in report.notes)
    return report.content_digest


def stored_bytes(root: Path, teacher: str, video_id: str) -> dict[str, bytes]:
    """Every stored array, confidence and frame column of a video, as bytes."""
    reader = RowReader(open_source(root, NullProgress(), verify=False))
    _, rows = reader.extent(video_id)
    targets, frames = reader.targets(teacher, video_id, 0, rows), reader.frames(video_id, 0, rows)
    columns = {**targets.arrays, **targets.confidence}
    columns |= {n: getattr(frames, n) for n in ("frame_index", "pts", "perceptual_hash")}
    reader.close()
    return {name: np.ascontiguousarray(v).tobytes() for name, v in columns.items()}
