"""The figures of the audit that compare teachers or caches, for PNG and PDF files."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from distinit.pipeline.plotting.canvas import GAIN, LOSS, MUTED, new_figure, plain_axes, plain_text
from distinit.schemas.audit_comparisons import CacheDrift, TeacherPairAudit
from distinit.schemas.audit_labels import LabelAudit

__all__ = ["figure_drift", "figure_joint", "figure_reliability"]


def figure_joint(pair: TeacherPairAudit) -> Figure:
    """The joint density of the entropies of two teachers, in frames per cell (log scale)."""
    figure = new_figure(4.2, 3.6)
    axes = figure.add_subplot()
    frames_KK = np.array(pair.joint_frames, np.float64).T
    cells = axes.pcolormesh(
        pair.edges_first_nats,
        pair.edges_second_nats,
        np.where(frames_KK > 0, frames_KK, np.nan),
        cmap="Blues",
        norm=LogNorm(0.5, max(1.0, float(frames_KK.max()))),
    )
    figure.colorbar(cells, ax=axes, label="frames")
    axes.set_xlabel(f"entropy of {pair.first} (nats)")
    axes.set_ylabel(f"entropy of {pair.second} (nats)")
    plain_axes(axes)
    return plain_text(figure)


def figure_drift(drift: CacheDrift) -> Figure:
    """The shares of the frames per bin of entropy, in both caches."""
    figure = new_figure(5.4, 3.0)
    axes: Axes = figure.add_subplot()
    edges = np.array(drift.edges_nats)
    for label, frames, colour in (
        ("this cache", drift.first_frames, GAIN),
        ("the other cache", drift.other_frames, LOSS),
    ):
        axes.stairs(100 * np.array(frames) / max(1, sum(frames)), edges, color=colour, label=label)
    axes.set_xlabel(f"entropy of {drift.teacher} (nats)")
    axes.set_ylabel("frames (%)")
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes)
    return plain_text(figure)


def figure_reliability(labels: LabelAudit) -> Figure:
    """Accuracy against confidence (reliability diagram), and against entropy."""
    figure = new_figure(7.0, 3.0)
    left, right = figure.subplots(1, 2)
    bins = labels.by_confidence
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    left.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-", color=GAIN, ms=4)
    left.set_xlabel("mean probability of the most probable class")
    left.set_xlim(0, 1)
    for place in labels.by_entropy:
        right.bar(
            place.low,
            100 * place.accuracy,
            place.high - place.low,
            align="edge",
            color=GAIN,
            ec="w",
        )
    right.set_xlabel("entropy (nats)")
    left.set_ylabel("accuracy")
    right.set_ylabel("accuracy (%)")
    for axes in (left, right):
        plain_axes(axes)
    left.set_ylim(0, 1)
    right.set_ylim(0, 100)
    return plain_text(figure)
