"""The list of the demo's clips: the source, the cut or camera motion, and the split of each.

Every labelled photograph is filmed with every motion, so that a single frame does not reveal the
class. A horizontal flip does not change the class (a mirrored pan is a pan), so training may flip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distinit.pipeline.demo.camera import CameraMove
from distinit.pipeline.demo.sources import PHOTOS, VIDEOS

__all__ = ["MOTIONS", "Clip", "CutClip", "PhotoClip", "demo_clips"]

Split = Literal["corpus", "train", "test"]

MOTIONS = ("pan", "rotate", "tilt", "zoom_in", "zoom_out")
TEST_PHOTOS = ("coins", "gravel", "ihc", "page", "retina", "rocket")
TRAIN_PHOTOS = tuple(name for name in PHOTOS if name not in TEST_PHOTOS)

CORPUS_FRAMES, LABELLED_FRAMES = 36, 24  # per filmed clip
CORPUS_SPEED = 0.67  # relative to the labelled clips
VIDEO_CUTS = (
    *(("bikes", first, 41) for first in range(0, 246, 41)),
    *(("bigbuckbunny", first, 44) for first in (0, 44, 88)),
    *(("carphone_pristine", first, 40) for first in (0, 40, 80)),
)


@dataclass(frozen=True, slots=True)
class CutClip:
    """``frame_count`` frames of a packaged video, starting at ``first_frame``."""

    path: str
    split: Split
    source: str
    first_frame: int
    frame_count: int


@dataclass(frozen=True, slots=True)
class PhotoClip:
    """A photograph filmed by a moving camera. ``tightness`` and ``place``: see ``film_photo``."""

    path: str
    split: Split
    source: str
    motion: str
    move: CameraMove
    frame_count: int
    tightness: float
    place: tuple[float, float]


Clip = CutClip | PhotoClip


def demo_clips() -> tuple[Clip, ...]:
    """Every clip of the demo, sorted by path; every call returns the same."""
    clips = [*_video_cuts(), *_corpus_photos()]
    clips += _labelled("train", TRAIN_PHOTOS)
    clips += _labelled("test", TEST_PHOTOS)
    return tuple(sorted(clips, key=lambda clip: clip.path))


def _video_cuts() -> list[Clip]:
    return [
        CutClip(f"corpus/{name}_{first:03d}.mp4", "corpus", VIDEOS[name].name, first, count)
        for name, first, count in VIDEO_CUTS
    ]


def _corpus_photos() -> list[Clip]:
    """Each training photograph filmed with three motions, slower than the labelled clips."""
    clips: list[Clip] = []
    for number, source in enumerate(TRAIN_PHOTOS):
        for turn in range(3):
            motion = MOTIONS[(number + 2 * turn) % len(MOTIONS)]
            path = f"corpus/{source}_{motion}.mp4"
            clips.append(_photo_clip(path, "corpus", source, motion, number + turn, CORPUS_SPEED))
    return clips


def _labelled(split: Split, photos: tuple[str, ...]) -> list[Clip]:
    return [
        _photo_clip(f"motion/{split}/{motion}/{source}.mp4", split, source, motion, number, 1.0)
        for number, source in enumerate(photos)
        for motion in MOTIONS
    ]


def _photo_clip(
    path: str, split: Split, source: str, motion: str, variant: int, relative_speed: float
) -> PhotoClip:
    """``variant`` selects speed, direction, tightness and place, to vary the framing of clips."""
    speed = relative_speed * (1.0, 1.5, 2.0, 1.25)[variant % 4]
    direction = 1 if variant % 2 == 0 else -1
    return PhotoClip(
        path=path,
        split=split,
        source=source,
        motion=motion,
        move=_move(motion, speed, direction),
        frame_count=CORPUS_FRAMES if split == "corpus" else LABELLED_FRAMES,
        tightness=(1.0, 0.85, 0.7)[variant % 3],
        place=((0.5, 0.5), (0.2, 0.4), (0.8, 0.6))[variant % 3],
    )


def _move(motion: str, speed: float, direction: int) -> CameraMove:
    """At speed 1: 2 pixels, 1.5 degrees or 1.5 percent per frame. ``direction``: 1 or -1."""
    if motion == "pan":
        return CameraMove(pan_pixels_per_frame=2.0 * speed * direction)
    if motion == "tilt":
        return CameraMove(tilt_pixels_per_frame=2.0 * speed * direction)
    if motion == "rotate":
        return CameraMove(degrees_per_frame=1.5 * speed * direction)
    zoom = 1 + 0.015 * speed
    return CameraMove(zoom_per_frame=zoom if motion == "zoom_in" else 1 / zoom)
