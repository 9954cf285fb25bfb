"""Films of moving digits are complete, reproducible and written once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import decode_with_pyav

from distinit.pipeline.demo.digit_footage import make_digits
from distinit.pipeline.demo.digits import corpus_films, film_digit, labelled_films
from distinit.schemas.errors import DistInitError, StorageError

FILMS = (*corpus_films()[:3], *labelled_films("test")[:2])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    made = make_digits(folder, films=FILMS)
    assert (made.corpus, made.labelled) == (folder / "corpus", folder / "labelled")
    return folder


def test_each_film_has_its_frames_and_nothing_else_is_left(root: Path) -> None:
    written = sorted(str(path.relative_to(root)) for path in root.rglob("*.mp4"))
    assert written == sorted(film.path for film in FILMS)
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
    for film in FILMS:
        *_, frames_THWC = decode_with_pyav(root / film.path)
        decoded = frames_THWC.astype(float)
        drawn = film_digit(film).astype(float)
        assert decoded.shape == drawn.shape == (24, 64, 64, 3)
        assert np.abs(decoded - drawn).mean() < 8  # 8-bit levels: H.264 with subsampled colour


def test_films_json_describes_each_film(root: Path) -> None:
    films = json.loads((root / "films.json").read_text())["films"]
    assert list(films) == [film.path for film in FILMS]
    assert films[FILMS[-1].path]["motion"] == FILMS[-1].motion
    assert films[FILMS[-1].path]["scan"] == FILMS[-1].scan


def test_a_second_call_writes_only_missing_films_with_the_same_bytes(root: Path) -> None:
    kept, lost = root / FILMS[0].path, root / FILMS[1].path
    before, lost_bytes = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    make_digits(root, films=FILMS)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == lost_bytes


def test_films_of_another_recipe_are_replaced(tmp_path: Path) -> None:
    make_digits(tmp_path, films=FILMS[:1])
    good = (tmp_path / FILMS[0].path).read_bytes()
    (tmp_path / FILMS[0].path).write_bytes(b"of an older recipe")
    (tmp_path / "films.json").write_text("{}")
    make_digits(tmp_path, films=FILMS[:1])
    assert (tmp_path / FILMS[0].path).read_bytes() == good


def test_a_failing_ffmpeg_leaves_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = -version ] && { echo ffmpeg version 7.0; exit; }\nexit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(broken))
    with pytest.raises(DistInitError):
        make_digits(tmp_path / "films", films=FILMS[:1])
    assert list((tmp_path / "films").rglob("*.mp4")) == []


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="out"):
        make_digits(tmp_path / "out" / "films", films=FILMS[:1])
