"""The figures of the audit about teachers that store features, for PNG and PDF files."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from distinit.pipeline.plotting.canvas import GAIN, new_figure, plain_axes, plain_text
from distinit.schemas.audit_features import FeatureAudit

__all__ = ["figure_norms", "figure_spectrum"]

_FLOOR = 1e-12  # of the total variance: smaller shares are rounding


def figure_spectrum(found: FeatureAudit) -> Figure:
    """The shares of the eigenvalues of the covariance, largest first (log scale)."""
    figure = new_figure(5.4, 3.0)
    axes = figure.add_subplot()
    share_K = np.array(found.spectrum).clip(min=_FLOOR)
    axes.semilogy(np.arange(1, len(share_K) + 1), 100 * share_K, color=GAIN)
    axes.set_xlabel("eigenvalue of the covariance")
    axes.set_ylabel("share of the variance (%)")
    plain_axes(axes)
    return plain_text(figure)


def figure_norms(found: FeatureAudit) -> Figure:
    """The shares of the vectors by their norm."""
    figure = new_figure(5.4, 3.0)
    axes = figure.add_subplot()
    axes.stairs(
        100 * np.array(found.norms.vectors) / found.vectors,
        found.norms.edges,
        color=GAIN,
        fill=True,
    )
    axes.set_xlabel("Euclidean norm of the features")
    axes.set_ylabel("vectors (%)")
    plain_axes(axes)
    return plain_text(figure)
