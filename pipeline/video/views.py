"""The sizes at which ffmpeg delivers each frame: full size, or scaled while decoding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import shown

__all__ = ["View"]

_FLAGS = re.compile(r"[a-z_]+(\+[a-z_]+)*")


@dataclass(frozen=True, slots=True)
class View:
    """How every frame of a video is delivered: as an RGB image, uint8 [height, width, 3].

    Create one with ``View.source()``, ``View.squash(...)`` or ``View.short_edge(...)``. ``flags``
    is swscale's ``sws_flags``. It affects the pixels, so views with different flags are different
    views. Raises ConfigError for malformed flags or a size below 1 pixel.
    """

    mode: Literal["source", "squash", "short_edge"]
    height: int = 0
    width: int = 0
    flags: str = "bilinear"

    def __post_init__(self) -> None:
        if not _FLAGS.fullmatch(self.flags):
            raise ConfigError(
                "not a scaler", expected="swscale flags such as bilinear", found=shown(self.flags)
            )
        if self.mode != "source" and min(self.height, self.width) < 1:
            raise ConfigError(
                "a view needs a size of at least 1 pixel", found=f"{self.width}x{self.height}"
            )

    @classmethod
    def source(cls) -> View:
        """The frame as it is displayed: full size, rotated as its metadata says.

        ``bilinear`` affects only the chroma planes. With it, swscale computes the same as PyAV's
        ``frame.to_ndarray(format="rgb24")``: the pixels of 8-bit sources are bit-equal.
        """
        return cls("source")

    @classmethod
    def squash(cls, height: int, width: int, flags: str = "bilinear") -> View:
        """``height`` x ``width`` pixels, whatever the aspect ratio of the source."""
        return cls("squash", height, width, flags)

    @classmethod
    def short_edge(cls, size: int, flags: str = "bilinear") -> View:
        """The shorter edge becomes ``size`` pixels; the longer one is rounded down."""
        return cls("short_edge", size, size, flags)

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) at which a frame that is displayed as width x height is delivered."""
        if self.mode == "source":
            return height, width
        if self.mode == "squash":
            return self.height, self.width
        if width <= height:
            return int(self.height * height / width), self.height
        return self.height, int(self.height * width / height)

    def filters(self) -> str:
        """The ffmpeg filters that scale a (rotated) frame to this view."""
        if self.mode == "source":
            return f"scale=flags={self.flags},format=rgb24"
        if self.mode == "squash":
            return f"scale=w={self.width}:h={self.height}:flags={self.flags},format=rgb24"
        # Must equal size_for() to the pixel; otherwise all frames would be read misaligned.
        width = f"if(lte(iw,ih),{self.height},floor({self.height}*iw/ih))"
        height = f"if(lte(iw,ih),floor({self.height}*ih/iw),{self.height})"
        return f"scale=w='{width}':h='{height}':flags={self.flags},format=rgb24"
