"""Python and ffmpeg compute the same sizes of views."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.video import View
from distinit.schemas.errors import ConfigError
from distinit.schemas.frames import FrameGeometry

pixels = st.integers(1, 5000)


@given(width=pixels, height=pixels, size=st.integers(16, 512))
def test_short_edge_is_the_frame_stores_geometry(width: int, height: int, size: int) -> None:
    geometry = FrameGeometry(mode="short_edge", short_edge=size)
    assert View.short_edge(size).size_for(width, height) == geometry.size_for(width, height)
    assert min(View.short_edge(size).size_for(width, height)) == size


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (641, 256, 128, (128, 320)),  # 320.5
        (256, 641, 128, (320, 128)),
        (640, 480, 128, (128, 170)),  # 170.67
        (480, 480, 128, (128, 128)),
        (49, 7, 7, (7, 49)),
        (1920, 1080, 160, (160, 284)),
        (1, 1, 32, (32, 32)),
        (333, 777, 77, (179, 77)),
    ],
)
def test_ffmpeg_makes_the_size_that_python_expects(
    ffmpeg_exe: str, width: int, height: int, size: int, expected: tuple[int, int]
) -> None:
    view = View.short_edge(size)
    assert view.size_for(width, height) == expected
    source = f"color=s={width}x{height}:d=0.1:r=10"
    argv = [ffmpeg_exe, "-v", "error", "-nostdin", "-f", "lavfi", "-i", source]
    argv += ["-vf", view.filters(), "-f", "rawvideo", "pipe:1"]
    made = subprocess.run(argv, check=True, capture_output=True).stdout
    assert len(made) == expected[0] * expected[1] * 3


def test_views_have_the_expected_sizes() -> None:
    assert View.source().size_for(641, 256) == (256, 641)
    assert View.squash(128, 171).size_for(641, 256) == (128, 171)
    assert View.squash(8, 9) != View.squash(8, 9, flags="area")


@pytest.mark.parametrize("flags", ["", "bilinear,format=gray", "area'", "a:b"])
def test_flags_cannot_add_filters(flags: str) -> None:
    with pytest.raises(ConfigError, match="not a scaler"):
        View.squash(8, 8, flags=flags)


def test_a_view_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel"):
        View.short_edge(0)
