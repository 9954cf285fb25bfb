"""What a threshold keeps of the clips that distillation draws: by bin of the target's entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.bins import EntropyBins
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.drawn_clips import DrawnClips
from distinit.pipeline.distillation.matching import MatchedVideos, VideoIds
from distinit.pipeline.distillation.target_frames import TargetFrames
from distinit.pipeline.distillation.targets import TargetReader
from distinit.schemas.audit import AuditConfig
from distinit.schemas.distill import TargetConfig
from distinit.schemas.run import LeftOut
from distinit.schemas.training import ClipConfig

__all__ = ["clip_weights", "drawn_clips"]

_COLUMNS = ("video_id", "status", "frame_count", "in_corpus")


def clip_weights(
    cache: TargetCache, teacher_id: str, config: AuditConfig, bins: EntropyBins
) -> NDArray[np.float64]:
    """Weight of the clips per bin of their target's entropy: [bins]; all 0 without clips.

    The clips are those that ``distill`` draws from the videos of the cache, all of which its frame
    store must then contain. The weight of a video is at most 1, whatever its length.

    Raises CacheCorruptError for damaged targets, StorageError if the index cannot be written.
    """
    targets = cache.targets(teacher_id)
    reader = TargetReader(TargetConfig(pick=config.pick, k=config.pick_frames), targets)
    weight_B = np.zeros(bins.count)
    drawn = drawn_clips(cache, reader, config.clip_frames)
    if not len(drawn.videos.frame_count_V):
        return weight_B
    for entropy_M, weight_M in drawn.entropies(reader)():
        usable_M = ~np.isnan(entropy_M)
        weight_B += np.bincount(bins.bins_of(entropy_M[usable_M]), weight_M[usable_M], bins.count)
    return weight_B


def drawn_clips(cache: TargetCache, reader: TargetReader, frames: int) -> DrawnClips:
    """Clips of ``frames`` frames, as they are drawn from all videos with targets of a teacher."""
    space = cache.manifest.row_space
    target_frames = TargetFrames(cache.index, space.capacity, reader.committed_U)
    videos = _videos(cache, target_frames)
    return DrawnClips(cache.index, videos, target_frames, ClipConfig(frames=frames))


def _videos(cache: TargetCache, target_frames: TargetFrames) -> MatchedVideos:
    """The videos that are trained on if a frame store contains all of them."""
    numbers, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for batch in cache.video_batches(_COLUMNS):
        is_ok_N = np.array(batch["status"].to_pylist()) == "ok"
        is_ok_N &= batch["in_corpus"].to_numpy(zero_copy_only=False)
        count_N = batch["frame_count"].to_numpy()
        is_ok_N &= count_N > 0
        ids = [name.encode() for name in batch["video_id"].filter(is_ok_N).to_pylist()]
        number_K = cache.index.numbers_of(np.array(ids, np.bytes_)) if ids else np.zeros(0, int)
        has_target_K = target_frames.any_of(number_K)
        numbers.append(number_K[has_target_K].astype(np.int32))
        counts.append(count_N[is_ok_N][has_target_K])
    number_V, count_V = np.concatenate(numbers), np.concatenate(counts)
    order_V = np.argsort(number_V, kind="stable")
    ids_V = VideoIds(cache.index.video_ids, number_V[order_V])
    return MatchedVideos(ids_V, ids_V, count_V[order_V], LeftOut())
