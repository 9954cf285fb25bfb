"""The pixels of single frames for the audit, with the most probable classes of a teacher."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distinit.pipeline.audit.samples import VideoNames, class_name
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.frames.jpeg import decode_jpeg
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.reports.details import FramePicture
from distinit.schemas.audit import FrameSample

__all__ = ["FrameReader", "pixels_of"]

_TOP = 5  # classes
_LONG_EDGE = 176  # pixels, on the page
_QUALITY = 72


def pixels_of(jpeg: bytes) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3]."""
    pixels_HWC: NDArray[np.uint8] = decode_jpeg(jpeg).permute(1, 2, 0).numpy()
    return pixels_HWC


class FrameReader:
    """Reads frames of one frame store, with the outputs of one teacher."""

    def __init__(
        self, cache: TargetCache, store: FrameStore, teacher_id: str, videos: VideoNames
    ) -> None:
        self._index, self._targets, self._store = cache.index, cache.targets(teacher_id), store
        self._names = cache.teachers[teacher_id].identity.label_names
        self._videos = videos

    def pictures(self, samples: Sequence[FrameSample]) -> list[FramePicture]:
        """The frames whose videos the store contains.

        Raises FrameStoreError and CacheCorruptError for damaged data.
        """
        found = [sample for sample in samples if sample.video_id in self._store.videos]
        share_MC = self._shares([(sample.video_id, sample.frame_index) for sample in found])
        return [
            FramePicture(
                sample, self._jpeg(sample.video_id, sample.frame_index), self._top(share_C)
            )
            for sample, share_C in zip(found, share_MC, strict=True)
        ]

    def of_video(self, video: int, frames: Sequence[int]) -> list[FramePicture]:
        """Frames of one video, by its position in videos.parquet; none if it is not stored."""
        video_id = self._videos.ids[video]
        if video_id not in self._store.videos:
            return []
        row_M = self._index.rows_of(video_id, frames)
        entropy_M = self._targets.entropy_nats[row_M]
        share_MC = self._shares([(video_id, frame) for frame in frames])
        return [
            FramePicture(
                self._sample(video, frame, float(entropy), share_C),
                self._jpeg(video_id, frame),
                self._top(share_C),
            )
            for frame, entropy, share_C in zip(frames, entropy_M, share_MC, strict=True)
            if not np.isnan(entropy)
        ]

    def _sample(
        self, video: int, frame: int, entropy_nats: float, share_C: NDArray[np.floating]
    ) -> FrameSample:
        top = int(share_C.argmax())
        return FrameSample(
            video_id=self._videos.ids[video],
            path=self._videos.paths[video],
            frame_index=frame,
            entropy_nats=entropy_nats,
            top1_class=top,
            top1_name=class_name(self._names, top),
            top1_probability=min(1.0, float(share_C[top])),
        )

    def _shares(self, frames: Sequence[tuple[str, int]]) -> NDArray[np.floating]:
        """Probabilities of the classes of each frame: [M, C]."""
        rows = [int(self._index.rows_of(video_id, [frame])[0]) for video_id, frame in frames]
        if not rows:
            return np.zeros((0, 1))
        logits_MC = self._targets.logits(np.array(rows)).astype(np.float64)
        share_MC = np.exp(logits_MC - logits_MC.max(axis=1, keepdims=True))
        share_MC /= share_MC.sum(axis=1, keepdims=True)
        return share_MC

    def _top(self, share_C: NDArray[np.floating]) -> tuple[tuple[str, float], ...]:
        order = np.argsort(-share_C, kind="stable")[:_TOP].tolist()
        return tuple((class_name(self._names, index), float(share_C[index])) for index in order)

    def _jpeg(self, video_id: str, frame: int) -> bytes:
        """The frame as a small JPEG."""
        picture = Image.fromarray(pixels_of(self._store.jpegs(video_id, [frame])[0]))
        picture.thumbnail((_LONG_EDGE, _LONG_EDGE))
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=_QUALITY)
        return buffer.getvalue()
