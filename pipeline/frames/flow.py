"""Optical flow between frames, and its encoding as 8-bit levels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from distinit.schemas.errors import ConfigError
from distinit.schemas.frames import FlowSpec

__all__ = [
    "ZERO_LEVEL",
    "farneback",
    "flow_step",
    "import_opencv",
    "levels_of_flow",
    "opencv_version",
]

ZERO_LEVEL = 128
_STEPS = 127  # on either side of zero, so that opposite motions have exactly opposite levels


def import_opencv() -> Any:
    """Import ``cv2``, limited to one thread. Raises ConfigError if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            "optical flow needs OpenCV",
            expected="the package opencv-python-headless",
            found=str(error),
            remedy="install it: pip install opencv-python-headless",
        ) from error
    cv2.setNumThreads(1)  # several units are computed in parallel
    return cv2


def opencv_version() -> str:
    """The version of OpenCV, such as 5.0.0. Raises ConfigError if it is not installed."""
    return str(import_opencv().__version__)


def farneback(frames_NHWC: np.ndarray, spec: FlowSpec) -> np.ndarray:
    """Farneback flow from each RGB frame (uint8) to the next.

    Returns float32 [N-1, H, W, 2]: motion in x and y, in pixels. Raises ConfigError if OpenCV is
    not installed.
    """
    cv2 = import_opencv()
    gray = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames_NHWC]
    flows = [
        cv2.calcOpticalFlowFarneback(
            before,
            after,
            None,
            pyr_scale=spec.pyr_scale,
            levels=spec.levels,
            winsize=spec.winsize,
            iterations=spec.iterations,
            poly_n=spec.poly_n,
            poly_sigma=spec.poly_sigma,
            flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN if spec.gaussian_window else 0,
        )
        for before, after in pairwise(gray)
    ]
    return np.stack(flows) if flows else np.zeros((0, *frames_NHWC.shape[1:3], 2), np.float32)


def levels_of_flow(flow_NHW2: np.ndarray, flow_range: float) -> np.ndarray:
    """Levels (uint8, 1 .. 255) of motion in pixels, which is clipped to ``flow_range``."""
    steps = np.rint(flow_NHW2 * (_STEPS / flow_range)).clip(-_STEPS, _STEPS)
    levels: np.ndarray = (steps + ZERO_LEVEL).astype(np.uint8)
    return levels


def flow_step(flow_range: float) -> float:
    """Motion in pixels per frame between two adjacent levels."""
    return flow_range / _STEPS
