"""Writes the films of moving digits.

ROOT/corpus/*.mp4                        the unlabelled films
ROOT/labelled/{train,test}/<class>/*.mp4 the labelled films; a class is <digit>_<motion>
ROOT/films.json                          the scan, photograph and motion of each film
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

from distinit.pipeline.demo.digits import (
    FILM_FRAMES,
    FRAME_SIDE,
    DigitFilm,
    corpus_films,
    film_digit,
    labelled_films,
)
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import atomic_write_bytes, fsync_file, storage_errors
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.errors import DistInitError

__all__ = ["DigitFootage", "make_digits"]

_FPS = 25
_FILMS_PER_PROCESS = 100
"""Starting an ffmpeg takes longer than encoding one film. The bytes of a film depend on what the
same process encoded before it, so that these groups are the same in every run."""
_DEADLINE_SECONDS = 120
_PREFIX = ".digits-"
# One thread and bit-exact flags, so that every run writes the same bytes: the same video ids.
_H264 = (
    *("-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"),
    *("-bf", "0", "-g", str(FILM_FRAMES), "-keyint_min", str(FILM_FRAMES), "-sc_threshold", "0"),
    *("-threads", "1", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"),
)


@dataclass(frozen=True, slots=True)
class DigitFootage:
    """The folders of the unlabelled and the labelled films."""

    corpus: Path
    labelled: Path


def make_digits(
    root: Path,
    *,
    films: Sequence[DigitFilm] | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
) -> DigitFootage:
    """Write ``films`` (default: all) below ``root``, unless they exist.

    Raises DistInitError if a package with digits or photographs is missing or if ffmpeg fails,
    StorageError if ``root`` cannot be written.
    """
    if films is None:
        films = (*corpus_films(), *labelled_films("train"), *labelled_films("test"))
    progress = progress or NullProgress()
    with storage_errors(root):
        _prepare(root, films)
    present = sum((root / film.path).is_file() for film in films)
    progress.start("digits", len(films), "films", done=present)
    with ThreadPoolExecutor(jobs) as pool:
        parts = batched(films, _FILMS_PER_PROCESS)
        for written in pool.map(lambda part: _write_missing(root, part), parts):
            progress.advance(written)
    progress.finish()
    return DigitFootage(root / "corpus", root / "labelled")


def _prepare(root: Path, films: Sequence[DigitFilm]) -> None:
    """Write films.json, after removing films that another recipe wrote under the same names."""
    entries = {film.path: dataclasses.asdict(film) for film in films}
    listing = json.dumps({"format": "distinit-demo-digits", "films": entries}, indent=1) + "\n"
    for leftover in root.glob(f"{_PREFIX}*"):  # of a killed run
        shutil.rmtree(leftover, ignore_errors=True)
    file = root / "films.json"
    if file.is_file() and file.read_text() == listing:
        return
    for film in films:
        (root / film.path).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(file, listing.encode())


def _write_missing(root: Path, films: tuple[DigitFilm, ...]) -> int:
    """Encode ``films`` with one ffmpeg, and move the missing ones into place; their number."""
    missing = {n: film for n, film in enumerate(films) if not (root / film.path).is_file()}
    if not missing:
        return 0
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as folder:
        _encode(films, Path(folder))
        for number, film in missing.items():
            path = root / film.path
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = Path(folder) / f"{number:03d}.mp4"
            fsync_file(encoded)
            encoded.replace(path)
    return len(missing)


def _encode(films: Sequence[DigitFilm], folder: Path) -> None:
    """Write films as 000.mp4, 001.mp4, ... Each starts with a key frame of its own."""
    cuts = ",".join(str(FILM_FRAMES * number) for number in range(1, len(films) + 1))
    command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{FRAME_SIDE}x{FRAME_SIDE}"]
    command += ["-r", str(_FPS), "-i", "-", *_H264, "-f", "segment", "-segment_format", "mp4"]
    command += ["-segment_frames", cuts, "-reset_timestamps", "1"]
    done = subprocess.run(
        [*command, str(folder / "%03d.mp4")],
        input=b"".join(_raw(films)),
        capture_output=True,
        timeout=_DEADLINE_SECONDS,
        check=False,
    )
    if done.returncode != 0 or len(list(folder.iterdir())) != len(films):
        raise DistInitError(
            "ffmpeg could not write the films of moving digits",
            expected="an ffmpeg with the libx264 encoder",
            found=done.stderr.decode(errors="replace").strip()[-500:],
            remedy="unset DISTINIT_FFMPEG to use the bundled ffmpeg, or install one with libx264",
        )


def _raw(films: Sequence[DigitFilm]) -> Iterator[bytes]:
    for film in films:
        yield film_digit(film).tobytes()
