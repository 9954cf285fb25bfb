"""The noise floor: how much the same teacher differs from itself on the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from distinit.pipeline.teachers.base import Teacher  # imports torch

__all__ = ["MARGIN", "NoiseFloor", "deviation_of", "measure_floor", "spread_of"]

MARGIN = 4.0
"""How often the largest measured difference is allowed: another machine may differ in other ways
than those that can be tried here. Measurements: docs/decisions/047-recomputing-rows.md"""

_FLAT = 1e-3  # as in ProbeOutput.deviation: the spread of outputs that are all alike


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """``measured``: variation -> largest deviation, as a share of a row's spread."""

    measured: dict[str, float]

    @property
    def allowed(self) -> float:
        """The deviation up to which a row counts as the same, as a share of its spread."""
        return MARGIN * max(self.measured.values(), default=0.0)


def spread_of(outputs_NC: np.ndarray) -> np.ndarray:
    """fp64 [N]: standard deviation of each row; 0.1 % of its largest value if that is more."""
    values_NC = outputs_NC.astype(np.float64)
    largest_N = np.abs(values_NC).max(axis=1)
    spread_N = np.maximum(values_NC.std(axis=1), _FLAT * largest_N)
    not_zero_N: np.ndarray = np.maximum(spread_N, np.finfo(np.float32).tiny)
    return not_zero_N


def deviation_of(outputs_NC: np.ndarray, reference_NC: np.ndarray) -> np.ndarray:
    """fp64 [N]: largest difference of each row, as a share of the reference's spread."""
    difference_NC = np.abs(outputs_NC.astype(np.float64) - reference_NC)
    deviation_N: np.ndarray = difference_NC.max(axis=1) / spread_of(reference_NC)
    return deviation_N


def measure_floor(teacher: Teacher, frames: Sequence[np.ndarray]) -> NoiseFloor:
    """Run every variation of ``teacher`` on ``frames``, each uint8 [1, H, W, 3]."""
    measured = {variation.name: 0.0 for variation in teacher.variations()}
    for shape in dict.fromkeys(frame.shape for frame in frames):
        block_NHWC = np.concatenate([frame for frame in frames if frame.shape == shape])
        reference_NC = teacher.forward(block_NHWC)
        for variation in teacher.variations():
            deviation_N = deviation_of(variation.outputs(block_NHWC), reference_NC)
            measured[variation.name] = max(measured[variation.name], float(deviation_N.max()))
    return NoiseFloor(measured)
