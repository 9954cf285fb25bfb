"""Makes the films of the "moving pictures" experiment from a folder of labelled photographs.

    python benchmarks/moving_pictures.py --photographs photos --out data

A film shows a photograph through a moving window: it pans left or right, zooms in or out, rotates
or shakes. The label of a film is (object, motion), so that one frame shows the object but not the
motion. No photograph is used in two of the three sets:

    OUT/corpus/*.mp4                            unlabelled films, one per photograph
    OUT/labelled/train/<object>_<motion>/*.mp4  --per-object photographs, each with every motion
    OUT/labelled/test/<object>_<motion>/*.mp4   one film per photograph

PHOTOGRAPHS holds one folder per object, below train/ and val/ (or test/). Without these, a fifth
of the photographs of each object is used for the test set. Rerun the same command to resume.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from distinit.pipeline.demo.camera import CameraMove, film_photo
from distinit.pipeline.demo.encode import prepare_folder, write_films
from distinit.pipeline.progress import NullProgress, Progress, choose_progress
from distinit.schemas.errors import DatasetError, DistInitError

SIDE = 64
"""Width and height of the films, pixels."""
FRAMES = 16
MOTIONS = ("pan_left", "pan_right", "zoom_in", "zoom_out", "rotate", "shake")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True, slots=True)
class Photograph:
    """A labelled photograph. ``name`` is its path relative to the folder of photographs."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Film:
    """A film of one photograph: its path below OUT, its motion, and the seed of its details."""

    path: str
    photograph: str
    motion: str
    seed: int


@dataclass(frozen=True, slots=True)
class Pools:
    """Photographs of the three sets; they share none."""

    corpus: list[Photograph]
    train: list[Photograph]
    test: list[Photograph]


