"""The picture of a probe: accuracies of every row with intervals, and its low-shot curve."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distinit.pipeline.plotting.rendering import figure_png
from distinit.pipeline.reports.plots import LIGHT
from distinit.schemas.probe import Measures, ProbeResult, ProbeRow

__all__ = ["draw_probe"]

_DPI = 150
_INIT_COLOURS = ("#1f5fa8", "#2a9d8f", "#8a4fa8", "#c1443c", "#6b8e23", "#00798c")
_NAME_STEP = 0.062  # least distance of two names, share of the axis
_COLOURS = {"random": "#8490a0", "inflated": "#e08e2b", "teacher": "#1d2430"}


def draw_probe(result: ProbeResult) -> bytes:
    """PNG bytes. Rows without measures are left out."""
    rows = [(row, row.measures) for row in result.rows if row.measures is not None]
    colours = _colours([row for row, _ in rows])
    height = max(3.4, 1.5 + 0.62 * len(rows))
    figure = Figure(figsize=(11.5, height), dpi=_DPI, facecolor=LIGHT.paper, layout="constrained")
    FigureCanvasAgg(figure)
    scores, curve = figure.subplots(1, 2, width_ratios=[6, 5])
    _draw_scores(scores, rows, colours, result)
    _draw_low_shot(curve, rows, colours, result)
    for axes in (scores, curve):
        _style(axes)
    return figure_png(figure)


def _colours(rows: list[ProbeRow]) -> list[str]:
    """One colour per row; teachers and baselines have their own."""
    inits = [row.name for row in rows if row.kind == "init"]
    return [
        _INIT_COLOURS[inits.index(row.name) % len(_INIT_COLOURS)]
        if row.kind == "init"
        else _COLOURS[row.kind]
        for row in rows
    ]


def _draw_scores(
    axes: Axes, rows: list[tuple[ProbeRow, Measures]], colours: list[str], result: ProbeResult
) -> None:
    """Two bars per row: the linear classifier, and kNN below it in a lighter shade."""
    for position, ((_, measures), colour) in enumerate(zip(rows, colours, strict=True)):
        knn = measures.knn[0]
        bars = ((-0.19, measures.linear, 1.0, "linear"), (0.19, knn, 0.5, f"kNN {knn.k}"))
        for offset, score, alpha, name in bars:
            low, high = score.interval
            axes.barh(position + offset, score.top1, 0.36, color=colour, alpha=alpha)
            axes.errorbar(
                score.top1,
                position + offset,
                xerr=[[max(0, score.top1 - low)], [max(0, high - score.top1)]],
                color=LIGHT.ink,
                capsize=2.5,
                linewidth=1,
            )
            label = f"{score.top1:.1f}  {name}"
            axes.annotate(
                label,
                (high, position + offset),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=LIGHT.ink,
                bbox={"facecolor": LIGHT.paper, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
            )
    # Names are arbitrary: a dollar sign must not start a formula.
    names = [row.short_name for row, _ in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    highest = max((score.interval[1] for _, m in rows for score in (m.linear, m.knn[0])), default=0)
    axes.set_xlim(0, 1.25 * max(highest, result.chance))
    axes.axvline(result.chance, color=LIGHT.muted, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_xlabel(
        f"top-1 (%), 95 % interval over {result.test_videos} test videos; "
        f"dashed: chance ({result.chance:.1f} %)"
    )
    axes.set_title("linear classifier and nearest neighbours", loc="left", fontsize=10)
    axes.grid(visible=False, axis="y")


def _draw_low_shot(
    axes: Axes, rows: list[tuple[ProbeRow, Measures]], colours: list[str], result: ProbeResult
) -> None:
    """Accuracy over training videos per class; "all" is at their mean number per class."""
    average = result.train_videos / result.classes
    for (row, measures), colour in zip(rows, colours, strict=True):
        points = sorted(
            (average if score.shots is None else score.shots, score.top1_mean, score.top1_sd or 0)
            for score in measures.low_shot
            if score.shots is None or score.shots < average
        )
        shots, means, sds = zip(*points, strict=True)
        axes.errorbar(
            shots,
            means,
            yerr=sds,
            color=colour,
            marker="o",
            markersize=4,
            capsize=2.5,
            linewidth=1.6,
            linestyle="--" if row.kind == "teacher" else "-",
        )
    ticks = {1.0 * n: str(n) for n in _shots(result) if n < average} | {average: "all"}
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.axhline(result.chance, color=LIGHT.muted, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training videos per class")
    axes.set_ylabel("top-1 (%)")
    axes.set_title("linear classifier on few videos: mean ± sd over draws", loc="left", fontsize=10)
    _name_curves(axes, rows, colours, average)


def _name_curves(
    axes: Axes, rows: list[tuple[ProbeRow, Measures]], colours: list[str], average: float
) -> None:
    """Names at the right ends of the curves, moved apart where they would overlap."""
    ends = [measures.low_shot[-1].top1_mean for _, measures in rows]
    for (row, _), colour, height in zip(
        rows, colours, _apart(ends, axes.get_ylim()[1]), strict=True
    ):
        axes.annotate(
            row.short_name,
            (average, height),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=colour,
            parse_math=False,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], top: float) -> list[float]:
    """The heights, moved so that they keep a distance and do not exceed ``top``, in their order."""
    order = sorted(range(len(heights)), key=lambda number: heights[number])
    moved, lowest, highest = list(heights), -top, top
    for number in order:
        moved[number] = lowest = max(heights[number], lowest + _NAME_STEP * top)
    for number in reversed(order):
        moved[number] = min(moved[number], highest)
        highest = moved[number] - _NAME_STEP * top
    return moved


def _shots(result: ProbeResult) -> list[int]:
    measured = [row.measures for row in result.rows if row.measures is not None]
    return [score.shots for score in measured[0].low_shot if score.shots] if measured else []


def _style(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=LIGHT.grid, linewidth=0.8, axis="x" if axes.yaxis_inverted() else "both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.muted)
    axes.tick_params(colors=LIGHT.muted, labelsize=8.5, length=0)
    for label in axes.get_yticklabels() if axes.yaxis_inverted() else []:
        label.set_color(LIGHT.ink)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=LIGHT.muted, fontsize=9)
    axes.title.set_color(LIGHT.ink)
