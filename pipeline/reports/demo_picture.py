"""The picture of a finished demo: entropies, most confident frames, accuracy of both inits."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.run import EvaluationResult

__all__ = ["draw_demo"]

_SHEET_ASPECT = 0.62  # width / height of what is shown: only the first rows of a contact sheet


def draw_demo(
    path: Path, entropy_png: Path, sheet_png: Path, results: Mapping[str, EvaluationResult]
) -> None:
    """Write the picture to ``path``.

    ``entropy_png`` and ``sheet_png`` are pictures of the audit; ``results`` are by init.
    Raises StorageError if the picture cannot be written.
    """
    figure = Figure(figsize=(12, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["entropy", "sheet"], ["inits", "sheet"]], width_ratios=[5, 6])
    _show_picture(panels["entropy"], entropy_png, "entropy of the teacher for single frames")
    _show_picture(panels["sheet"], sheet_png, "its most confident frames")
    _draw_inits(panels["inits"], results)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic_write_bytes(path, buffer.getvalue())


def _show_picture(axes: Axes, png: Path, title: str) -> None:
    with Image.open(png) as image:
        pixels_HWC = np.asarray(image.convert("RGB"))
    height = min(len(pixels_HWC), int(pixels_HWC.shape[1] / _SHEET_ASPECT))
    axes.imshow(pixels_HWC[:height], interpolation="lanczos")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_anchor("NW")
    axes.set_axis_off()


def _draw_inits(axes: Axes, results: Mapping[str, EvaluationResult]) -> None:
    any_result = next(iter(results.values()))
    metrics = {"per clip": "per_clip", "top-1": "top1"}
    for offset, (init, result) in enumerate(results.items()):
        values = [getattr(result, name) for name in metrics.values()]
        positions = np.arange(len(metrics)) + 0.38 * (offset - 0.5)
        bars = axes.bar(positions, values, width=0.34, label=init)
        axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.axhline(100 / any_result.classes, color="0.4", linestyle="--", linewidth=1)
    axes.text(1.6, 100 / any_result.classes, "chance", va="bottom", ha="right", color="0.4")
    axes.set_xticks(np.arange(len(metrics)), list(metrics))
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy (%)")
    axes.set_title(
        f"{any_result.videos} test videos of {any_result.classes} motions, by init",
        loc="left",
        fontsize=11,
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
