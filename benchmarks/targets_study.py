"""Compares what a student learns from a teacher's logits, from its features, and from both.

    python benchmarks/targets_study.py digits --out work/targets --figure targets.png

Both targets come from one network: its output, and what it passes to its last layer. Features are
normalized as by default (PHI-S; cosine and smooth L1), or raw (cosine). The rate of distillation is
chosen for each target among the same --rates: students of the first seed are distilled, finetuned
on the training films, and scored on validation films, which are used for nothing else. Then every
seed is distilled with the chosen rate, finetuned with the same settings as from scratch, and scored
on the test films. Finished runs are reused. Prints two Markdown tables: the validation films by
rate, and the test films by seed.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import torch
from target_arms import (
    ARMS,
    SCRATCH,
    Score,
    Trial,
    best_rates,
    score_figure,
    score_table,
    trial_table,
)
from target_corpora import DigitCorpus, PictureCorpus, TargetCorpus

from distinit.pipeline.plotting.rendering import figure_png
from distinit.pipeline.progress import choose_progress
from distinit.schemas.errors import DistInitError


@dataclass(frozen=True, slots=True)
class Study:
    """What was tried on the validation films, the chosen rates, and the scores."""

    trials: list[Trial]
    rates: dict[str, float]
    scores: list[Score]


def try_rate(corpus: TargetCorpus, out: Path, seed: int, arm: str, rate: float) -> Trial:
    """Distil with a rate, finetune, and score the validation films."""
    student = distilled(corpus, out, seed, arm, rate)
    films = corpus.films_per_class[0]
    run = out / "validation" / f"{student.name}-{films}-films"
    result = corpus.finetune(f"distinit:{student}", run, "val", films, seed)
    return Trial(arm, rate, result.top1)


def score_row(
    corpus: TargetCorpus, out: Path, row: str, rate: float | None, seed: int, films: int
) -> Score:
    """Distil (unless ``rate`` is None, from scratch), finetune, and score the test films."""
    init, name = SCRATCH, f"{SCRATCH}-{seed}"
    if rate is not None:
        student = distilled(corpus, out, seed, row, rate)
        init, name = f"distinit:{student}", student.name
    run = out / "finetune" / f"{name}-{films}-films"
    return Score(row, seed, films, corpus.finetune(init, run, "test", films, seed).top1)


def distilled(corpus: TargetCorpus, out: Path, seed: int, arm: str, rate: float) -> Path:
    """The finished run of a student."""
    student = out / "distill" / f"{arm.replace(', ', '-').replace(' ', '-')}-{rate:g}-{seed}"
    corpus.distill(ARMS[arm], rate, student, seed)
    return student


def in_processes[ResultT](
    jobs: int, calls: Sequence[Callable[[], ResultT]], report: Callable[[ResultT], None]
) -> list[ResultT]:
    """The results of ``calls``, in their order; each runs on one thread of torch."""
    initial = partial(torch.set_num_threads, 1)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initial) as pool:
        futures = [pool.submit(call) for call in calls]
        results = []
        for future in futures:
            results.append(future.result())
            report(results[-1])
        return results


def study(
    corpus: TargetCorpus,
    out: Path,
    arms: Sequence[str],
    rates: Sequence[float],
    seeds: Sequence[int],
    sizes: Sequence[int],
    jobs: int,
) -> Study:
    """Choose the rates with the first seed, then score every row with every seed.

    With one rate there is nothing to choose, and nothing is scored on the validation films.
    """
    corpus.prepare(choose_progress())
    attempts = [
        partial(try_rate, corpus, out, seeds[0], arm, rate) for rate in rates for arm in arms
    ]
    trials = []
    if len(rates) > 1:
        trials = in_processes(jobs, attempts, lambda trial: click.echo(str(trial), err=True))
    best = best_rates(trials) or dict.fromkeys(arms, rates[0])
    chosen: dict[str, float | None] = {SCRATCH: None, **best}
    scores = []
    for films in sizes:  # one after the other: they share their students
        rows = [
            partial(score_row, corpus, out, row, rate, seed, films)
            for seed in seeds
            for row, rate in chosen.items()
        ]
        scores += in_processes(jobs, rows, lambda score: click.echo(str(score), err=True))
    return Study(trials, best, scores)


@click.command(help=__doc__)
@click.argument("corpus", type=click.Choice(["digits", "pictures"]))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for all files.")
@click.option(
    "--photographs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="pictures: folder with one folder of photographs per object.",
)
@click.option("--unlabelled", default=3000, show_default=True, help="pictures: unlabelled films.")
@click.option("--epochs", default=10, show_default=True, help="pictures: epochs of distillation.")
@click.option("--finetune-epochs", default=20, show_default=True, help="Epochs of finetuning.")
@click.option("--films", "counts", help="Training films per class, such as 6,2. Default: all.")
@click.option("--targets", help="Rows besides scratch, separated by semicolons. Default: all.")
@click.option("--rates", default="0.05,0.15", show_default=True, help="Rates to choose from.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds, separated by commas.")
@click.option("--jobs", default=2, show_default=True, help="Trainings at a time.")
@click.option("--figure", type=click.Path(path_type=Path), help="Write the figure to this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
def main(
    corpus: str,
    out: Path,
    photographs: Path | None,
    unlabelled: int,
    epochs: int,
    finetune_epochs: int,
    counts: str | None,
    targets: str | None,
    rates: str,
    seeds: str,
    jobs: int,
    figure: Path | None,
    as_json: bool,
) -> None:
    arms = [name.strip() for name in targets.split(";")] if targets else [*ARMS]
    if unknown := [name for name in arms if name not in ARMS]:
        raise click.BadParameter(f"no row {unknown[0]!r}; the rows are {'; '.join(ARMS)}")
    films: TargetCorpus = DigitCorpus(out, finetune_epochs)
    if corpus == "pictures":
        if photographs is None:
            raise click.UsageError("pictures needs --photographs")
        films = PictureCorpus(out, photographs, unlabelled, epochs, finetune_epochs)
    numbers = [int(seed) for seed in seeds.split(",")]
    sizes = [int(count) for count in counts.split(",")] if counts else films.films_per_class
    try:
        found = study(
            films, out, arms, [float(rate) for rate in rates.split(",")], numbers, sizes, jobs
        )
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if figure is not None:
        figure.write_bytes(figure_png(score_figure(found.scores, films.title)))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}\n")
    tried = [*trial_table(found.trials), ""] if found.trials else []
    click.echo("\n".join([*tried, *score_table(found.scores, found.rates)]))


if __name__ == "__main__":
    main()
