"""Encodes many short films of one size: one ffmpeg process writes a group of them.

Starting an ffmpeg takes longer than encoding one small film. The bytes of a film depend on what
the same process encoded before it, so the groups must be the same in every run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import atomic_write_bytes, fsync_file
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.errors import DistInitError

__all__ = ["prepare_folder", "write_films"]

_PARTIAL_PREFIX = ".films-"
_LISTING_NAME = "films.json"
_FPS = 25
_FILMS_PER_PROCESS = 100
_DEADLINE_SECONDS = 120


def prepare_folder(root: Path, kind: str, films: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``films.json``, after removing films that another recipe wrote under the same names.

    ``films``: path below ``root`` -> recipe. Leftovers of a killed run are removed. Afterwards
    every film that exists is complete and of this recipe.
    """
    listing = json.dumps({"format": kind, "films": films}, indent=1) + "\n"
    for leftover in root.glob(f"{_PARTIAL_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    file = root / _LISTING_NAME
    if file.is_file() and file.read_text() == listing:
        return
    for path in films:
        (root / path).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(file, listing.encode())


def write_films[FilmT](
    root: Path,
    films: Sequence[tuple[Path, FilmT]],
    render: Callable[[FilmT], np.ndarray],
    *,
    side: int,
    frame_count: int,
    jobs: int,
    progress: Progress,
) -> None:
    """Write the ``films`` (path, recipe) that do not exist yet, each complete or not at all.

    ``render`` makes the frames of a film: uint8 RGB [frame_count, side, side, 3]. Temporary
    folders are made in ``root``, which must be on the same file system as the paths.

    Raises DistInitError if ffmpeg fails.
    """
    present = sum(path.is_file() for path, _ in films)
    progress.start("films", len(films), "films", done=present)
    with ThreadPoolExecutor(jobs) as pool:
        groups = batched(films, _FILMS_PER_PROCESS)
        encoder = _Encoder(side, frame_count)
        for written in pool.map(lambda group: _write_missing(root, group, render, encoder), groups):
            progress.advance(written)
    progress.finish()


class _Encoder:
    """Encodes raw frames into a folder as 000.mp4, 001.mp4, ..."""

    def __init__(self, side: int, frame_count: int) -> None:
        self._side = side
        self._frame_count = frame_count

    def encode(self, films: Iterable[np.ndarray], count: int, folder: Path) -> None:
        """Write ``count`` films; each starts with a key frame of its own."""
        done = subprocess.run(
            [*self._command(count), str(folder / "%03d.mp4")],
            input=b"".join(frames.tobytes() for frames in films),
            capture_output=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
        if done.returncode != 0 or len(list(folder.iterdir())) != count:
            raise DistInitError(
                "ffmpeg could not write the films",
                expected="an ffmpeg with the libx264 encoder",
                found=done.stderr.decode(errors="replace").strip()[-500:],
                remedy="unset DISTINIT_FFMPEG to use the bundled ffmpeg, or install one with "
                "libx264",
            )

    def _command(self, count: int) -> list[str]:
        """One thread and bit-exact flags, so that every run writes the same bytes."""
        frames = str(self._frame_count)
        cuts = ",".join(str(self._frame_count * number) for number in range(1, count + 1))
        return [
            *(str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{self._side}x{self._side}"),
            *("-r", str(_FPS), "-i", "-"),
            *("-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20"),
            *("-pix_fmt", "yuv420p", "-bf", "0", "-g", frames, "-keyint_min", frames),
            *("-sc_threshold", "0", "-threads", "1", "-map_metadata", "-1"),
            *("-fflags", "+bitexact", "-flags:v", "+bitexact"),
            *("-f", "segment", "-segment_format", "mp4", "-segment_frames", cuts),
            *("-reset_timestamps", "1"),
        ]


def _write_missing[FilmT](
    root: Path,
    films: Sequence[tuple[Path, FilmT]],
    render: Callable[[FilmT], np.ndarray],
    encoder: _Encoder,
) -> int:
    """Encode a group of films, and move the missing ones into place; returns their number."""
    missing = {number: path for number, (path, _) in enumerate(films) if not path.is_file()}
    if not missing:
        return 0
    with tempfile.TemporaryDirectory(prefix=_PARTIAL_PREFIX, dir=root) as folder:
        encoder.encode((render(film) for _, film in films), len(films), Path(folder))
        for number, path in missing.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = Path(folder) / f"{number:03d}.mp4"
            fsync_file(encoded)
            encoded.replace(path)
    return len(missing)
