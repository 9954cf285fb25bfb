"""Optical flow between frames, and its 8-bit levels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distinit.schemas.errors import ConfigError
from distinit.schemas.frames import FlowSpec

__all__ = [
    "ZERO_LEVEL",
    "farneback",
    "flow_from_levels",
    "flow_step",
    "levels_of_flow",
    "opencv",
    "opencv_version",
]

ZERO_LEVEL = 128
STEPS = 127  # to either side: the levels of a motion and of its mirror image are exact opposites


def opencv() -> Any:
    """The module ``cv2``, on one thread. Raises ConfigError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            "optical flow needs OpenCV",
            expected="the package opencv-python-headless",
            found=str(error),
            remedy="install it: pip install 'distinit[flow]'",
        ) from error
    cv2.setNumThreads(1)  # units are computed side by side
    return cv2


def opencv_version() -> str:
    """Such as 5.0.0. Raises ConfigError as ``opencv``."""
    return str(opencv().__version__)


def farneback(frames_NHWC: np.ndarray, spec: FlowSpec) -> np.ndarray:
    """Motion float32 [N-1, H, W, 2] (x, y; pixels) from each RGB frame uint8 to the next."""
    cv2 = opencv()
    grey = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames_NHWC]
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
        for before, after in pairwise(grey)
    ]
    return np.stack(flows) if flows else np.zeros((0, *frames_NHWC.shape[1:3], 2), np.float32)


def levels_of_flow(flow_NHW2: np.ndarray, flow_range: float) -> np.ndarray:
    """uint8 levels 1 .. 255 of motion in pixels; what is beyond ``flow_range`` is cut to it."""
    steps = np.rint(flow_NHW2 * (STEPS / flow_range)).clip(-STEPS, STEPS)
    levels: np.ndarray = (steps + ZERO_LEVEL).astype(np.uint8)
    return levels


def flow_from_levels(levels: Tensor, flow_range: float, dtype: torch.dtype) -> Tensor:
    """Motion in pixels, of the shape of ``levels``."""
    return (levels.to(dtype) - ZERO_LEVEL) * flow_step(flow_range)


def flow_step(flow_range: float) -> float:
    """Pixels a frame from one level to the next."""
    return flow_range / STEPS
