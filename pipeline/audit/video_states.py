"""Which videos of the corpus failed, and which lack frames."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["VideoStates", "video_states"]


@dataclass(frozen=True, slots=True)
class VideoStates:
    """The videos that the corpus still contains, by what became of them."""

    videos: int
    failed: pa.Table
    """video_id, path and error of each failed video."""
    damaged: pa.Table
    """video_id and path of each video that lacks frames."""


def video_states(videos: pa.Table) -> VideoStates:
    """From ``videos.parquet``, without a Python object per video."""
    in_corpus = videos.filter(videos.column("in_corpus"))
    return VideoStates(
        in_corpus.num_rows,
        in_corpus.filter(pc.equal(in_corpus.column("status"), "failed")).select(
            ["video_id", "path", "error"]
        ),
        in_corpus.filter(pc.is_valid(in_corpus.column("damage"))).select(["video_id", "path"]),
    )
