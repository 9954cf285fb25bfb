"""The charts of the audit's page as SVG paths; the page colours them for its theme."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.reports.plots import entropy_density
from distinit.schemas.audit import ConfidenceAudit
from distinit.schemas.audit_comparisons import CacheDrift, TeacherPairAudit
from distinit.schemas.audit_labels import LabelAudit

__all__ = [
    "DensityChart",
    "DriftChart",
    "LabelChart",
    "PairChart",
    "density_chart",
    "drift_chart",
    "label_chart",
    "pair_chart",
]

_WIDTH, _HEIGHT, _BASE = 720, 232, 208
_PAIR_SIZE = 320
_HEADROOM = 1.06
_STEPS = 180  # points of the dashed line


@dataclass(frozen=True, slots=True)
class DensityChart:
    """Density of the entropies of one teacher. The x axis ends at the last threshold."""

    number: int
    """Of the chart on its page, from 1."""
    bars: str
    density: str
    total: str
    ticks: tuple[tuple[float, str, str], ...]
    """(x, label, text-anchor)"""
    start: int
    """First position of the slider, from 1: the median."""
    width: int = _WIDTH
    height: int = _HEIGHT
    base: int = _BASE


def density_chart(confidence: ConfidenceAudit, number: int) -> DensityChart:
    """The chart of one teacher; it is the ``number``-th of the page."""
    histogram, curve = confidence.histogram, confidence.curve
    edges = np.array(histogram.edges_nats)
    last_nats = float(edges[-1])
    width_nats = last_nats / len(histogram.frames)
    density_K = np.array(histogram.frames) / (confidence.frames * width_nats)
    grid, density = entropy_density(histogram, confidence.highest_possible_nats)
    scale = _HEADROOM * max(float(density_K.max()), float(density.max(initial=0)))
    x_K = edges / last_nats * _WIDTH
    kept_B = np.concatenate([[0], np.array(curve.frames)]) / confidence.frames
    place = np.unique(np.linspace(0, len(kept_B) - 1, _STEPS).astype(int))
    return DensityChart(
        number=number,
        bars=_steps(x_K, _BASE * (1 - density_K / scale)),
        density=_line(grid / last_nats * _WIDTH, _BASE * (1 - density / scale)),
        total=_line(place / (len(kept_B) - 1) * _WIDTH, _BASE * (1 - kept_B[place])),
        ticks=tuple(_ticks(last_nats)),
        start=int(np.searchsorted(curve.frames, confidence.frames / 2)) + 1,
    )


def _ticks(last_nats: float) -> Iterable[tuple[float, str, str]]:
    step = next(step for step in (0.1, 0.25, 0.5, 1.0, 2.0) if last_nats / step <= 9)
    for count in range(int(last_nats / step) + 1):
        x = count * step / last_nats * _WIDTH
        anchor = "start" if x < 1 else "end" if x > _WIDTH - 8 else "middle"
        yield round(x, 1), f"{count * step:g}", anchor


def _steps(x_K: NDArray[np.floating], y_K: NDArray[np.floating]) -> str:
    """A closed outline of bars: ``x_K`` has one value more than ``y_K``."""
    parts = [f"M{x_K[0]:.1f} {_BASE}"]
    for left, right, y in zip(x_K[:-1], x_K[1:], y_K, strict=True):
        parts.append(f"L{left:.1f} {y:.1f}L{right:.1f} {y:.1f}")
    return "".join(parts) + f"L{x_K[-1]:.1f} {_BASE}Z"


def _line(x_P: NDArray[np.floating], y_P: NDArray[np.floating]) -> str:
    points = [f"{x:.1f} {y:.1f}" for x, y in zip(x_P, y_P, strict=True)]
    return "M" + "L".join(points) if points else ""


@dataclass(frozen=True, slots=True)
class PairChart:
    """Two teachers side by side, as the page shows them."""

    found: TeacherPairAudit
    cells: tuple[tuple[float, float, float, float], ...]
    """(left, top, edge length, opacity) of each cell with frames."""
    has_pictures: bool
    size: int = _PAIR_SIZE


def pair_chart(found: TeacherPairAudit, *, has_pictures: bool) -> PairChart:
    """The joint density of two teachers: the first to the right, the second upwards."""
    joint_KK = np.array(found.joint_frames)
    edge = _PAIR_SIZE / len(joint_KK)
    strength_KK = np.log1p(joint_KK) / np.log1p(max(1, int(joint_KK.max())))
    cells = [
        (
            round(column * edge, 2),
            round(_PAIR_SIZE - (row + 1) * edge, 2),
            edge,
            round(0.1 + 0.9 * float(strength_KK[column, row]), 3),
        )
        for column, row in zip(*np.nonzero(joint_KK), strict=True)
    ]
    return PairChart(found, tuple(cells), has_pictures)


@dataclass(frozen=True, slots=True)
class DriftChart:
    """Densities of one teacher in two caches."""

    found: CacheDrift
    first: str
    other: str
    ticks: tuple[tuple[float, str, str], ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    base: int = _BASE


def drift_chart(found: CacheDrift) -> DriftChart:
    """The densities of both caches, on the axes of ``density_chart``."""
    edges = np.array(found.edges_nats)
    centres = (edges[:-1] + edges[1:]) / 2 / edges[-1] * _WIDTH
    shares = [np.array(f) / max(1, sum(f)) for f in (found.first_frames, found.other_frames)]
    scale = _HEADROOM * max(float(share.max()) for share in shares)
    lines = [_line(centres, _BASE * (1 - share / scale)) for share in shares]
    return DriftChart(found, lines[0], lines[1], tuple(_ticks(float(edges[-1]))))


@dataclass(frozen=True, slots=True)
class LabelChart:
    """Reliability diagram, and accuracy by entropy, of one teacher."""

    found: LabelAudit
    points: tuple[tuple[float, float, float], ...]
    """(x, y, radius) of each bin of confidence."""
    bars: tuple[tuple[float, float, float, float, str], ...]
    """(left, top, width, height, text) of each bin of entropy."""
    size: int = _PAIR_SIZE


def label_chart(found: LabelAudit, highest_nats: float) -> LabelChart:
    """Both diagrams as shapes in a square; larger points have more frames."""
    most = max(b.frames for b in found.by_confidence)
    points = [
        (_PAIR_SIZE * b.confidence, _PAIR_SIZE * (1 - b.accuracy), 3 + 6 * (b.frames / most) ** 0.5)
        for b in found.by_confidence
    ]
    last_nats = max(highest_nats, found.by_entropy[-1].high)
    bars = [
        (
            _PAIR_SIZE * b.low / last_nats,
            _PAIR_SIZE * (1 - b.accuracy),
            _PAIR_SIZE * (b.high - b.low) / last_nats - 2,
            _PAIR_SIZE * b.accuracy,
            f"{b.low:.2f} to {b.high:.2f} nats: {100 * b.accuracy:.1f} % of {b.frames:,} frames",
        )
        for b in found.by_entropy
    ]
    return LabelChart(found, tuple(points), tuple(bars))
