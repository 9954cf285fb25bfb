"""Which videos a target cache and a frame store share, by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.errors import FrameStoreError

__all__ = ["MatchedVideos", "VideoIds", "match_videos"]

_BLOCK = 65_536  # videos turned into Python objects at a time


class VideoIds(Sequence[str]):
    """Ids by number, 16 to 20 bytes each: a corpus may have a million."""

    def __init__(self, ids_V: NDArray[np.bytes_]) -> None:
        self._ids_V = ids_V

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> VideoIds: ...
    def __getitem__(self, number: int | slice) -> str | VideoIds:
        if isinstance(number, slice):
            return VideoIds(self._ids_V[number])
        video_id: bytes = self._ids_V[number]
        return video_id.decode()

    def __len__(self) -> int:
        return len(self._ids_V)


@dataclass(frozen=True, slots=True)
class MatchedVideos:
    """Videos that are whole in the cache and in the frame store, in order of cache id."""

    cache_ids: VideoIds
    cache_number_V: NDArray[np.int64]
    """Their numbers in the cache's index."""
    store_ids: VideoIds
    frame_count_V: NDArray[np.int64]
    failed: int
    """Videos that failed in the cache or in the store."""


def match_videos(cache: TargetCache, store: FrameStore) -> MatchedVideos:
    """Match by content digest; an id or a path alone proves nothing.

    Raises FrameStoreError if a good video of the cache is not in the store (and did not fail
    there), if its frame count differs, or if nothing is left.
    """
    failed_there = pa.array([v.digest for v in store.failed.values()], pa.string())
    good = pc.and_(
        pc.equal(cache.videos["status"], "ok"),
        pc.invert(pc.is_in(cache.videos["digest"], value_set=failed_there)),
    )
    failed = cache.videos.num_rows - (pc.sum(good).as_py() or 0)
    videos = cache.videos.filter(pc.and_(good, pc.greater(cache.videos["frame_count"], 0)))
    number_V = store.numbers_of(_bytes(videos["digest"]))
    absent_V = number_V < 0
    if absent_V.any() or not len(absent_V):
        paths = videos["path"].filter(pa.array(absent_V))[:3].to_pylist()
        raise FrameStoreError(
            f"the frame store {store.root} does not hold the videos of the cache",
            expected=f"the {len(absent_V)} good videos of the cache, by content",
            found=f"{len(absent_V) - absent_V.sum()} of them; absent: {', '.join(paths) or 'all'}",
            remedy="build the frame store from the same videos",
        )
    return _matched(cache, store, videos, number_V, failed)


def _matched(
    cache: TargetCache,
    store: FrameStore,
    videos: pa.Table,
    number_V: NDArray[np.int64],
    failed: int,
) -> MatchedVideos:
    counts_V = videos["frame_count"].to_numpy().astype(np.int64)
    stored_V = store.frame_counts[number_V]
    if (differ := np.flatnonzero(counts_V != stored_V)).size:
        first = int(differ[0])
        raise FrameStoreError(
            f"cache and frame store disagree on {videos['path'][first].as_py()}",
            expected=f"{counts_V[first]} frames",
            found=f"{stored_V[first]} frames",
            remedy="build the frame store again with this version of distinit and ffmpeg",
        )
    ids_V = _bytes(videos["video_id"])
    order_V = np.argsort(ids_V)
    return MatchedVideos(
        cache_ids=VideoIds(ids_V[order_V]),
        cache_number_V=cache.index.numbers_of(ids_V[order_V]),
        store_ids=VideoIds(store.video_ids[number_V[order_V]]),
        frame_count_V=counts_V[order_V],
        failed=failed,
    )


def _bytes(texts: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """A numpy column of ASCII strings, made block by block."""
    blocks = [
        np.array(texts[start : start + _BLOCK].to_pylist(), np.bytes_)
        for start in range(0, len(texts), _BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.zeros(0, "S1")
