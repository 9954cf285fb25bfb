"""Moving digits: handwritten digits that move in front of photographs, as stills and as films.

The digits are scikit-learn's ``load_digits`` (1,797 scans of 8 x 8 pixels), the photographs those
of scikit-image. A film's class is (digit, motion): one frame shows the digit but not the motion,
as in videos of people and actions.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from distinit.pipeline.demo.recipe import TEST_PHOTOS, TRAIN_PHOTOS
from distinit.pipeline.demo.sources import DIGITS, PHOTOS, packaged_file

__all__ = [
    "DIGIT_MOTIONS",
    "FRAME_SIDE",
    "DigitFilm",
    "Pose",
    "corpus_films",
    "film_digit",
    "labelled_films",
    "pool",
    "stills",
]

FRAME_SIDE = 64
"""Width and height of frames, pixels."""
FILM_FRAMES = 24
DIGIT_MOTIONS = ("down", "grow", "shrink", "spin", "up")
"""None of them changes into another when a clip is flipped horizontally."""

_SCAN_SIDE, _SCAN_LEVELS = 8, 16
_INK_SIDE = 32  # side of the enlarged scan; at scale 1 it is drawn in this size, pixels
_POOLS = {"teacher": 60, "corpus": 70, "train": 6, "test": 8, "held_out": 20}
"""Scans per digit and pool. The pools are disjoint, and no scan is used twice in a pool."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a digit is drawn: its centre and its scale, and its rotation."""

    x: float
    """Pixels from the left edge of the frame."""
    y: float
    """Pixels from the top edge of the frame."""
    scale: float
    degrees: float


@dataclass(frozen=True, slots=True)
class DigitFilm:
    """A film of one scan: its path, class, background and random seed."""

    path: str
    scan: int
    """Position of the scan in ``load_digits``."""
    label: int
    motion: str
    photo: str
    seed: int


@cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """(ink 0..1 float32 [1797, 8, 8], labels int64 [1797])."""
    with gzip.open(packaged_file(DIGITS), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    ink = table[:, :-1].reshape(-1, _SCAN_SIDE, _SCAN_SIDE) / _SCAN_LEVELS
    return ink, table[:, -1].astype(np.int64)


@cache
def _pools() -> dict[str, tuple[tuple[int, int], ...]]:
    """Pool -> (scan, label) pairs, sorted by label; the same in every call."""
    _, labels = _scans()
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in _POOLS}
    for label in range(10):
        scans = rng.permutation(np.flatnonzero(labels == label)).tolist()
        for name, count in _POOLS.items():
            found[name] += [(scan, label) for scan in scans[:count]]
            scans = scans[count:]
    return {name: tuple(pairs) for name, pairs in found.items()}


def pool(name: str) -> tuple[tuple[int, int], ...]:
    """The (scan, label) pairs of a pool: teacher, corpus, train, test or held_out."""
    return _pools()[name]


def corpus_films() -> tuple[DigitFilm, ...]:
    """The unlabelled films: one per scan of the corpus pool, with a random motion."""
    rng = np.random.default_rng(1)
    films = []
    for number, (scan, label) in enumerate(pool("corpus")):
        motion = DIGIT_MOTIONS[int(rng.integers(len(DIGIT_MOTIONS)))]
        photo = TRAIN_PHOTOS[int(rng.integers(len(TRAIN_PHOTOS)))]
        films.append(
            DigitFilm(f"corpus/{number:04d}.mp4", scan, label, motion, photo, 10_000 + number)
        )
    return tuple(films)


def labelled_films(split: str) -> tuple[DigitFilm, ...]:
    """The films of a split (train or test): each scan of its pool with every motion."""
    photos = TEST_PHOTOS if split == "test" else TRAIN_PHOTOS
    rng = np.random.default_rng(2 if split == "test" else 3)
    films: list[DigitFilm] = []
    for number, (scan, label) in enumerate(pool(split)):
        for motion in DIGIT_MOTIONS:
            photo = photos[int(rng.integers(len(photos)))]
            path = f"labelled/{split}/{label}_{motion}/{number:03d}.mp4"
            seed = (20_000 if split == "test" else 30_000) + len(films)
            films.append(DigitFilm(path, scan, label, motion, photo, seed))
    return tuple(films)


