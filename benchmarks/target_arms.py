"""What the study of targets compares, how it chooses rates, and its table and figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from distinit.pipeline.plotting.canvas import BODY, GAIN, INK, PALE, new_figure, plain_axes

__all__ = ["ARMS", "SCRATCH", "Score", "Trial", "best_rates", "score_figure", "score_table"]

SCRATCH = "scratch"
LOGITS, FEATURES = "logits", "features"
"""Ids of the two teachers in the cache. They are one network, with and without its last layer."""

_LOGITS = {"teacher": LOGITS, "pick": "random", "loss": "cross_entropy"}
_RAW = {"teacher": FEATURES, "pick": "random", "loss": "cosine", "normalize": "none"}
_NORMALIZED = {**_RAW, "loss": "cosine+smooth_l1", "normalize": "phi_s"}  # the default of distill

ARMS: dict[str, tuple[dict[str, Any], ...]] = {
    "logits": (_LOGITS,),
    "features": (_NORMALIZED,),
    "both": (_LOGITS, _NORMALIZED),
    "raw features": (_RAW,),
    "both, raw": (_LOGITS, _RAW),
}
"""Name of a row -> ``targets`` of its distillation."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate of one arm, finetuned on the training films and scored on the validation films."""

    arm: str
    rate: float
    val_top1: float
    """Percent."""


@dataclass(frozen=True, slots=True)
class Score:
    """A row with one seed, scored on the test films."""

    row: str
    seed: int
    films_per_class: int
    top1: float
    """Percent."""


def best_rates(trials: Sequence[Trial]) -> dict[str, float]:
    """Arm -> the rate with the highest accuracy on the validation films; of equals the lowest."""
    ordered = sorted(trials, key=lambda trial: (-trial.val_top1, trial.rate))
    rates: dict[str, float] = {}
    for trial in ordered:
        rates.setdefault(trial.arm, trial.rate)
    return {arm: rates[arm] for arm in dict.fromkeys(trial.arm for trial in trials)}


def trial_table(trials: Sequence[Trial]) -> list[str]:
    """Markdown: a row per arm, a column per rate, the chosen one bold."""
    chosen = best_rates(trials)
    rates = sorted({trial.rate for trial in trials})
    found = {(trial.arm, trial.rate): trial.val_top1 for trial in trials}
    lines = [_line(["target", *(f"{rate:g}" for rate in rates)]), _rule(len(rates) + 1)]
    for arm, best in chosen.items():
        cells = [
            f"**{found[arm, rate]:.1f}**" if rate == best else f"{found[arm, rate]:.1f}"
            for rate in rates
        ]
        lines.append(_line([arm, *cells]))
    return lines


def score_table(scores: Sequence[Score], rates: Mapping[str, float]) -> list[str]:
    """Markdown: per number of films and row, top-1 per seed, mean and sample sd, and the gain.

    The gain is over scratch: mean and sample standard deviation of the differences per seed.
    """
    seeds = sorted({score.seed for score in scores})
    header = ["films per class", "target", "rate", *(f"seed {s}" for s in seeds)]
    lines = [_line([*header, "mean ± sd", "gain"]), _rule(len(header) + 2)]
    for (films, row), top1 in _grouped(scores).items():
        base = _grouped(scores).get((films, SCRATCH), {})
        gains = [top1[seed] - base[seed] for seed in seeds if seed in top1 and seed in base]
        cells = [f"{top1[seed]:.1f}" if seed in top1 else "" for seed in seeds]
        rate = f"{rates[row]:g}" if row in rates else ""
        gain = "" if row == SCRATCH else _spread(gains, "+.1f")
        lines.append(_line([str(films), row, rate, *cells, _spread([*top1.values()], ".1f"), gain]))
    return lines


def score_figure(scores: Sequence[Score], title: str) -> Figure:
    """A bar per row (mean over the seeds) and a point per seed, one plot per number of films."""
    grouped = _grouped(scores)
    counts = list(dict.fromkeys(films for films, _ in grouped))
    rows = list(dict.fromkeys(row for _, row in grouped))
    figure = new_figure(1.4 + 0.62 * len(rows) * len(counts), 2.5)
    for number, films in enumerate(counts):
        axes = figure.add_subplot(1, len(counts), number + 1)
        for place, row in enumerate(rows):
            top1 = [*grouped.get((films, row), {}).values()]
            if top1:
                colour = "#9aa5b4" if row == SCRATCH else "#8fc1e3"
                axes.bar(place, statistics.fmean(top1), width=0.65, color=colour)
                aside = [place + 0.12 * (n - (len(top1) - 1) / 2) for n in range(len(top1))]
                axes.plot(aside, top1, "o", color=GAIN, markersize=3.5)
        axes.set_xticks(range(len(rows)), [row.replace(", ", ",\n") for row in rows])
        axes.set_ylabel("top-1, percent" if number == 0 else "")
        axes.set_title(f"{films} training films per class", fontsize=BODY, color=INK, loc="left")
        axes.grid(axis="y", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
        plain_axes(axes)
    figure.suptitle(title, x=0.012, ha="left", fontsize=BODY, color=INK)
    return figure


def _grouped(scores: Sequence[Score]) -> dict[tuple[int, str], dict[int, float]]:
    """(films per class, row) -> seed -> top-1, in the order of ``scores``."""
    grouped: dict[tuple[int, str], dict[int, float]] = {}
    for score in sorted(scores, key=lambda score: -score.films_per_class):
        grouped.setdefault((score.films_per_class, score.row), {})[score.seed] = score.top1
    return grouped


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{spread}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
