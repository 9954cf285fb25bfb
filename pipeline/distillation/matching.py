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
from distinit.pipeline.matching.mapping import Mapping
from distinit.schemas.errors import CacheError, FrameStoreError, MatchError
from distinit.schemas.run import LeftOut

__all__ = ["MatchedVideos", "VideoIds", "match_videos"]

_COLUMNS = ("video_id", "path", "digest", "status", "frame_count", "in_corpus")
_SHOWN = 3


class VideoIds(Sequence[str]):
    """Ids of V videos: id ``i`` is entry ``number_V[i]`` of a sorted, memory-mapped column."""

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
    """Videos that are complete in both the cache and the frame store, ordered by cache id.

    Takes 16 bytes per video, because a corpus may have a million of them.
    """

    cache_ids: VideoIds
    store_ids: VideoIds
    frame_count_V: NDArray[np.int64]
    left_out: LeftOut
    mapping_digest: str = ""
    """Which copies stand for which videos; empty if the store has the owner's files."""

    @property
    def cache_number_V(self) -> NDArray[np.int32]:  # noqa: N802
        """Position of each video in the cache's index."""
        return self.cache_ids.number_V


def match_videos(
    cache: TargetCache,
    store: FrameStore,
    targets: TargetFrames | None = None,
    mapping: Mapping | None = None,
) -> MatchedVideos:
    """Match the videos by content digest; equal ids or paths alone are not enough.

    A video is left out, and counted, if the corpus of the cache no longer contains it, if it is
    missing from the store, if the store has another number of frames for it, or if none of its
    frames has a target in ``targets`` (None: any row of the cache is a target). With a
    ``mapping``, the usable copy of a video stands for it; other copies do not.

    Raises MatchError if the mapping is for another cache, FrameStoreError or CacheError if no video
    is left.
    """
    targets = targets or _all_rows(cache)
    if mapping is not None:
        mapping.check_cache(cache)
    blocks = [
        _match_block(cache, store, targets, videos, mapping)
        for videos in cache.video_batches(_COLUMNS)
    ]
    not_in_store = sum(block.not_in_store for block in blocks)
    may_be_copies = mapping is None and not_in_store
    left_out = LeftOut(
        failed=sum(block.failed for block in blocks),
        gone=sum(block.gone for block in blocks),
        not_in_store=not_in_store,
        unknown_in_store=_unknown(store, blocks) if may_be_copies else 0,
        other_frame_count=sum(block.other_frame_count for block in blocks),
        refused_by_match=sum(block.refused_by_match for block in blocks),
        without_targets=sum(block.without_targets for block in blocks),
        examples=tuple(text for block in blocks for text in block.examples)[:_SHOWN],
    )
    if not any(len(block.frame_count_K) for block in blocks):
        raise _nothing_left(cache, store, left_out)
    cache_number_V = np.concatenate([block.cache_number_K for block in blocks])
    order_V = np.argsort(cache_number_V, kind="stable")  # index order is id order
    store_number_V = np.concatenate([block.store_number_K for block in blocks])
    frame_count_V = np.concatenate([block.frame_count_K for block in blocks])
    return MatchedVideos(
        cache_ids=VideoIds(cache.index.video_ids, cache_number_V[order_V]),
        store_ids=VideoIds(store.id_column, store_number_V[order_V]),
        frame_count_V=frame_count_V[order_V],
        left_out=left_out,
        mapping_digest="" if mapping is None else mapping.digest,
    )


def _all_rows(cache: TargetCache) -> TargetFrames:
    space = cache.manifest.row_space
    return TargetFrames(cache.index, space.capacity, np.ones(space.units, np.bool_))


def _unknown(store: FrameStore, blocks: Sequence[_Block]) -> int:
    """Number of videos of the store that have the content of no video of the cache."""
    known = np.unique(np.concatenate([block.found_number_N for block in blocks]))
    return len(store.frame_counts) - len(known)


