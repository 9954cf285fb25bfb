"""What a network says of one fixed picture: code that weights and settings do not show."""

from __future__ import annotations

import numpy as np

from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PROBE_SUMS, ProbeAnswer

__all__ = ["answer_record", "probe_frame"]

_HEIGHT, _WIDTH = 360, 480  # of the picture where a teacher takes frames of any size
_TOP = 5
_DIGITS = 9  # all that an fp32 has


def probe_frame(view: View) -> np.ndarray:
    """The probe picture as ``view`` gives it: uint8 [H, W, 3], from integer arithmetic alone.

    No symmetry in space or colour, coarse and fine structure: a flip, swapped channels, another
    crop or another resize give another answer.
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


def answer_record(row_C: np.ndarray, architecture: str, *, half: bool = False) -> ProbeAnswer:
    """The answer (fp32 [C], to the probe picture) as it is kept; ``half``: see ProbeAnswer.

    Raises TeacherError for one that is not finite: the network is of no use.
    """
    if not np.isfinite(row_C).all():
        raise TeacherError(
            f"the network {architecture} gives NaN or infinity for an ordinary picture",
            expected="finite values, computed in fp32",
            found=f"{int((~np.isfinite(row_C)).sum())} of {len(row_C)} values are not finite",
            remedy="check the weights, and the code of the network",
        )
    values_C = row_C.astype(np.float64)
    best = np.argsort(-values_C, kind="stable")[:_TOP]
    return ProbeAnswer(
        top_classes=tuple(best.tolist()),
        top_values=tuple(_rounded(value) for value in values_C[best]),
        sums=tuple(_rounded(value) for value in _signs(len(row_C)) @ values_C),
        spread=_rounded(values_C.std()),
        half=half,
    )


def _signs(classes: int) -> np.ndarray:
    """Fixed signs, divided by sqrt(classes): an error in any class shows in every sum."""
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
