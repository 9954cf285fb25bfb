"""What all figures share: sizes, colours that colour-blind readers can tell apart, plain text."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = [
    "BODY",
    "GAIN",
    "GRID",
    "INK",
    "LOSS",
    "MINUS",
    "MUTED",
    "PAGE_INCHES",
    "PALE",
    "SMALL",
    "new_figure",
    "plain_axes",
    "plain_text",
    "title",
]

PAGE_INCHES = 7.0
"""Width of the text of a page in most conference styles."""
BODY, SMALL = 8.5, 7.5
"""Font sizes, points."""

INK, MUTED, PALE, GRID = "#1d2430", "#5c6675", "#d9dee6", "#e3e7ed"
GAIN, LOSS = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito's palette."""

MINUS = "\u2212"
"""The minus sign of matplotlib's tick labels."""

_DPI = 200


def new_figure(width_inches: float, height_inches: float, *, layout: bool = True) -> Figure:
    """An empty figure. Without ``layout`` the caller places its axes itself."""
    size = (width_inches, height_inches)
    figure = Figure(
        figsize=size, dpi=_DPI, facecolor="white", layout="constrained" if layout else None
    )
    FigureCanvasAgg(figure)
    return figure


def title(figure: Figure, *lines: str) -> None:
    """Lines above everything, from the left edge of the figure."""
    figure.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=BODY, color=INK)


def plain_axes(axes: Axes) -> None:
    """Fonts and lines of one plot; no box around it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(MUTED)
    axes.spines[["bottom", "left"]].set_linewidth(0.6)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.6, color=MUTED, labelcolor=INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=BODY, color=INK)


def plain_text(figure: Figure) -> Figure:
    """Show all text as it is: names come from files, and a dollar sign must not start a formula."""
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
    return figure
