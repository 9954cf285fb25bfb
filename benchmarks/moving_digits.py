"""Repeats the demo's experiment on moving digits with several seeds, for docs/results.md.

    python benchmarks/moving_digits.py --out work/digits --seeds 0,1,2

Films, teacher and target cache are made once, as in ``distinit demo``. Every seed has its own
distillation and its own finetunings. Finished runs are reused. Prints two Markdown tables, for two
and for six training films per class: top-1 per seed, mean and sample standard deviation, and the
gain with its 95 % interval over the test films.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from distinit.pipeline.progress import NullProgress, Progress, choose_progress
from distinit.schemas.run import EvaluationResult
from distinit.stages.demo_digits import (
    FILMS_PER_CLASS,
    LOW_SHOT,
    DigitData,
    distill_digits,
    finetune_digits,
    gain_of,
)


def run_seed(
    data: DigitData, out: Path, seed: int, films_per_class: int, progress: Progress
) -> dict[str, EvaluationResult]:
    """Distil and finetune with one seed; returns the results by init."""
    student = out / f"distill-{seed}"
    distill_digits(data, student, progress, {"runtime.seed": seed})
    sources = {"scratch": "scratch", "distinit": f"distinit:{student}"}
    suffix = "" if films_per_class == FILMS_PER_CLASS else f"-{films_per_class}-films"
    return {
        init: finetune_digits(
            data,
            source,
            out / f"{init}{suffix}-{seed}",
            progress,
            {"runtime.seed": seed},
            films_per_class=films_per_class,
        )
        for init, source in sources.items()
    }


def table(
    results: Sequence[dict[str, EvaluationResult]], seeds: Sequence[int], films_per_class: int
) -> list[str]:
    """Markdown rows: one per init, with one column per seed."""
    lines = [
        "| init | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean ± sd |",
        "|---|" + "---|" * (len(seeds) + 1),
    ]
    for init in results[0]:
        top1 = [result[init].top1 for result in results]
        spread = f"{statistics.stdev(top1):.1f}" if len(top1) > 1 else "-"
        cells = [*(f"{value:.1f}" for value in top1), f"{statistics.fmean(top1):.1f} ± {spread}"]
        lines.append(f"| {init} | " + " | ".join(cells) + " |")
    gains = [gain_of(result, films_per_class) for result in results]
    cells = [
        f"{gain.points:+.1f} ({gain.points_interval[0]:+.1f} .. {gain.points_interval[1]:+.1f})"
        for gain in gains
    ]
    mean = statistics.fmean(gain.points for gain in gains)
    return [*lines, "| gain | " + " | ".join(cells) + f" | {mean:+.1f} |"]


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for all files.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, separated by commas.")
@click.option("--quiet", is_flag=True, help="Print no progress.")
def main(out: Path, seeds: str, quiet: bool) -> None:
    progress: Progress = NullProgress() if quiet else choose_progress()
    began = time.monotonic()
    data = DigitData(out / "digits")
    data.make_films(progress)
    accuracy = data.train_teacher(progress)
    data.extract(0, progress)
    numbers = [int(seed) for seed in seeds.split(",")]
    tables = []
    for films_per_class in (LOW_SHOT, FILMS_PER_CLASS):
        results = [run_seed(data, out, seed, films_per_class, progress) for seed in numbers]
        tables += [f"\n{films_per_class} training films per class:\n"]
        tables += table(results, numbers, films_per_class)
    click.echo(f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}")
    click.echo(f"teacher: {accuracy:.1f} % of held-out stills")
    click.echo(f"{time.monotonic() - began:.0f} s")
    click.echo("\n".join(tables))


if __name__ == "__main__":
    main()
