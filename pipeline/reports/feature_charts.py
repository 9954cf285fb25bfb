"""The chart of the audit's page about a teacher that stores features, as an SVG path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distinit.schemas.audit_features import FeatureAudit

__all__ = ["SpectrumChart", "spectrum_chart"]

_WIDTH, _HEIGHT, _BASE = 720, 232, 208
_DECADES = 8


@dataclass(frozen=True, slots=True)
class SpectrumChart:
    """Shares of the eigenvalues on a log scale: the largest on the left, 100 % at the top."""

    line: str
    decades: int = _DECADES
    width: int = _WIDTH
    height: int = _HEIGHT
    base: int = _BASE


def spectrum_chart(found: FeatureAudit) -> SpectrumChart | None:
    """The chart; None if the cache has no covariance, or nothing varies."""
    if found.effective_rank is None:
        return None
    share_K = np.array(found.spectrum)
    x_K = np.linspace(0, _WIDTH, len(share_K)) if len(share_K) > 1 else np.array([0.0])
    y_K = -np.log10(share_K.clip(min=10.0**-_DECADES)) / _DECADES * _BASE
    points = [f"{x:.1f} {y:.1f}" for x, y in zip(x_K, y_K, strict=True)]
    return SpectrumChart("M" + "L".join(points))
