"""Which videos a target cache and a frame store share, by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.derived import find_texts
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.errors import FrameStoreError

__all__ = ["MatchedVideos", "VideoIds", "match_videos"]

_COLUMNS = ("video_id", "path", "digest", "status", "frame_count", "in_corpus")
_PATHS_SHOWN = 3


class VideoIds(Sequence[str]):
    """Ids of videos by number: place ``number_V[i]`` in a sorted, memory-mapped column of ids."""

    def __init__(self, ids_N: NDArray[np.bytes_], number_V: NDArray[np.int32]) -> None:
        self._ids_N = ids_N
        self.number_V = number_V

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> VideoIds: ...
    def __getitem__(self, number: int | slice) -> str | VideoIds:
        if isinstance(number, slice):
            return VideoIds(self._ids_N, self.number_V[number])
        video_id: bytes = self._ids_N[self.number_V[number]]
        return video_id.decode()

    def __len__(self) -> int:
        return len(self.number_V)


@dataclass(frozen=True, slots=True)
class MatchedVideos:
    """Videos that are whole in the cache and in the frame store, in order of cache id.

    16 bytes a video: a corpus may have a million.
    """

    cache_ids: VideoIds
    store_ids: VideoIds
    frame_count_V: NDArray[np.int64]
    failed: int
    """Videos that failed in the cache or in the store."""
    gone: int = 0
    """Videos that the corpus of the cache no longer has."""

    @property
    def cache_number_V(self) -> NDArray[np.int32]:  # noqa: N802
        """Their numbers in the cache's index."""
        return self.cache_ids.number_V


def match_videos(cache: TargetCache, store: FrameStore) -> MatchedVideos:
    """Match by content digest; an id or a path alone proves nothing.

    Raises FrameStoreError if a good video of the cache is not in the store (and did not fail
    there), if its frame count differs, or if nothing is left.
    """
    blocks = [_match_block(cache, store, videos) for videos in cache.video_batches(_COLUMNS)]
    good, absent = sum(block.good for block in blocks), sum(block.absent for block in blocks)
    if absent or not good:
        paths = [path for block in blocks for path in block.absent_paths][:_PATHS_SHOWN]
        raise FrameStoreError(
            f"the frame store {store.root} does not hold the videos of the cache",
            expected=f"the {good} good videos of the cache, by content",
            found=f"{good - absent} of them; absent: {', '.join(paths) or 'all'}",
            remedy="build the frame store from the same videos",
        )
    if differing := next((block.differing for block in blocks if block.differing), None):
        path, counted, stored = differing
        raise FrameStoreError(
            f"cache and frame store disagree on {path}",
            expected=f"{counted} frames",
            found=f"{stored} frames",
            remedy="build the frame store again with this version of distinit and ffmpeg",
        )
    cache_number_V = np.concatenate([block.cache_number_K for block in blocks])
    order_V = np.argsort(cache_number_V, kind="stable")  # numbers ascend as the ids do
    store_number_V = np.concatenate([block.store_number_K for block in blocks])
    frame_count_V = np.concatenate([block.frame_count_K for block in blocks])
    return MatchedVideos(
        cache_ids=VideoIds(cache.index.video_ids, cache_number_V[order_V]),
        store_ids=VideoIds(store.video_ids, store_number_V[order_V]),
        frame_count_V=frame_count_V[order_V],
        failed=sum(block.failed for block in blocks),
        gone=sum(block.gone for block in blocks),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """What some thousand videos of the cache came to."""

    failed: int
    gone: int
    good: int
    """Whole videos with frames; K of them are in the store."""
    absent: int
    absent_paths: Sequence[str]
    differing: tuple[str, int, int] | None
    """(path, frames in the cache, frames in the store) of the first that disagrees."""
    cache_number_K: NDArray[np.int32]
    store_number_K: NDArray[np.int32]
    frame_count_K: NDArray[np.int64]


def _match_block(cache: TargetCache, store: FrameStore, videos: pa.RecordBatch) -> _Block:
    digest_N = _bytes(videos["digest"])
    whole_N = np.array(videos["status"].to_pylist()) == "ok"
    number_N = store.numbers_of(digest_N)
    # A video that failed at first, and was tried again, is there all the same.
    whole_N &= (number_N >= 0) | ~find_texts(store.failed_digests, digest_N)[1]
    here_N = videos["in_corpus"].to_numpy(zero_copy_only=False)
    whole_N, failed = whole_N & here_N, int((~whole_N & here_N).sum())
    count_N = videos["frame_count"].to_numpy()
    good_N = whole_N & (count_N > 0)
    absent_N, there_N = good_N & (number_N < 0), good_N & (number_N >= 0)
    store_number_K, count_K = number_N[there_N], count_N[there_N]
    stored_K = store.frame_counts[store_number_K]
    differing = None
    if (differ := np.flatnonzero(count_K != stored_K)).size:
        at = int(differ[0])
        row = int(np.flatnonzero(there_N)[at])
        differing = (videos["path"][row].as_py(), int(count_K[at]), int(stored_K[at]))
    return _Block(
        failed=failed,
        gone=len(here_N) - int(here_N.sum()),
        good=int(good_N.sum()),
        absent=int(absent_N.sum()),
        absent_paths=videos["path"].filter(pa.array(absent_N))[:_PATHS_SHOWN].to_pylist(),
        differing=differing,
        cache_number_K=cache.index.numbers_of(_bytes(videos["video_id"])[there_N]).astype(np.int32),
        store_number_K=store_number_K.astype(np.int32),
        frame_count_K=count_K,
    )


def _bytes(texts: pa.Array) -> NDArray[np.bytes_]:
    """A numpy column of strings."""
    return np.array([text.encode() for text in texts.to_pylist()], np.bytes_)