def _nothing_left(
    cache: TargetCache, store: FrameStore, left_out: LeftOut
) -> CacheError | FrameStoreError:
    reasons = "; ".join(left_out.examples) or f"{left_out.failed} failed"
    if left_out.without_targets and not left_out.of_store:
        return CacheError(
            f"no video of the cache {cache.layout.root} has a target",
            expected="stored targets of the teachers that are trained on",
            found=reasons,
            remedy="extract with another sampling, or extract more of the videos",
        )
    return FrameStoreError(
        f"the frame store {store.root} does not hold the videos of the cache",
        expected="at least one video with the same content and number of frames as in the cache",
        found=reasons,
        remedy=left_out.hint()
        if left_out.unknown_in_store
        else "build the frame store from the same videos",
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """The result for one block of videos; N of them are in the store, K are trained on."""

    failed: int
    gone: int
    not_in_store: int
    other_frame_count: int
    refused_by_match: int
    without_targets: int
    examples: Sequence[str]
    found_number_N: NDArray[np.int32]
    cache_number_K: NDArray[np.int32]
    store_number_K: NDArray[np.int32]
    frame_count_K: NDArray[np.int64]


def _match_block(
    cache: TargetCache,
    store: FrameStore,
    targets: TargetFrames,
    videos: pa.RecordBatch,
    mapping: Mapping | None,
) -> _Block:
    digest_N, refusals = _digests_to_find(videos, mapping)
    whole_N = np.array(videos["status"].to_pylist()) == "ok"
    store_number_N = store.numbers_of(digest_N)
    # A video that failed at first but was decoded by a later run is both failed and in the store.
    whole_N &= (store_number_N >= 0) | ~find_texts(store.failed_digests, digest_N)[1]
    in_corpus_N = videos["in_corpus"].to_numpy(zero_copy_only=False)
    count_N = videos["frame_count"].to_numpy()
    usable_N = whole_N & in_corpus_N & (count_N > 0)
    absent_N = usable_N & (store_number_N < 0)
    kept_N = usable_N & ~absent_N
    differs_N = np.zeros_like(kept_N)
    differs_N[kept_N] = store.frame_counts[store_number_N[kept_N]] != count_N[kept_N]
    kept_N &= ~differs_N
    cache_number_K = cache.index.numbers_of(_bytes(videos["video_id"])[kept_N])
    has_target_K = targets.any_of(cache_number_K)
    no_target_N = np.zeros_like(kept_N)
    no_target_N[kept_N] = ~has_target_K
    kept_N &= ~no_target_N
    refused_N = absent_N & np.array([bool(reason) for reason in refusals], np.bool_)
    reasons = {
        "not in the frame store": absent_N & ~refused_N,
        "another number of frames in the frame store": differs_N,
        "no frame with a target": no_target_N,
    }
    return _Block(
        failed=int((~whole_N & in_corpus_N).sum()),
        gone=len(in_corpus_N) - int(in_corpus_N.sum()),
        not_in_store=int((absent_N & ~refused_N).sum()),
        other_frame_count=int(differs_N.sum()),
        refused_by_match=int(refused_N.sum()),
        without_targets=int(no_target_N.sum()),
        examples=[
            *(refusals[n] for n in np.flatnonzero(refused_N)[:_SHOWN].tolist()),
            *(
                f"{path} ({reason})"
                for reason, where_N in reasons.items()
                for path in videos["path"].filter(pa.array(where_N))[:_SHOWN].to_pylist()
            ),
        ],
        found_number_N=store_number_N[store_number_N >= 0].astype(np.int32),
        cache_number_K=cache_number_K[has_target_K].astype(np.int32),
        store_number_K=store_number_N[kept_N].astype(np.int32),
        frame_count_K=count_N[kept_N],
    )


def _digests_to_find(
    videos: pa.RecordBatch, mapping: Mapping | None
) -> tuple[NDArray[np.bytes_], list[str]]:
    """Digest [N] that each video has in the frame store, and why its copy is not used, or "".

    Raises MatchError if the mapping has another digest for a video than the cache.
    """
    own = videos["digest"].to_pylist()
    if mapping is None:
        return _bytes(videos["digest"]), [""] * len(own)
    rows = mapping.rows_of(_bytes(videos["video_id"]))
    for row, digest in zip(rows, own, strict=True):
        if row is not None and row.digest != digest:
            raise MatchError(
                f"the mapping file is about another video {row.video_id} than the cache",
                expected=f"digest {digest}",
                found=f"digest {row.digest}",
                remedy="run `distinit cache match` with this cache",
            )
    pairs = list(zip(rows, own, strict=True))
    found = [row.copy_digest if row is not None and row.usable else own for row, own in pairs]
    refusals = [row.line() if row is not None and not row.usable else "" for row in rows]
    return np.array([digest.encode() for digest in found], np.bytes_), refusals


def _bytes(texts: pa.Array) -> NDArray[np.bytes_]:
    """The strings as UTF-8 bytes in a numpy array."""
    return np.array([text.encode() for text in texts.to_pylist()], np.bytes_)
