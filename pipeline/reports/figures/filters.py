"""First-layer filters over time, side by side (Fig. 3 and 4 of the paper)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from distinit.pipeline.plotting.canvas import (
    BODY,
    INK,
    MUTED,
    PAGE_INCHES,
    SMALL,
    new_figure,
    plain_text,
)
from distinit.pipeline.plotting.rendering import short_label

__all__ = ["FilterPanel", "draw_filters", "share_over_time", "strongest_filters"]

Floats = NDArray[np.float32]

_FLOW_COLOURS = "PuOr"  # orange to purple, white at 0: safe for colour-blind readers
_FAINTEST = 0.1  # filters weaker than this share of the strongest one are shown with its scale
_PATCH_INCHES = 0.27
_WIDEST_PATCH_INCHES = 0.36
_HIGHEST_INCHES = 6.0
_PATCH_GAP, _BLOCK_GAP = 1, 4  # pixels; one weight is one pixel
_MARGIN_INCHES, _GUTTER_INCHES = 0.05, 0.3
_TITLE_INCHES, _AXIS_INCHES, _SUBTITLE_INCHES = 0.5, 0.42, 0.18
_LINE_INCHES = 0.15  # of the title
_PANELS_PER_ROW = 5
_CHARACTER_INCHES = 0.076  # of the bold title font
_NARROWEST_NUMBERED_INCHES = 0.15


@dataclass(frozen=True, slots=True)
class FilterPanel:
    """The first layer of one network."""

    label: str
    kernel_OITHW: Floats
    """3 input channels are shown as RGB; others one after the other."""
    spatial_MIHW: Floats | None = None
    """The spatial filters of a (2+1)D network, shown below its kernels."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """Filters as one image."""

    pixels_HW3: Floats
    step_positions: tuple[float, ...]
    """Column of the centre of each time step in ``pixels_HW3``."""
    step_labels: tuple[str, ...]
    inches_per_pixel: float

    @property
    def size_inches(self) -> tuple[float, float]:
        height, width = self.pixels_HW3.shape[:2]
        return width * self.inches_per_pixel, height * self.inches_per_pixel


def draw_filters(panels: Sequence[FilterPanel], filters: int = 32) -> Figure:
    """One panel per network: each row is a filter, each column a time step.

    At most ``filters`` filters are shown, those of the highest energy. Networks whose kernels have
    one shape show the same filters in the same places. Grey (for flow: white) is 0. Each filter has
    its own scale, which is the same at all time steps.
    """
    columns = math.ceil(len(panels) / math.ceil(len(panels) / _PANELS_PER_ROW))
    width = (PAGE_INCHES - 2 * _MARGIN_INCHES - _GUTTER_INCHES * (columns - 1)) / columns
    chosen = strongest_filters([panel.kernel_OITHW for panel in panels], filters)
    kernels = [
        _kernel_picture(panel.kernel_OITHW[order], width)
        for panel, order in zip(panels, chosen, strict=True)
    ]
    spatial = [
        None if panel.spatial_MIHW is None else _spatial_picture(panel.spatial_MIHW, filters, width)
        for panel in panels
    ]
    titles = [_title(panel.label, width) for panel in panels]
    title_inches = _TITLE_INCHES + _LINE_INCHES * max(title.count("\n") for title in titles)
    rows = [slice(start, start + columns) for start in range(0, len(panels), columns)]
    heights = [(_tallest(kernels[row]), _tallest(spatial[row])) for row in rows]
    total = sum(
        title_inches + kernel + _AXIS_INCHES + (below and below + _SUBTITLE_INCHES)
        for kernel, below in heights
    )
    figure = new_figure(PAGE_INCHES, total + _MARGIN_INCHES, layout=False)
    top = total + _MARGIN_INCHES
    for row, (kernel_height, below_height) in zip(rows, heights, strict=True):
        left = _MARGIN_INCHES
        below = top - title_inches - kernel_height - _AXIS_INCHES
        for panel, picture, bottom in zip(panels[row], kernels[row], spatial[row], strict=True):
            axes = _show(figure, picture, left, top - title_inches)
            _describe_kernels(axes, panel, filters, width)
            if bottom is not None:
                axes = _show(figure, bottom, left, below - _SUBTITLE_INCHES)
                _describe_spatial(axes, panel.spatial_MIHW, filters)
            left += width + _GUTTER_INCHES
        top = below - (below_height and below_height + _SUBTITLE_INCHES)
    return plain_text(figure)


def share_over_time(kernel_OITHW: Floats) -> float:
    """The share of the filters' energy that changes over time, 0 to 1.

    It is 0 for inflated filters, which are equal at all time steps, and (T - 1) / T on average for
    random ones.
    """
    kernel = kernel_OITHW.astype(np.float64)
    energy = float((kernel**2).sum())
    mean_OI1HW = kernel.mean(axis=2, keepdims=True)
    return float(((kernel - mean_OI1HW) ** 2).sum()) / energy if energy else 0.0


def strongest_filters(kernels: Sequence[Floats], count: int) -> list[NDArray[np.int64]]:
    """Indices of the ``count`` filters of the highest energy per network, in ascending order.

    If all kernels have one shape, the energy of a filter is summed over the networks, each of
    which counts the same, and all networks get the same indices.
    """
    energy = [(kernel.astype(np.float64) ** 2).sum(axis=(1, 2, 3, 4)) for kernel in kernels]
    energy = [energy_O / max(energy_O.sum(), np.finfo(np.float64).tiny) for energy_O in energy]
    if len({kernel.shape for kernel in kernels}) == 1:
        energy = [np.sum(energy, axis=0)] * len(kernels)
    return [np.sort(np.argsort(-energy_O, kind="stable")[:count]) for energy_O in energy]


def _tallest(pictures: Sequence[_Picture | None]) -> float:
    return max(0.0 if picture is None else picture.size_inches[1] for picture in pictures)


def _kernel_picture(kernel_OITHW: Floats, width_inches: float) -> _Picture:
    """Blocks of filters next to each other; in a block, each row is a filter."""
    steps = kernel_OITHW.shape[2]
    colours_OKTHW3 = _colours(kernel_OITHW)
    channels = colours_OKTHW3.shape[1]
    columns = channels * steps
    rows_OCHW3 = colours_OKTHW3.reshape(-1, columns, *colours_OKTHW3.shape[3:])
    patch = rows_OCHW3.shape[3] + _PATCH_GAP
    blocks = _blocks(len(rows_OCHW3), columns * _PATCH_INCHES, width_inches)
    per_block = math.ceil(len(rows_OCHW3) / blocks)
    blocks = math.ceil(len(rows_OCHW3) / per_block)
    pixels = _side_by_side(
        [_tiles(rows_OCHW3[b * per_block :][:per_block], per_block) for b in range(blocks)]
    )
    block_width = columns * patch - _PATCH_GAP + _BLOCK_GAP
    centres = tuple(
        b * block_width + c * patch + (patch - _PATCH_GAP) / 2 - 0.5
        for b in range(blocks)
        for c in range(columns)
    )
    names = _step_labels(channels, steps, _scale(pixels, patch, width_inches) * patch)
    return _Picture(pixels, centres, names * blocks, _scale(pixels, patch, width_inches))


def _step_labels(channels: int, steps: int, patch_inches: float) -> tuple[str, ...]:
    """The number of each time step; only the first and the last one if they would overlap."""
    numbers = [str(step + 1) for step in range(steps)]
    if patch_inches < _NARROWEST_NUMBERED_INCHES:
        numbers = [n if i in (0, steps - 1) else "" for i, n in enumerate(numbers)]
    if channels == 1:
        return tuple(numbers)
    names = ("x", "y") if channels == 2 else tuple(str(c + 1) for c in range(channels))
    return tuple(f"{name}{number}" if number else "" for name in names for number in numbers)


def _spatial_picture(spatial_MIHW: Floats, filters: int, width_inches: float) -> _Picture:
    """A grid of single patches, the strongest ones in ascending order of their index."""
    (order,) = strongest_filters([spatial_MIHW[:, :, None]], filters)
    colours_MKHW3 = _colours(spatial_MIHW[order][:, :, None])[:, :, 0]
    channels = colours_MKHW3.shape[1]
    per_row = _blocks(len(order), channels * _PATCH_INCHES, width_inches)
    rows = math.ceil(len(order) / per_row)
    blank = np.ones((rows * per_row - len(order), *colours_MKHW3.shape[1:]), np.float32)
    filled = np.concatenate([colours_MKHW3, blank])
    tiles = filled.reshape(rows, per_row * channels, *colours_MKHW3.shape[2:])
    pixels = _tiles(tiles, rows)
    patch = tiles.shape[3] + _PATCH_GAP
    return _Picture(pixels, (), (), _scale(pixels, patch, width_inches))


def _blocks(filters: int, block_inches: float, width_inches: float) -> int:
    """Blocks side by side, such that they fill the width and the panel is not too high."""
    blocks = math.ceil(width_inches / block_inches)
    while math.ceil(filters / blocks) * _PATCH_INCHES * width_inches > (
        _HIGHEST_INCHES * blocks * block_inches
    ):
        blocks += 1
    return min(filters, blocks)


def _scale(pixels_HW3: Floats, patch: int, width_inches: float) -> float:
    """Inches per pixel at which an image fills its panel, or has patches of the largest size."""
    columns: int = pixels_HW3.shape[1]
    return min(width_inches / columns, _WIDEST_PATCH_INCHES / patch)


def _colours(kernel_OITHW: Floats) -> Floats:
    """Colours in 0..1: [O, K, T, H, W, 3]; K is 1 for RGB, else the number of input channels."""
    largest_O = np.abs(kernel_OITHW).max(axis=(1, 2, 3, 4))
    scale_O = np.maximum(largest_O, _FAINTEST * largest_O.max(initial=0))
    scale_O = np.where(scale_O > 0, scale_O, 1)
    level_OITHW = 0.5 + 0.5 * kernel_OITHW / scale_O[:, None, None, None, None]
    if level_OITHW.shape[1] == 3:
        return np.moveaxis(level_OITHW, 1, -1)[:, None].astype(np.float32)
    return mpl.colormaps[_FLOW_COLOURS](level_OITHW)[..., :3].astype(np.float32)


def _tiles(patches_RCHW3: Floats, rows: int) -> Floats:
    """Patches in a grid with white gaps; white rows are added up to ``rows``."""
    count, columns, height, width = patches_RCHW3.shape[:4]
    padded = np.ones((rows, columns, height + _PATCH_GAP, width + _PATCH_GAP, 3), np.float32)
    padded[:count, :, :height, :width] = patches_RCHW3
    grid = padded.swapaxes(1, 2).reshape(rows * (height + _PATCH_GAP), -1, 3)
    return grid[:-_PATCH_GAP, :-_PATCH_GAP]


def _side_by_side(images: Sequence[Floats]) -> Floats:
    gap = np.ones((images[0].shape[0], _BLOCK_GAP, 3), np.float32)
    parts = [part for image in images for part in (image, gap)]
    joined: Floats = np.concatenate(parts[:-1], axis=1)
    return joined


def _show(figure: Figure, picture: _Picture, left: float, top: float) -> Axes:
    """Place an image whose upper left corner is at (left, top), in inches from the lower left."""
    width, height = picture.size_inches
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (
            left / total_width,
            (top - height) / total_height,
            width / total_width,
            height / total_height,
        )
    )
    axes.imshow(picture.pixels_HW3, interpolation="nearest", aspect="auto")
    axes.set_yticks([])
    axes.set_xticks(picture.step_positions, picture.step_labels, fontsize=SMALL, color=MUTED)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    return axes


def _title(label: str, width_inches: float) -> str:
    """The label in at most two lines, broken between words."""
    letters = max(8, int(width_inches / _CHARACTER_INCHES))
    plain = short_label(label, 2 * len(label))
    lines = textwrap.wrap(plain, letters, break_long_words=False, max_lines=2, placeholder=" …")
    return "\n".join(short_label(line, letters) for line in lines)


def _describe_kernels(axes: Axes, panel: FilterPanel, filters: int, width: float) -> None:
    outputs, channels, steps, height, wide = panel.kernel_OITHW.shape
    title = _title(panel.label, width)
    shown = f"{_of(filters, outputs)} filters {steps}x{height}x{wide}"
    changing = f"{100 * share_over_time(panel.kernel_OITHW):.0f} % varies over time"
    for text, above_points, size, colour, weight in (
        (title, 22, BODY, INK, "bold"),
        (f"{shown}\n{changing}", 2, SMALL - 1, MUTED, "normal"),
    ):
        axes.annotate(
            text,
            (0, 1),
            (0, above_points),
            xycoords="axes fraction",
            textcoords="offset points",
            va="bottom",
            fontsize=size,
            color=colour,
            weight=weight,
        )
    axes.set_xlabel(
        "flow x and y, time step" if channels == 2 else "time step",
        fontsize=SMALL,
        color=MUTED,
        labelpad=1,
    )


def _describe_spatial(axes: Axes, spatial_MIHW: Floats | None, filters: int) -> None:
    if spatial_MIHW is not None:
        count, channels = spatial_MIHW.shape[:2]
        text = f"{_of(filters, count)} spatial filters" + (" (x, y)" if channels == 2 else "")
        axes.set_title(text, loc="left", fontsize=SMALL - 1, color=MUTED, pad=2)


def _of(shown: int, count: int) -> str:
    return f"{shown} of {count}" if shown < count else str(count)
