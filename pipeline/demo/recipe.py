"""The list of the demo's clips: which source, which cut or camera motion, which split.

Every labelled photograph is filmed with every motion, so that a single frame does not give the
class away, and the classes survive a horizontal flip (a mirrored pan is a pan): training may flip.
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

# Frames a clip. The corpus moves slower too: unlabelled film, not a motion exercise.
CORPUS_FRAMES, LABELLED_FRAMES = 36, 24
VIDEO_CUTS = (
    *(("bikes", first, 41) for first in range(0, 246, 41)),
    *(("bigbuckbunny", first, 44) for first in (0, 44, 88)),
    *(("carphone_pristine", first, 40) for first in (0, 40, 80)),
)


@dataclass(frozen=True, slots=True)
class CutClip:
    """``frame_count`` frames of a packaged video from ``first_frame`` on."""

    path: str
    split: Split
    source: str
    first_frame: int
    frame_count: int


@dataclass(frozen=True, slots=True)
class PhotoClip:
    """A photograph under a moving camera. ``tightness`` and ``place``: see ``film_photo``."""

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
    """Every clip of the demo, sorted by path. Always the same."""
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
    """Three motions of each training photograph, at two thirds of the labelled speed."""
    clips: list[Clip] = []
    for number, source in enumerate(TRAIN_PHOTOS):
        for turn in range(3):
            motion = MOTIONS[(number + 2 * turn) % len(MOTIONS)]
            path = f"corpus/{source}_{motion}.mp4"
            clips.append(_photo_clip(path, "corpus", source, motion, number + turn, 0.67))
    return clips


def _labelled(split: Split, photos: tuple[str, ...]) -> list[Clip]:
    return [
        _photo_clip(f"motion/{split}/{motion}/{source}.mp4", split, source, motion, number, 1.0)
        for number, source in enumerate(photos)
        for motion in MOTIONS
    ]


def _photo_clip(
    path: str, split: Split, source: str, motion: str, variant: int, pace: float
) -> PhotoClip:
    """``variant`` picks speed, direction, size and place, so that no two clips are framed alike."""
    speed = pace * (1.0, 1.5, 2.0, 1.25)[variant % 4]
    sign = 1 if variant % 2 == 0 else -1
    return PhotoClip(
        path=path,
        split=split,
        source=source,
        motion=motion,
        move=_move(motion, speed, sign),
        frame_count=CORPUS_FRAMES if split == "corpus" else LABELLED_FRAMES,
        tightness=(1.0, 0.85, 0.7)[variant % 3],
        place=((0.5, 0.5), (0.2, 0.4), (0.8, 0.6))[variant % 3],
    )


def _move(motion: str, speed: float, sign: int) -> CameraMove:
    """At speed 1: 2 pixels, 1.5 degrees or 1.5 percent a frame."""
    if motion == "pan":
        return CameraMove(pan_pixels_per_frame=2.0 * speed * sign)
    if motion == "tilt":
        return CameraMove(tilt_pixels_per_frame=2.0 * speed * sign)
    if motion == "rotate":
        return CameraMove(degrees_per_frame=1.5 * speed * sign)
    zoom = 1 + 0.015 * speed
    return CameraMove(zoom_per_frame=zoom if motion == "zoom_in" else 1 / zoom)
