"""Single frames with the names of their videos and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distinit.pipeline.audit.runs import ExtremeFrame
from distinit.schemas.audit import FrameSample

__all__ = ["VideoNames", "class_name", "frame_samples"]


@dataclass(frozen=True, slots=True)
class VideoNames:
    """video_id and path of every video, in the order of videos.parquet."""

    ids: Sequence[str]
    paths: Sequence[str]


def class_name(label_names: Sequence[str], index: int) -> str:
    """The label of a class, or ``class 17`` if the teacher has no label for it."""
    return label_names[index] if index < len(label_names) else f"class {index}"


def frame_samples(
    extremes: Sequence[ExtremeFrame], videos: VideoNames, label_names: Sequence[str]
) -> tuple[FrameSample, ...]:
    """The frames with the names of their videos and classes."""
    return tuple(
        FrameSample(
            video_id=videos.ids[extreme.video],
            path=videos.paths[extreme.video],
            frame_index=extreme.frame_index,
            entropy_nats=extreme.entropy_nats,
            top1_class=extreme.top1_class,
            top1_name=class_name(label_names, extreme.top1_class),
            top1_probability=min(1.0, extreme.top1_probability),
        )
        for extreme in extremes
    )
