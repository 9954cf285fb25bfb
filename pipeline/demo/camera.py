"""A virtual camera that moves over a photograph: pan, tilt, zoom and rotation in sub-pixel steps.

Two scales occur here: film pixels are pixels of the frames, and the photograph is resampled to
``OVERSAMPLING`` pixels per film pixel before it is filmed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["CameraMove", "film_photo"]

OVERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class CameraMove:
    """A uniform motion of the camera, and its shake, in film pixels.

    ``zoom_per_frame`` above 1 magnifies. Positive pan moves right, positive tilt moves down.
    """

    pan_pixels_per_frame: float = 0.0
    tilt_pixels_per_frame: float = 0.0
    zoom_per_frame: float = 1.0
    degrees_per_frame: float = 0.0
    shake: tuple[tuple[float, float], ...] = ()
    """Further offset (x, y) of each frame; empty: none."""


def film_photo(
    photo: Image.Image,
    move: CameraMove,
    frames: int,
    size: tuple[int, int],
    *,
    tightness: float = 1.0,
    place: tuple[float, float] = (0.5, 0.5),
) -> np.ndarray:
    """Film ``photo`` with ``frames`` frames of ``size`` (width, height): uint8 RGB [T, H, W, 3].

    The camera never leaves the photograph. ``tightness`` (0..1] is the size of the filmed region
    relative to the largest region that fits, and ``place`` (x, y), each 0..1, its position.
    """
    affines = _window_affines(move, frames)
    extent_x, extent_y = _half_extents(affines, size)
    scale = tightness * min(photo.width / (2 * extent_x), photo.height / (2 * extent_y))
    scaled = _band_limited(photo.convert("RGB"), scale)
    width, height = scaled.width / OVERSAMPLING, scaled.height / OVERSAMPLING  # in film pixels
    centre_x = extent_x + place[0] * (width - 2 * extent_x)
    centre_y = extent_y + place[1] * (height - 2 * extent_y)
    film = [_film_frame(scaled, affine, (centre_x, centre_y), size) for affine in affines]
    return np.stack([np.asarray(frame) for frame in film])


def _band_limited(photo: Image.Image, scale: float) -> Image.Image:
    """Resample ``photo`` to ``OVERSAMPLING`` pixels per film pixel.

    ``scale``: photo pixels per film pixel. Bilinear samples of the result move smoothly. (Pillow's
    bicubic transform would be sharper, but its kernel does not reproduce linear gradients: moving
    edges would wobble by 0.15 pixels.)
    """
    size = [math.ceil(edge / scale) for edge in photo.size]
    film_sized = photo.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return film_sized.resize(
        (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), Image.Resampling.BICUBIC
    )


def _window_affines(move: CameraMove, frames: int) -> list[np.ndarray]:
    """One 2x3 matrix per frame: offset from the frame's centre -> offset in the filmed region.

    Both are in film pixels; the latter is measured from the centre of the filmed region.
    """
    affines = []
    for index in range(frames):
        step = index - (frames - 1) / 2
        angle = math.radians(move.degrees_per_frame * step)
        pixel = move.zoom_per_frame ** (-step)
        cos, sin = pixel * math.cos(angle), pixel * math.sin(angle)
        shake_x, shake_y = move.shake[index] if move.shake else (0.0, 0.0)
        x = move.pan_pixels_per_frame * step + shake_x
        y = move.tilt_pixels_per_frame * step + shake_y
        affines.append(np.array([[cos, -sin, x], [sin, cos, y]]))
    return affines


def _half_extents(affines: list[np.ndarray], size: tuple[int, int]) -> tuple[float, float]:
    """Half the width and height of the region that all frames together cover, in film pixels."""
    corners = np.array(
        [[sx * size[0] / 2, sy * size[1] / 2, 1] for sx in (-1, 1) for sy in (-1, 1)]
    )
    covered = np.concatenate([corners @ affine.T for affine in affines])
    half_width, half_height = np.abs(covered).max(axis=0)
    return float(half_width), float(half_height)


def _film_frame(
    photo: Image.Image, affine: np.ndarray, centre: tuple[float, float], size: tuple[int, int]
) -> Image.Image:
    """Render one frame; Pillow maps output to input coordinates, both from the top left corner."""
    (a, b, x), (d, e, y) = affine
    half_x, half_y = size[0] / 2, size[1] / 2
    corner_x = centre[0] + x - a * half_x - b * half_y
    corner_y = centre[1] + y - d * half_x - e * half_y
    film_coordinates = (a, b, corner_x, d, e, corner_y)
    coefficients = tuple(float(OVERSAMPLING * value) for value in film_coordinates)
    return photo.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