def find_pools(root: Path, *, per_object: int, unlabelled: int | None, seed: int) -> Pools:
    """Divide the photographs. ``per_object`` are labelled, ``unlabelled`` (None: all) are not.

    Raises DatasetError if there are too few.
    """
    rng = random.Random(seed)
    test_root = next((root / n for n in ("val", "test") if (root / n).is_dir()), None)
    if test_root is not None and (root / "train").is_dir():
        by_object = _list_objects(root, root / "train")
        test = [p for photos in _list_objects(root, test_root).values() for p in photos]
        for photos in by_object.values():
            rng.shuffle(photos)
    else:
        by_object, test = _list_objects(root, root), []
        for photos in by_object.values():
            rng.shuffle(photos)
            test += [photos.pop() for _ in range(len(photos) // 5)]
    smallest = min((len(photos) for photos in by_object.values()), default=0)
    if smallest <= per_object or not test:
        raise DatasetError(
            f"{root} has too few photographs",
            expected=f"folders of objects, each with more than {per_object} photographs",
            found=f"{len(by_object)} objects, the smallest with {smallest} training photographs",
            remedy="name another folder, or lower --per-object",
        )
    train = [p for photos in by_object.values() for p in photos[:per_object]]
    corpus = [p for photos in by_object.values() for p in photos[per_object:]]
    rng.shuffle(corpus)
    return Pools(sorted(corpus[:unlabelled], key=lambda p: p.name), train, test)


def _list_objects(root: Path, folder: Path) -> dict[str, list[Photograph]]:
    """Photographs by object, both in the order of their names."""
    return {
        objects.name: [
            Photograph(str(file.relative_to(root)), objects.name)
            for file in sorted(objects.iterdir())
            if file.suffix.lower() in SUFFIXES
        ]
        for objects in sorted(folder.iterdir())
        if objects.is_dir()
    }


def films_of(pools: Pools, seed: int) -> list[Film]:
    """Every film, in the order in which they are encoded."""
    films = list(_labelled(pools.train, "train", MOTIONS))
    for number, photo in enumerate(pools.test):
        motion = MOTIONS[number % len(MOTIONS)]
        films += _labelled([photo], "test", (motion,))
    films += [
        Film(f"corpus/{_stem(photo)}.mp4", photo.name, MOTIONS[number % len(MOTIONS)], number)
        for number, photo in enumerate(pools.corpus)
    ]
    return [dataclasses.replace(film, seed=seed + n) for n, film in enumerate(films)]


def _labelled(photos: Sequence[Photograph], subset: str, motions: Sequence[str]) -> Iterator[Film]:
    for photo in photos:
        for motion in motions:
            path = f"labelled/{subset}/{photo.label}_{motion}/{_stem(photo)}.mp4"
            yield Film(path, photo.name, motion, 0)


def _stem(photo: Photograph) -> str:
    return Path(photo.name).with_suffix("").as_posix().replace("/", "-")


def move_of(motion: str, rng: random.Random) -> CameraMove:
    """A camera movement of this kind, up to a quarter slower or faster than usual."""
    speed = rng.uniform(0.75, 1.25)
    turn = rng.choice((-1, 1))
    moves = {
        "pan_left": CameraMove(pan_pixels_per_frame=-1.5 * speed),
        "pan_right": CameraMove(pan_pixels_per_frame=1.5 * speed),
        "zoom_in": CameraMove(zoom_per_frame=math.exp(0.03 * speed)),
        "zoom_out": CameraMove(zoom_per_frame=math.exp(-0.03 * speed)),
        "rotate": CameraMove(degrees_per_frame=3 * turn * speed),
    }
    if motion != "shake":
        return moves[motion]
    reach = 4 * speed
    offsets = [(rng.uniform(-reach, reach), rng.uniform(-reach, reach)) for _ in range(FRAMES)]
    return CameraMove(shake=tuple(offsets))


def render(root: Path, film: Film) -> np.ndarray:
    """The frames of a film: uint8 RGB [FRAMES, SIDE, SIDE, 3]."""
    rng = random.Random(film.seed)
    move = move_of(film.motion, rng)
    tightness, place = rng.uniform(0.8, 1.0), (rng.random(), rng.random())
    with Image.open(root / film.photograph) as photo:
        return film_photo(photo, move, FRAMES, (SIDE, SIDE), tightness=tightness, place=place)


def make_films(
    photographs: Path,
    out: Path,
    *,
    per_object: int = 20,
    unlabelled: int | None = None,
    seed: int = 0,
    progress: Progress,
) -> Pools:
    """Write all films below ``out`` that do not exist yet; returns the photographs used.

    Raises DatasetError as ``find_pools``, DistInitError if ffmpeg fails.
    """
    pools = find_pools(photographs, per_object=per_object, unlabelled=unlabelled, seed=seed)
    films = films_of(pools, seed)
    prepare_folder(
        out, "distinit-moving-pictures", {film.path: dataclasses.asdict(film) for film in films}
    )
    write_films(
        out,
        [(out / film.path, film) for film in films],
        lambda film: render(photographs, film),
        side=SIDE,
        frame_count=FRAMES,
        jobs=2,
        progress=progress,
    )
    return pools


@click.command(help=__doc__)
@click.option(
    "--photographs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder with one folder of photographs per object.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Output folder.")
@click.option(
    "--per-object", default=20, show_default=True, help="Labelled photographs per object."
)
@click.option("--unlabelled", type=int, help="Unlabelled photographs. Default: all others.")
@click.option("--seed", default=0, show_default=True, help="Seed of the pools and motions.")
@click.option("--quiet", is_flag=True, help="Print no progress.")
def main(
    photographs: Path, out: Path, per_object: int, unlabelled: int | None, seed: int, quiet: bool
) -> None:
    progress = NullProgress() if quiet else choose_progress()
    try:
        pools = make_films(
            photographs,
            out,
            per_object=per_object,
            unlabelled=unlabelled,
            seed=seed,
            progress=progress,
        )
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{out}: {len(pools.corpus)} unlabelled films, {len(pools.train) * len(MOTIONS)} training "
        f"and {len(pools.test)} test films"
    )


if __name__ == "__main__":
    main()
