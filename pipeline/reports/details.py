"""What the audit's page shows of a teacher and ``audit.json`` does not contain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.audit.class_bins import ClassBins
from distinit.pipeline.audit.ribbons import Ribbon
from distinit.schemas.audit import FrameSample

__all__ = ["FramePicture", "PairPictures", "TeacherDetails", "VideoRibbon"]


@dataclass(frozen=True, slots=True)
class FramePicture:
    """A frame with its pixels."""

    sample: FrameSample
    jpeg: bytes
    top: tuple[tuple[str, float], ...] = ()
    """The most probable classes, with their probabilities, in descending order."""
    other: tuple[tuple[str, float], ...] = ()
    """The same of a second teacher, where two are compared."""
    note: str = ""
    """Why the frame is shown, if its numbers do not say so."""


@dataclass(frozen=True, slots=True)
class VideoRibbon:
    """One video over time."""

    path: str
    frames: int
    mean_nats: float
    spread_nats: float
    ribbon: Ribbon
    cuts: Sequence[int] = ()
    """Indices of the frames that begin a scene."""
    pictures: Sequence[FramePicture] = ()


@dataclass(frozen=True, slots=True)
class TeacherDetails:
    """One teacher that stores logits."""

    class_names: Sequence[str]
    class_frames_C: NDArray[np.int64]
    class_mean_nats_C: NDArray[np.float64]
    """NaN for classes without frames."""
    classes: ClassBins
    ribbons: Sequence[VideoRibbon] = ()
    ribbons_left_out: int = 0
    """Videos that the page does not show over time."""
    near: Sequence[FramePicture] = ()
    """Frames all over the range of entropies, ascending: those round a threshold are shown."""
    most_confident: Sequence[FramePicture] = ()
    least_confident: Sequence[FramePicture] = ()
    outliers: Sequence[FramePicture] = ()


@dataclass(frozen=True, slots=True)
class PairPictures:
    """Frames that only one of two teachers is sure of."""

    only_first: Sequence[FramePicture] = ()
    only_second: Sequence[FramePicture] = ()
