"""A network's output for a fixed picture reveals edited code, unlike its weights and settings."""

from __future__ import annotations

import numpy as np

from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.probe_output import PROBE_SUMS, ProbeOutput

__all__ = ["probe_frame", "probe_record"]

_HEIGHT, _WIDTH = 360, 480  # of the picture for teachers that take frames of any size
_TOP = 5
_DIGITS = 9  # enough for every fp32 value


def probe_frame(view: View) -> np.ndarray:
    """The probe picture at the size of ``view``: uint8 [H, W, 3], from integer arithmetic alone.

    It has coarse and fine structure, and no symmetry in space or colour: a flip, swapped channels,
    another crop or another resize all change a network's output for it.
    """
    height, width = view.size_for(_WIDTH, _HEIGHT)
    y_H1, x_1W = np.ogrid[:height, :width]
    fine_HW = (x_1W * x_1W + 3 * y_H1 * y_H1 + 7 * x_1W * y_H1) % 251
    channels = (
        x_1W * 255 // width + 0 * y_H1,
        (y_H1 * 191 // height + fine_HW // 4) % 256,
        ((x_1W * 12 // width + 2 * (y_H1 * 9 // height)) % 5) * 40 + fine_HW // 8,
    )
    return np.stack(channels, axis=-1).astype(np.uint8)


def probe_record(output_C: np.ndarray, architecture: str, *, half: bool = False) -> ProbeOutput:
    """The record of a network's output for the probe picture, fp32 [C].

    ``half`` is explained in ProbeOutput. Raises TeacherError if a value is not finite.
    """
    if not np.isfinite(output_C).all():
        raise TeacherError(
            f"the network {architecture} computes NaN or infinity for an ordinary picture",
            expected="finite values, computed in fp32",
            found=f"{int((~np.isfinite(output_C)).sum())} of {len(output_C)} values are not finite",
            remedy="check the weights and the code of the network",
        )
    values_C = output_C.astype(np.float64)
    best = np.argsort(-values_C, kind="stable")[:_TOP]
    return ProbeOutput(
        top_classes=tuple(best.tolist()),
        top_values=tuple(_rounded(value) for value in values_C[best]),
        sums=tuple(_rounded(value) for value in _signs(len(output_C)) @ values_C),
        spread=_rounded(values_C.std()),
        half=half,
    )


def _signs(classes: int) -> np.ndarray:
    """Fixed signs, divided by sqrt(classes): an error in any class changes every sum."""
    bits_KC = np.arange(PROBE_SUMS * classes, dtype=np.uint64).reshape(PROBE_SUMS, classes)
    # splitmix64: the bits of consecutive numbers become independent.
    with np.errstate(over="ignore"):
        bits_KC = (bits_KC + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bits_KC = (bits_KC ^ (bits_KC >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits_KC = (bits_KC ^ (bits_KC >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    signs_KC: np.ndarray = np.where(bits_KC >> np.uint64(63), 1.0, -1.0) / np.sqrt(classes)
    return signs_KC


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
