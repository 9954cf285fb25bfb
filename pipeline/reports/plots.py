"""The figures of the audit, for PNG and PDF files; the page draws its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from distinit.pipeline.plotting.rendering import short_label
from distinit.schemas.audit import ClassCount, ConfidenceAudit, EntropyHistogram

__all__ = ["LIGHT", "Theme", "entropy_density", "figure_classes", "figure_entropy", "figure_kept"]

DPI = 160
SIZE_INCHES = (7.2, 3.6)
MAX_LABEL = 34


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure."""

    paper: str
    ink: str
    muted: str
    grid: str
    bar: str
    line: str


LIGHT = Theme("#ffffff", "#1d2430", "#5c6675", "#e3e7ed", "#a9c7e8", "#1f5fa8")


def figure_entropy(confidence: ConfidenceAudit) -> Figure:
    """Histogram and density of the frame entropies, with marks at the quartiles."""
    return _figure(lambda axes: _draw_entropy(axes, confidence, LIGHT))


def figure_kept(confidence: ConfidenceAudit) -> Figure:
    """Share of frames that each entropy threshold keeps."""
    return _figure(lambda axes: _draw_kept(axes, confidence, LIGHT))


def figure_classes(classes: Sequence[ClassCount]) -> Figure:
    """The classes that are most often the most probable one."""
    height = 1.1 + 0.27 * len(classes)
    return _figure(lambda axes: _draw_classes(axes, classes, LIGHT), (7.2, height))


def _draw_entropy(axes: Axes, confidence: ConfidenceAudit, theme: Theme) -> None:
    histogram = confidence.histogram
    edges = np.array(histogram.edges_nats)
    width = edges[1] - edges[0]
    percent = 100 * np.array(histogram.frames) / confidence.frames
    axes.bar(
        edges[:-1],
        percent,
        width,
        align="edge",
        color=theme.bar,
        edgecolor=theme.paper,
        linewidth=0.5,
    )
    grid, density = entropy_density(histogram, confidence.highest_possible_nats)
    axes.plot(grid, 100 * density * width, color=theme.line, linewidth=1.8)
    top = max(percent.max(), 100 * width * density.max(initial=0)) * 1.22
    axes.set_ylim(0, top)
    axes.set_xlim(0, confidence.highest_possible_nats)
    # The labels are left of, above and right of their lines, so that they cannot overlap.
    labels = (("25 %", "right", 0.86), ("50 %", "center", 0.93), ("75 %", "left", 0.86))
    for (name, side, height), value in zip(labels, confidence.quartiles_nats, strict=True):
        axes.axvline(value, ymax=height, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        label = f" {name}: {value:.2f} "
        axes.text(value, top * (height + 0.005), label, ha=side, va="bottom", fontsize=8)
    axes.set_xlabel("entropy of the teacher's distribution (nats)")
    axes.set_ylabel("frames (%)")


def entropy_density(
    histogram: EntropyHistogram, highest_nats: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(entropies in nats, density per nat): a Gaussian KDE over the histogram's bins.

    It is reflected at 0 and at ``highest_nats`` (None: the last edge), so that no density is lost
    beyond the possible entropies. The bandwidth follows Scott's rule for the number of frames, but
    is at least one bin wide. Both arrays are empty if all frames are in one bin.
    """
    edges, counts = np.array(histogram.edges_nats), np.array(histogram.frames)
    if np.count_nonzero(counts) < 2:
        return np.empty(0), np.empty(0)
    end_nats = float(edges[-1]) if highest_nats is None else highest_nats
    centres = np.minimum((edges[:-1] + edges[1:]) / 2, end_nats)
    spread = np.sqrt(np.cov(centres, aweights=counts))
    factor = max(float(counts.sum()) ** -0.2, float((edges[1] - edges[0]) / spread))
    grid = np.linspace(edges[0], end_nats, 512)
    estimate = gaussian_kde(centres, bw_method=factor, weights=counts)
    return grid, estimate(grid) + estimate(-grid) + estimate(2 * end_nats - grid)


def _draw_kept(axes: Axes, confidence: ConfidenceAudit, theme: Theme) -> None:
    edges = np.array(confidence.histogram.edges_nats)
    kept = np.concatenate([[0], np.cumsum(confidence.histogram.frames)]) / confidence.frames
    axes.fill_between(edges, 100 * kept, color=theme.bar, alpha=0.45, linewidth=0)
    axes.plot(edges, 100 * kept, color=theme.line, linewidth=1.8)
    for share, value in zip((25, 50, 75), confidence.quartiles_nats, strict=True):
        axes.plot([value], [share], marker="o", markersize=5, color=theme.line)
        axes.annotate(
            f"{share} % at {value:.2f}",
            (value, share),
            (8, -4),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlim(0, confidence.highest_possible_nats)
    axes.set_ylim(0, 103)
    axes.set_xlabel("threshold: highest entropy that is kept (nats)")
    axes.set_ylabel("frames kept (%)")


def _draw_classes(axes: Axes, classes: Sequence[ClassCount], theme: Theme) -> None:
    shares = [100 * entry.fraction for entry in classes]
    positions = range(len(classes))
    axes.barh(positions, shares, color=theme.bar, height=0.72)
    # Class names are not trusted: a dollar sign in them must not start a formula.
    axes.set_yticks(
        positions, [short_label(entry.name, MAX_LABEL) for entry in classes], parse_math=False
    )
    axes.invert_yaxis()
    for position, share in zip(positions, shares, strict=True):
        axes.annotate(
            f"{share:.1f}",
            (share, position),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, max(shares) * 1.1)
    axes.set_xlabel("frames with this most probable class (%)")
    axes.grid(visible=False, axis="y")


def _figure(draw: Callable[[Axes], None], size_inches: tuple[float, float] = SIZE_INCHES) -> Figure:
    """A figure with one plot.

    Matplotlib's object interface is used: it has no global state and needs no display.
    """
    theme = LIGHT
    figure = Figure(figsize=size_inches, dpi=DPI, facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(theme.paper)
    axes.set_axisbelow(True)
    axes.grid(color=theme.grid, linewidth=0.8)
    draw(axes)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    for text in (*axes.texts, *axes.get_yticklabels()):
        text.set_color(theme.ink)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.muted, fontsize=9)
    return figure