def film_digit(film: DigitFilm) -> np.ndarray:
    """uint8 RGB [T, H, W, 3]: the digit moves in front of a still part of the photograph."""
    rng = np.random.default_rng(film.seed)
    background = _background(film.photo, rng)
    ink, colour = _enlarged(film.scan), _ink_colour(rng)
    poses = _poses(film.motion, rng)
    return np.stack([_draw(background, ink, colour, pose) for pose in poses])


def stills(name: str, per_scan: int, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """(frame uint8 RGB [H, W, 3], label): each scan of a pool in ``per_scan`` random poses."""
    rng = np.random.default_rng(seed)
    for scan, label in pool(name):
        for _ in range(per_scan):
            photo = TRAIN_PHOTOS[int(rng.integers(len(TRAIN_PHOTOS)))]
            background = _background(photo, rng)
            pose = Pose(
                x=rng.uniform(18, 46),
                y=rng.uniform(14, 50),
                scale=rng.uniform(0.6, 1.5),
                degrees=rng.uniform(-30, 30),
            )
            yield _draw(background, _enlarged(scan), _ink_colour(rng), pose), label


def _poses(motion: str, rng: np.random.Generator) -> list[Pose]:
    """One pose per frame. All motions share the distribution of the middle pose."""
    x, y = rng.uniform(22, 42), rng.uniform(26, 38)
    scale, degrees = rng.uniform(0.85, 1.15), rng.uniform(-15, 15)
    speed = rng.uniform(0.7, 1.3) * (1 if rng.random() < 0.5 else -1)
    poses = []
    for index in range(FILM_FRAMES):
        step = index - (FILM_FRAMES - 1) / 2
        shift = abs(speed) * step
        if motion in ("up", "down"):
            poses.append(Pose(x, y + shift * (1 if motion == "down" else -1), scale, degrees))
        elif motion in ("grow", "shrink"):
            rate = 0.035 * shift * (1 if motion == "grow" else -1)
            poses.append(Pose(x, y, scale * math.exp(rate), degrees))
        else:
            poses.append(Pose(x, y, scale, degrees + 3.0 * speed * step))
    return poses


@cache
def _photo(name: str) -> Image.Image:
    """The photograph, scaled so that its shorter edge is twice the side of a frame."""
    with Image.open(packaged_file(PHOTOS[name])) as photo:
        rgb = photo.convert("RGB")
    factor = 2 * FRAME_SIDE / min(rgb.size)
    return rgb.resize((round(rgb.width * factor), round(rgb.height * factor)))


def _background(name: str, rng: np.random.Generator) -> np.ndarray:
    """float32 RGB [H, W, 3], 0..255: a random part of the photograph, darkened."""
    photo = _photo(name)
    x = int(rng.integers(photo.width - FRAME_SIDE + 1))
    y = int(rng.integers(photo.height - FRAME_SIDE + 1))
    part = photo.crop((x, y, x + FRAME_SIDE, y + FRAME_SIDE))
    return np.asarray(part, np.float32) * rng.uniform(0.4, 0.7)


def _ink_colour(rng: np.random.Generator) -> np.ndarray:
    """float32 [3], 0..255: bright, and tinted."""
    return rng.uniform(170, 255, size=3).astype(np.float32)


@cache
def _enlarged(scan: int) -> Image.Image:
    """The ink of a scan, 32 x 32 pixels, 8 bits."""
    ink, _ = _scans()
    small = Image.fromarray((ink[scan] * 255).round().astype(np.uint8))
    return small.resize((_INK_SIDE, _INK_SIDE), Image.Resampling.BICUBIC)


def _draw(background: np.ndarray, ink: Image.Image, colour: np.ndarray, pose: Pose) -> np.ndarray:
    """uint8 RGB [H, W, 3]: the ink over the background."""
    angle = math.radians(pose.degrees)
    cos, sin = math.cos(angle) / pose.scale, math.sin(angle) / pose.scale
    half = _INK_SIDE / 2
    # Pillow maps output to input coordinates.
    affine = (
        *(cos, sin, half - cos * pose.x - sin * pose.y),
        *(-sin, cos, half + sin * pose.x - cos * pose.y),
    )
    size = (FRAME_SIDE, FRAME_SIDE)
    placed = ink.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    alpha_HW1 = np.asarray(placed, np.float32)[:, :, None] / 255
    return (background * (1 - alpha_HW1) + colour * alpha_HW1).round().astype(np.uint8)
