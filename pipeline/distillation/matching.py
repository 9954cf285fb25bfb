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
from distinit.pipeline.distillation.target_frames import TargetFrames
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.errors import CacheError, FrameStoreError
from distinit.schemas.run import LeftOut

__all__ = ["MatchedVideos", "VideoIds", "match_videos"]

_COLUMNS = ("video_id", "path", "digest", "status", "frame_count", "in_corpus")
_SHOWN = 3


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
    left_out: LeftOut

    @property
    def cache_number_V(self) -> NDArray[np.int32]:  # noqa: N802
        """Their numbers in the cache's index."""
        return self.cache_ids.number_V


def match_videos(
    cache: TargetCache, store: FrameStore, targets: TargetFrames | None = None
) -> MatchedVideos:
    """Match by content digest; an id or a path alone proves nothing.

    What the cache's corpus no longer has, is not in the store, has another number of frames
    there, or has no frame among ``targets`` (None: any row will do) is left out, and counted.

    Raises FrameStoreError or CacheError if nothing is left.
    """
    targets = targets or _all_rows(cache)
    blocks = [
        _match_block(cache, store, targets, videos) for videos in cache.video_batches(_COLUMNS)
    ]
    left_out = LeftOut(
        failed=sum(block.failed for block in blocks),
        gone=sum(block.gone for block in blocks),
        not_in_store=sum(block.not_in_store for block in blocks),
        other_frame_count=sum(block.other_frame_count for block in blocks),
        without_targets=sum(block.without_targets for block in blocks),
        examples=tuple(text for block in blocks for text in block.examples)[:_SHOWN],
    )
    if not any(len(block.frame_count_K) for block in blocks):
        raise _nothing_left(cache, store, left_out)
    cache_number_V = np.concatenate([block.cache_number_K for block in blocks])
    order_V = np.argsort(cache_number_V, kind="stable")  # numbers ascend as the ids do
    store_number_V = np.concatenate([block.store_number_K for block in blocks])
    frame_count_V = np.concatenate([block.frame_count_K for block in blocks])
    return MatchedVideos(
        cache_ids=VideoIds(cache.index.video_ids, cache_number_V[order_V]),
        store_ids=VideoIds(store.video_ids, store_number_V[order_V]),
        frame_count_V=frame_count_V[order_V],
        left_out=left_out,
    )


def _all_rows(cache: TargetCache) -> TargetFrames:
    space = cache.manifest.row_space
    return TargetFrames(cache.index, space.capacity, np.ones(space.units, np.bool_))


def _nothing_left(
    cache: TargetCache, store: FrameStore, left_out: LeftOut
) -> CacheError | FrameStoreError:
    reasons = "; ".join(left_out.examples) or f"{left_out.failed} failed"
    if left_out.without_targets and not left_out.not_in_store + left_out.other_frame_count:
        return CacheError(
            f"no video of the cache {cache.layout.root} has a target",
            expected="rows of the teachers that shall teach",
            found=reasons,
            remedy="extract with another sampling, or more of the videos",
        )
    return FrameStoreError(
        f"the frame store {store.root} does not hold the videos of the cache",
        expected="a video of the cache at least, by content, with the same number of frames",
        found=reasons,
        remedy="build the frame store from the same videos",
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """What some thousand videos of the cache came to; K of them are trained on."""

    failed: int
    gone: int
    not_in_store: int
    other_frame_count: int
    without_targets: int
    examples: Sequence[str]
    cache_number_K: NDArray[np.int32]
    store_number_K: NDArray[np.int32]
    frame_count_K: NDArray[np.int64]


def _match_block(
    cache: TargetCache, store: FrameStore, targets: TargetFrames, videos: pa.RecordBatch
) -> _Block:
    digest_N = _bytes(videos["digest"])
    whole_N = np.array(videos["status"].to_pylist()) == "ok"
    store_number_N = store.numbers_of(digest_N)
    # A video that failed at first, and was tried again, is there all the same.
    whole_N &= (store_number_N >= 0) | ~find_texts(store.failed_digests, digest_N)[1]
    here_N = videos["in_corpus"].to_numpy(zero_copy_only=False)
    count_N = videos["frame_count"].to_numpy()
    good_N = whole_N & here_N & (count_N > 0)
    absent_N = good_N & (store_number_N < 0)
    kept_N = good_N & ~absent_N
    differs_N = np.zeros_like(kept_N)
    differs_N[kept_N] = store.frame_counts[store_number_N[kept_N]] != count_N[kept_N]
    kept_N &= ~differs_N
    cache_number_K = cache.index.numbers_of(_bytes(videos["video_id"])[kept_N])
    has_target_K = targets.any_of(cache_number_K)
    mute_N = np.zeros_like(kept_N)
    mute_N[kept_N] = ~has_target_K
    kept_N &= ~mute_N
    reasons = {
        "not in the frame store": absent_N,
        "another number of frames in the frame store": differs_N,
        "no frame with a target": mute_N,
    }
    return _Block(
        failed=int((~whole_N & here_N).sum()),
        gone=len(here_N) - int(here_N.sum()),
        not_in_store=int(absent_N.sum()),
        other_frame_count=int(differs_N.sum()),
        without_targets=int(mute_N.sum()),
        examples=[
            f"{path} ({why})"
            for why, where_N in reasons.items()
            for path in videos["path"].filter(pa.array(where_N))[:_SHOWN].to_pylist()
        ],
        cache_number_K=cache_number_K[has_target_K].astype(np.int32),
        store_number_K=store_number_N[kept_N].astype(np.int32),
        frame_count_K=count_N[kept_N],
    )


def _bytes(texts: pa.Array) -> NDArray[np.bytes_]:
    """A numpy column of strings."""
    return np.array([text.encode() for text in texts.to_pylist()], np.bytes_)
