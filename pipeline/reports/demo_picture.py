"""The picture of a finished demo: accuracy of both inits, the films, the teacher's best frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from distinit.pipeline.demo.digits import DIGIT_MOTIONS, film_digit, labelled_films
from distinit.pipeline.plotting.rendering import figure_png
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.demo import Gain

__all__ = ["draw_demo"]

_SHEET_ASPECT = 0.85  # width / height of what is shown: only the first rows of a contact sheet
_FRAMES_SHOWN = (0, 8, 15, 23)
_COLOURS = {"scratch": "0.6", "distinit": "tab:blue"}
_NAMES = {"scratch": "from scratch", "distinit": "DistInit"}
_BAR_WIDTH = 0.4


def draw_demo(path: Path, gains: Sequence[Gain], sheet_png: Path) -> None:
    """Write the picture to ``path``; ``sheet_png`` is a contact sheet of the audit.

    ``gains``: one per size of the training set, which all have the same test films.

    Raises StorageError if the picture cannot be written.
    """
    figure = Figure(figsize=(13.5, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["inits", "films", "sheet"]], width_ratios=[5, 4, 5])
    _draw_inits(panels["inits"], gains)
    _draw_films(panels["films"])
    _show_picture(panels["sheet"], sheet_png, "audit: the frames a teacher is most confident of")
    atomic_write_bytes(path, figure_png(figure))


def _draw_inits(axes: Axes, gains: Sequence[Gain]) -> None:
    """Bars of both inits, in one group per gain."""
    for group, gain in enumerate(gains):
        for number, (init, top1) in enumerate(gain.top1.items()):
            position = group + _BAR_WIDTH * (number - 0.5)
            low, high = gain.interval[init]
            label = _NAMES[init] if group == 0 else None
            axes.bar(position, top1, _BAR_WIDTH * 0.95, color=_COLOURS[init], label=label)
            error = [[top1 - low], [high - top1]]
            axes.errorbar(position, top1, yerr=error, color="black", capsize=5, lw=1.2)
            axes.text(position, high + 1.5, f"{top1:.1f} %", ha="center", fontsize=11)
    chance = gains[0].chance
    axes.axhline(chance, color="0.3", linestyle="--", linewidth=1, label=f"chance ({chance:.0f} %)")
    names = [
        f"{gain.films_per_class} training films per class\n"
        f"gain {gain.points:+.0f} points ({gain.points_interval[0]:+.0f} .. "
        f"{gain.points_interval[1]:+.0f})"
        for gain in gains
    ]
    axes.set_xticks(range(len(gains)), names, fontsize=10)
    highest = max(high for gain in gains for _, high in gain.interval.values())
    axes.set_ylim(0, min(100, 1.2 * highest))
    axes.set_ylabel("top-1 accuracy (%)")
    axes.legend(loc="upper left", frameon=False, fontsize=10)
    axes.set_title(f"{gains[0].videos} test films, 95 % intervals", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_films(axes: Axes) -> None:
    """One film per motion, from left to right."""
    films = {film.motion: film for film in labelled_films("test")[:: len(DIGIT_MOTIONS) * 9 + 1]}
    rows = []
    for motion in DIGIT_MOTIONS:
        frames_THWC = film_digit(films[motion])
        rows.append(np.concatenate([frames_THWC[index] for index in _FRAMES_SHOWN], axis=1))
    axes.imshow(np.concatenate(rows), interpolation="lanczos")
    side = rows[0].shape[0]
    axes.set_yticks(
        [side * (row + 0.5) for row in range(len(rows))],
        [f"{films[motion].label}, {motion}" for motion in DIGIT_MOTIONS],
    )
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        "five of the 50 classes: digit and motion\n(time from left to right)",
        loc="left",
        fontsize=11,
    )
    axes.set_anchor("N")


def _show_picture(axes: Axes, png: Path, title: str) -> None:
    with Image.open(png) as image:
        pixels_HWC = np.asarray(image.convert("RGB"))
    height = min(len(pixels_HWC), int(pixels_HWC.shape[1] / _SHEET_ASPECT))
    axes.imshow(pixels_HWC[:height], interpolation="lanczos")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_anchor("N")
    axes.set_axis_off()
