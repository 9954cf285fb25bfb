"""The virtual camera moves as requested, without jitter, and never leaves the photograph."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from distinit.pipeline.demo.camera import CameraMove, film_photo

SIZE = (64, 48)


@pytest.fixture
def textured_photo() -> Image.Image:
    y, x = np.mgrid[0:150, 0:200]
    waves = [127 + 60 * np.sin(x / a) + 60 * np.cos(y / b) for a, b in ((5, 7), (9, 4), (3, 11))]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


@pytest.fixture
def disk_photo() -> Image.Image:
    photo = Image.new("RGB", (400, 300), "black")
    ImageDraw.Draw(photo).ellipse((170, 120, 230, 180), fill=(180, 180, 180))
    return photo.filter(ImageFilter.GaussianBlur(12))  # resampling a hard edge would ring and clip


def test_film_is_uint8_rgb_of_the_requested_shape(textured_photo: Image.Image) -> None:
    film = film_photo(textured_photo.convert("L"), CameraMove(), 5, SIZE)
    assert film.shape == (5, 48, 64, 3)
    assert film.dtype == np.uint8
    assert (film == film[0]).all()  # no motion: all frames are equal


def test_pan_to_the_right_moves_the_content_left(textured_photo: Image.Image) -> None:
    film = film_photo(textured_photo, CameraMove(pan_pixels_per_frame=3), 4, SIZE)
    for frame, next_frame in pairwise(film):
        np.testing.assert_array_equal(next_frame[:, :-3], frame[:, 3:])


def test_tilt_down_moves_the_content_up(textured_photo: Image.Image) -> None:
    film = film_photo(textured_photo, CameraMove(tilt_pixels_per_frame=2), 4, SIZE)
    for frame, next_frame in pairwise(film):
        np.testing.assert_array_equal(next_frame[:-2], frame[2:])


def test_sub_pixel_pan_is_uniform(disk_photo: Image.Image) -> None:
    film = film_photo(disk_photo, CameraMove(pan_pixels_per_frame=0.3), 21, SIZE)
    weight = film[..., 0].astype(float)
    centre_x = (weight * np.arange(64)).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    np.testing.assert_allclose(np.diff(centre_x), -0.3, atol=0.02)


@pytest.mark.parametrize("zoom", [1.03, 1 / 1.03])
def test_zoom_scales_areas_by_its_square(disk_photo: Image.Image, zoom: float) -> None:
    film = film_photo(disk_photo, CameraMove(zoom_per_frame=zoom), 13, SIZE)
    area = film[..., 0].astype(float).sum(axis=(1, 2))
    assert area[-1] / area[0] == pytest.approx(zoom ** (2 * 12), rel=0.03)


def test_rotation_turns_by_the_angle(textured_photo: Image.Image) -> None:
    square = (48, 48)
    film = film_photo(textured_photo, CameraMove(degrees_per_frame=90), 2, square)
    np.testing.assert_allclose(film[1].astype(int), np.rot90(film[0], 1), atol=1)


@settings(max_examples=40, deadline=None)
@given(
    pan=st.floats(-4, 4),
    tilt=st.floats(-4, 4),
    zoom=st.floats(0.97, 1.03),
    degrees=st.floats(-4, 4),
    tightness=st.floats(0.4, 1),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    photo_size=st.tuples(st.integers(90, 300), st.integers(90, 300)),
)
def test_the_camera_never_leaves_the_photograph(
    pan: float,
    tilt: float,
    zoom: float,
    degrees: float,
    tightness: float,
    place: tuple[float, float],
    photo_size: tuple[int, int],
) -> None:
    white = Image.new("RGB", photo_size, "white")
    film = film_photo(
        white, CameraMove(pan, tilt, zoom, degrees), 9, SIZE, tightness=tightness, place=place
    )
    assert film.min() == 255  # outside of the photograph, Pillow fills with black
