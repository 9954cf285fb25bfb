"""Writes the films of moving digits.

ROOT/corpus/*.mp4                        the unlabelled films
ROOT/labelled/{train,test}/<class>/*.mp4 the labelled films; a class is <digit>_<motion>
ROOT/films.json                          the scan, photograph and motion of each film
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.demo.digits import (
    FILM_FRAMES,
    FRAME_SIDE,
    DigitFilm,
    corpus_films,
    film_digit,
    labelled_films,
)
from distinit.pipeline.demo.encode import prepare_folder, write_films
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import storage_errors

__all__ = ["DigitFootage", "make_digits"]


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
        entries = {film.path: dataclasses.asdict(film) for film in films}
        prepare_folder(root, "distinit-demo-digits", entries)
    write_films(
        root,
        [(root / film.path, film) for film in films],
        film_digit,
        side=FRAME_SIDE,
        frame_count=FILM_FRAMES,
        jobs=jobs,
        progress=progress,
    )
    return DigitFootage(root / "corpus", root / "labelled")
