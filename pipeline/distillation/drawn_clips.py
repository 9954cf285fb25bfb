"""How training draws clips, and the entropies of their targets: the basis of a filter's threshold.

Clips are drawn uniformly over videos, and within a video uniformly over the starts whose clip
contains a frame with a target. So the frames of a short video count more than those of a long one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.cache.index import TargetIndex
from distinit.pipeline.cache.quantile import WeightedBlocks
from distinit.pipeline.distillation.matching import MatchedVideos
from distinit.pipeline.distillation.target_frames import TargetFrames
from distinit.pipeline.distillation.targets import Pick, TargetReader, select_frames
from distinit.pipeline.training.sampling import ClipChoices, ClipSampler, clip_frames
from distinit.schemas.training import ClipConfig

__all__ = ["SAMPLED_CLIPS", "DrawnClips", "frame_weights"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
type _Block = tuple[NDArray[np.floating], Floats]
"""(entropies fp32 [M] in nats, weights [M]): the weights of one video sum to its share of clips
with a target, at most 1."""

SAMPLED_CLIPS = 65_536
"""Size of the sample of clips for targets that are averages: the standard error of the share that
is kept is at most .2 percentage points."""
_SAMPLE_SEED = 0  # not that of the run, so that all seeds of an experiment have the same threshold
_SAMPLE_EPOCH = 2**63  # no training reaches it, so the sample does not repeat its clips
_BLOCK_FRAMES = 1 << 18  # about 40 MB of arrays
_BLOCK_ROWS = 1 << 12  # logits read at once: 16 MB for 1,000 classes


@dataclass(frozen=True, slots=True)
class DrawnClips:
    """The distribution that clips are drawn from."""

    index: TargetIndex
    videos: MatchedVideos
    target_frames: TargetFrames
    clip: ClipConfig

    def sampler(self, clips: int | None, seed: int) -> ClipSampler:
        """Draws ``clips`` per epoch; None takes one per video."""
        return ClipSampler(self.videos.frame_count_V, self.clip, clips, seed, self._starts)

    def _starts(self, video_N: Ints, uniform_N: Floats, frame_count_N: Ints, frames: int) -> Ints:
        number_N = self.videos.cache_number_V[video_N]
        return self.target_frames.starts(number_N, frame_count_N, uniform_N, frames)

    def rows(self, choices: ClipChoices) -> Ints:
        """Cache rows [N, T] of the clips' frames, -1 where the cache has none."""
        number_N = self.videos.cache_number_V[choices.video_N]
        return self.index.rows_of_videos(number_N, choices.frames_NT)

    def entropies(self, reader: TargetReader) -> WeightedBlocks:
        """The entropies of the clips' targets, weighted by how often the clips are drawn.

        Exact for targets of one frame, from the stored entropies. For targets that are averages,
        those of a fixed sample of SAMPLED_CLIPS clips, which is drawn here.
        """
        if not reader.averages_frames:
            return lambda: self._single_frames(reader)
        sample = list(self._sampled(reader))
        return lambda: sample

    def sample(self) -> Iterator[tuple[Ints, Floats, Bools]]:
        """A fixed sample of SAMPLED_CLIPS clips, in blocks: (rows, uniforms, flips) for readers."""
        sampler = self.sampler(SAMPLED_CLIPS, _SAMPLE_SEED)
        size = max(1, _BLOCK_ROWS // self.clip.frames)
        for first in range(0, SAMPLED_CLIPS, size):
            samples_N = np.arange(first, min(first + size, SAMPLED_CLIPS))
            choices = sampler.choices(_SAMPLE_EPOCH, samples_N)
            uniform_NT = sampler.target_uniforms(_SAMPLE_EPOCH, samples_N)
            yield self.rows(choices), uniform_NT, choices.flip_N

    def _sampled(self, reader: TargetReader) -> Iterator[_Block]:
        for rows_NT, uniform_NT, flip_N in self.sample():
            entropy_N = reader.clip_entropies(rows_NT, uniform_NT, flip_N)
            yield entropy_N, np.ones(len(entropy_N))

    def _single_frames(self, reader: TargetReader) -> Iterator[_Block]:
        """The stored entropies of frames, with the probability that a clip has them as a target."""
        frame_count_V, frames = self.videos.frame_count_V, self.clip.frames
        before_V = np.cumsum(np.maximum(frame_count_V, frames)) // _BLOCK_FRAMES
        for videos in np.split(np.arange(len(before_V)), np.flatnonzero(np.diff(before_V)) + 1):
            is_short_B = frame_count_V[videos] < frames
            for rows_M, weight_M in (
                self._long_videos(reader, videos[~is_short_B]),
                self._short_videos(reader, videos[is_short_B]),
            ):
                yield from self._flipped_and_not(reader, rows_M, weight_M)
            self.index.release_pages()

    def _flipped_and_not(
        self, reader: TargetReader, rows_M: Ints, weight_M: Floats
    ) -> Iterator[_Block]:
        flip = 0.0 if reader.mirrored is None else self.clip.flip
        for is_flipped, share in ((False, 1 - flip), (True, flip)):
            if share:
                flip_M = np.full(len(rows_M), is_flipped)
                yield reader.stored_entropies(rows_M, flip_M), share * weight_M

    def _long_videos(self, reader: TargetReader, videos: Ints) -> tuple[Ints, Floats]:
        """(rows, weights) of videos that have at least as many frames as a clip."""
        number_V = self.videos.cache_number_V[videos]
        frame_count_V = self.videos.frame_count_V[videos]
        row_count_V = self.index.row_count[number_V]
        rows_R = _ranges(self.index.first_row[number_V], row_count_V)
        frame_R = np.asarray(self.index.frame_index[rows_R], np.int64)
        is_inside_R = frame_R < np.repeat(frame_count_V, row_count_V)
        place_R = np.repeat(np.cumsum(frame_count_V) - frame_count_V, row_count_V) + frame_R
        rows_R, place_R = rows_R[is_inside_R], place_R[is_inside_R]
        used_F, own_F = (np.zeros(int(frame_count_V.sum()), np.bool_) for _ in range(2))
        used_F[place_R] = self.target_frames.has_target(rows_R)
        own_F[place_R] = reader.written(rows_R) >= 0
        weight_F = frame_weights(reader.config.pick, self.clip.frames, frame_count_V, used_F, own_F)
        return rows_R, weight_F[place_R]

    def _short_videos(self, reader: TargetReader, videos: Ints) -> tuple[Ints, Floats]:
        """(rows, weights) of videos with fewer frames than a clip: they have one clip each."""
        number_V = self.videos.cache_number_V[videos]
        frame_count_V = self.videos.frame_count_V[videos]
        frames_VT = clip_frames(np.zeros_like(videos), frame_count_V, self.clip.frames)
        rows_VT = reader.written(self.index.rows_of_videos(number_V, frames_VT))
        selected_VT = rows_VT >= 0
        if reader.config.pick not in {"random", "k_random"}:
            uniform_VT = np.zeros(rows_VT.shape)
            selected_VT = select_frames(reader.config.pick, 1, selected_VT, uniform_VT)
        weight_VT = selected_VT / np.maximum(selected_VT.sum(axis=1), 1)[:, None]
        return rows_VT[selected_VT], weight_VT[selected_VT]


def frame_weights(
    pick: Pick, frames: int, frame_count_V: Ints, used_F: Bools, own_F: Bools
) -> Floats:
    """Probability of each frame to be the target of a clip of its video: [F].

    ``F`` runs over the frames of all videos, one video after the other; each has at least
    ``frames`` frames, the length of a clip. ``used_F``: frames that allow a clip to contain them.
    ``own_F``: those among them that the teacher has a target for. ``pick`` selects one frame.
    """
    end_V = np.cumsum(frame_count_V)
    starts_V = frame_count_V - frames + 1
    start_S = _ranges(end_V - frame_count_V, starts_V)
    video_S = np.repeat(np.arange(len(frame_count_V)), starts_V)
    used_S = _count(used_F, start_S, frames) > 0
    drawn_V = np.bincount(video_S, used_S, len(frame_count_V))
    own_S = _count(own_F, start_S, frames)
    has_target_S = used_S & (own_S > 0)
    start_S, video_S, own_S = start_S[has_target_S], video_S[has_target_S], own_S[has_target_S]
    weight_S = 1 / drawn_V[video_S]
    if pick in {"random", "k_random"}:
        share_F = np.zeros(len(own_F))
        share_F[start_S] = weight_S / own_S
        first_F = np.repeat(end_V - frame_count_V, frame_count_V)
        place_F = np.arange(len(own_F))
        before_F = np.concatenate([[0.0], np.cumsum(share_F)])
        first_F = np.maximum(first_F, place_F - frames + 1)
        weight_F: Floats = np.where(own_F, before_F[place_F + 1] - before_F[first_F], 0)
        return weight_F
    if pick == "uniform":
        rank_S = np.cumsum(own_F)[start_S] - own_F[start_S] + own_S // 2
        target_S = np.flatnonzero(own_F)[rank_S]
    else:
        target_S = _nearest(own_F, start_S, frames)
    weight_F = np.bincount(target_S, weight_S, len(own_F))
    return weight_F


def _nearest(own_F: Bools, start_S: Ints, frames: int) -> Ints:
    """The frame with a target that is nearest to the middle of each clip; ties: the earlier one."""
    place_F = np.arange(len(own_F))
    left_F = np.maximum.accumulate(np.where(own_F, place_F, -1))
    right_F = np.minimum.accumulate(np.where(own_F, place_F, len(own_F))[::-1])[::-1]
    middle_S = start_S + frames // 2
    left_S, right_S = left_F[middle_S], right_F[middle_S]
    is_left_S = (left_S >= start_S) & (
        (middle_S - left_S <= right_S - middle_S) | (right_S >= start_S + frames)
    )
    target_S: Ints = np.where(is_left_S, left_S, right_S)
    return target_S


def _count(marked_F: Bools, start_S: Ints, frames: int) -> Ints:
    """The number of marked frames of each clip."""
    before_F = np.concatenate([[0], np.cumsum(marked_F)])
    count_S: Ints = before_F[start_S + frames] - before_F[start_S]
    return count_S


def _ranges(first_V: Ints, count_V: Ints) -> Ints:
    """``count`` consecutive numbers from ``first``, for each V, one after the other."""
    before_V = np.cumsum(count_V) - count_V
    return np.repeat(first_V - before_V, count_V) + np.arange(int(count_V.sum()))
