"""A virtual camera over a photograph: pan, tilt, zoom and rotation with sub-pixel steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["CameraMove", "film_photo"]

OVERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class CameraMove:
    """A uniform motion of the camera. Units are pixels of the filmed picture.

    ``zoom_per_frame`` above 1 magnifies. Positive pan looks to the right, positive tilt down.
    """

    pan_pixels_per_frame: float = 0.0
    tilt_pixels_per_frame: float = 0.0
    zoom_per_frame: float = 1.0
    degrees_per_frame: float = 0.0


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

    The whole motion stays inside the photograph. ``tightness`` (0..1] is the filmed region's size
    relative to the largest that fits; ``place`` (0..1 each way) is where it lies.
    """
    affines = _window_affines(move, frames)
    extent_x, extent_y = _half_extents(affines, size)
    scale = tightness * min(photo.width / (2 * extent_x), photo.height / (2 * extent_y))
    scaled = _band_limited(photo.convert("RGB"), scale)
    width, height = scaled.width / OVERSAMPLING, scaled.height / OVERSAMPLING  # in film pixels
    centre_x = extent_x + place[0] * (width - 2 * extent_x)
    centre_y = extent_y + place[1] * (height - 2 * extent_y)
    pictures = [_look(scaled, affine, (centre_x, centre_y), size) for affine in affines]
    return np.stack([np.asarray(picture) for picture in pictures])


def _band_limited(photo: Image.Image, scale: float) -> Image.Image:
    """The photograph at ``OVERSAMPLING`` pixels a film pixel; ``scale``: photo pixels a film pixel.

    Sampling this bilinearly is smooth. (Pillow's bicubic transform would be sharper, but its
    kernel does not reproduce a slope: things wobble by .15 pixels as they pass pixel centres.)
    """
    size = [math.ceil(edge / scale) for edge in photo.size]
    film_sized = photo.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return film_sized.resize(
        (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), Image.Resampling.BICUBIC
    )


def _window_affines(move: CameraMove, frames: int) -> list[np.ndarray]:
    """Per frame a 2x3 matrix: offset from the film's centre -> offset from the window's centre."""
    affines = []
    for index in range(frames):
        step = index - (frames - 1) / 2
        angle = math.radians(move.degrees_per_frame * step)
        pixel = move.zoom_per_frame ** (-step)
        cos, sin = pixel * math.cos(angle), pixel * math.sin(angle)
        x, y = move.pan_pixels_per_frame * step, move.tilt_pixels_per_frame * step
        affines.append(np.array([[cos, -sin, x], [sin, cos, y]]))
    return affines


def _half_extents(affines: list[np.ndarray], size: tuple[int, int]) -> tuple[float, float]:
    """Half width and half height, in film pixels, of what all frames together cover."""
    corners = np.array(
        [[sx * size[0] / 2, sy * size[1] / 2, 1] for sx in (-1, 1) for sy in (-1, 1)]
    )
    covered = np.concatenate([corners @ affine.T for affine in affines])
    half_width, half_height = np.abs(covered).max(axis=0)
    return float(half_width), float(half_height)


def _look(
    photo: Image.Image, affine: np.ndarray, centre: tuple[float, float], size: tuple[int, int]
) -> Image.Image:
    """One frame: Pillow maps output to input coordinates, both from their top left corner."""
    (a, b, x), (d, e, y) = affine
    half_x, half_y = size[0] / 2, size[1] / 2
    corner_x = centre[0] + x - a * half_x - b * half_y
    corner_y = centre[1] + y - d * half_x - e * half_y
    film_coordinates = (a, b, corner_x, d, e, corner_y)
    coefficients = tuple(float(OVERSAMPLING * value) for value in film_coordinates)
    return photo.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
