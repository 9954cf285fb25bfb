"""The films of the moving pictures experiment: their pools, labels and motions."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from moving_pictures import (
    FRAMES,
    MOTIONS,
    SIDE,
    Film,
    films_of,
    find_pools,
    main,
    make_films,
    move_of,
    render,
)
from PIL import Image

from distinit.pipeline.progress import NullProgress
from distinit.pipeline.video.probe import probe_video
from distinit.schemas.errors import DatasetError
from distinit.schemas.video import DecodeConfig

OBJECTS = ("cat", "dog")


def photographs(root: Path, per_object: dict[str, int]) -> Path:
    """``per_object``: subset (. for none) -> number of photographs of each object."""
    generator = np.random.default_rng(0)
    for subset, count in per_object.items():
        for name in OBJECTS:
            folder = root / subset / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
                picture = Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)
                picture.save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize("layout", [{"train": 5, "val": 3}, {".": 10}])
def test_the_three_sets_share_no_photograph(tmp_path: Path, layout: dict[str, int]) -> None:
    root = photographs(tmp_path, layout)
    pools = find_pools(root, per_object=2, unlabelled=None, seed=0)
    names = [photo.name for pool in (pools.corpus, pools.train, pools.test) for photo in pool]
    assert sorted(names) == sorted(str(p.relative_to(root)) for p in root.rglob("*.png"))
    assert Counter(photo.label for photo in pools.train) == {"cat": 2, "dog": 2}
    assert len(pools.test) == (6 if "val" in layout else 4)


def test_every_labelled_photograph_has_every_motion_and_a_test_one_has_one(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"train": 5, "val": 3})
    pools = find_pools(root, per_object=2, unlabelled=4, seed=0)
    films = films_of(pools, seed=0)
    train = Counter(film.path.split("/")[2] for film in films if "/train/" in film.path)
    assert train == {f"{name}_{motion}": 2 for name in OBJECTS for motion in MOTIONS}
    assert [f.motion for f in films if "/test/" in f.path] == list(MOTIONS)
    assert sum(film.path.startswith("corpus/") for film in films) == 4
    assert len({film.path for film in films}) == len({film.seed for film in films}) == len(films)


def test_too_few_photographs_are_refused(tmp_path: Path) -> None:
    root = photographs(tmp_path, {"train": 5, "val": 3})
    with pytest.raises(DatasetError, match="too few photographs"):
        find_pools(root, per_object=5, unlabelled=None, seed=0)


def centre_x(frame_HWC: np.ndarray) -> float:
    """Where the brightness of a frame is centred, pixels from its left edge."""
    return float(np.average(np.arange(SIDE), weights=frame_HWC.sum(axis=(0, 2))))


@pytest.mark.parametrize(("motion", "direction"), [("pan_left", 1), ("pan_right", -1)])
def test_a_pan_moves_the_picture_the_other_way(tmp_path: Path, motion: str, direction: int) -> None:
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[:, 46:50] = 255
    Image.fromarray(picture).save(tmp_path / "bar.png")
    frames_NHWC = render(tmp_path, Film("a.mp4", "bar.png", motion, seed=1))
    assert frames_NHWC.shape == (FRAMES, SIDE, SIDE, 3)
    middle = FRAMES // 2  # the bar may leave the frame at the ends
    moved = centre_x(frames_NHWC[middle + 2]) - centre_x(frames_NHWC[middle - 2])
    assert 4 * 1.5 * 0.7 < direction * moved < 4 * 1.5 * 1.3


def test_zooms_rotations_and_shakes_are_what_their_names_say() -> None:
    rng = random.Random(0)
    assert move_of("zoom_in", rng).zoom_per_frame > 1 > move_of("zoom_out", rng).zoom_per_frame
    assert abs(move_of("rotate", rng).degrees_per_frame) >= 2.25
    shake = move_of("shake", rng)
    assert len(shake.shake) == FRAMES
    assert len(set(shake.shake)) == FRAMES


def test_the_command_writes_the_films_and_a_second_call_keeps_them(tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos", {"train": 2, "val": 1})
    out = tmp_path / "data"
    arguments = ["--photographs", str(root), "--out", str(out), "--per-object", "1", "--quiet"]
    done = CliRunner().invoke(main, arguments)
    assert done.output == f"{out}: 2 unlabelled films, 12 training and 2 test films\n"
    films = sorted(out.rglob("*.mp4"))
    assert len(films) == 16
    probed = probe_video(films[0], DecodeConfig())
    assert (probed.width, probed.height) == (SIDE, SIDE)
    before = {film: film.stat().st_mtime_ns for film in films}
    films[3].unlink()
    make_films(root, out, per_object=1, progress=NullProgress())
    after = {film: film.stat().st_mtime_ns for film in sorted(out.rglob("*.mp4"))}
    assert {film for film in films if before[film] != after[film]} == {films[3]}
