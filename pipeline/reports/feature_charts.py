"""The chart of the audit's page about a teacher that stores features, as an SVG path."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distinit.schemas.audit_features import FeatureAudit

__all__ = ["SpectrumChart", "spectrum_chart"]

_WIDTH, _HEIGHT, _BASE = 720, 232, 208
_MOST_DECADES = 8


@dataclass(frozen=True, slots=True)
class SpectrumChart:
    """Shares of the eigenvalues on a log scale: the largest on the left, 100 % at the top."""

    line: str
    ticks: tuple[tuple[float, str], ...]
    """(y, label), from 100 % down; the last one is the bottom."""
    width: int = _WIDTH
    height: int = _HEIGHT
    base: int = _BASE


def spectrum_chart(found: FeatureAudit) -> SpectrumChart | None:
    """The chart; None if the cache has no covariance, or nothing varies."""
    if found.effective_rank is None:
        return None
    share_K = np.array(found.spectrum)
    smallest = max(float(share_K.min()), 10.0**-_MOST_DECADES)
    decades = max(1, math.ceil(-math.log10(smallest)))
    x_K = np.linspace(0, _WIDTH, len(share_K)) if len(share_K) > 1 else np.array([0.0])
    y_K = np.abs(np.log10(share_K.clip(min=10.0**-decades))) / decades * _BASE
    points = [f"{x:.1f} {y:.1f}" for x, y in zip(x_K, y_K, strict=True)]
    ticks = [(d / decades * _BASE, f"{100 * 10.0**-d:.6g} %") for d in range(decades + 1)]
    return SpectrumChart("M" + "L".join(points), tuple(ticks))
