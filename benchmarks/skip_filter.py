"""Cost of an epoch when the confidence filter skips clips instead of giving them weight zero.

    python benchmarks/skip_filter.py --cache CACHE --frames FRAMES [--keep .5] [--json]
    python benchmarks/skip_filter.py --judge 1000000

Runs one epoch for each of three variants: without a filter, with the filter as weights (as in the
paper), and with ``skip_filtered``. One process and one thread load and train in turn. Counts are
exact; times are CPU time.

\b
With --judge: how long it takes to judge which clips of an epoch are skipped, for made-up
videos, and for how long the training waits for it. The first epoch waits for all of it; later
epochs are judged in a thread while the epoch before them is trained on. Seconds of the clock.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from pathlib import Path

import click
import torch
from made_up_cache import made_up_teacher, write_made_up_cache, write_made_up_frames

from distinit.pipeline.distillation.task import open_distill_task
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.epoch_samples import EpochSamples, samples_of
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.task import TrainingSettings
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError

MADE_UP = [40] * 500  # frames of each video


def epoch(values: dict[str, object]) -> dict[str, float]:
    """Return steps, decoded clips and CPU seconds of the first epoch, with sample selection."""
    config = DistillConfig.model_validate(values)
    task = open_distill_task(config)
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    stepper = Stepper(task.build(), task, settings, SingleProcess(), torch.device("cpu"))
    size = config.runtime.batch_size
    began = time.process_time()
    samples = samples_of(task, 0)
    steps = len(samples) // size
    for step in range(steps):
        batch = task.load(0, samples[step * size : (step + 1) * size])
        stepper.step([(0, batch)], step, 1e-3)
    seconds = time.process_time() - began
    return {"steps": steps, "clips": steps * size, "seconds": seconds}


def judging(clips: int, keep: float) -> dict[str, float]:
    """Return the seconds for which the first epoch of ``clips``, and a later one, wait."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_made_up_cache(root / "cache", MADE_UP, [made_up_teacher("made-up", 10)], 4096)
        write_made_up_frames(root / "frames", MADE_UP, 32, 32)
        values = {
            "cache": str(root / "cache"),
            "frames": str(root / "frames"),
            "out": folder,  # nothing is written
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"frames": 8, "crop": 32},
            "targets": [{"filter": {"keep_fraction": keep}}],
            "optimizer": {"clips_per_epoch": clips},
            "skip_filtered": True,
        }
        task = open_distill_task(DistillConfig.model_validate(values))
        with closing(EpochSamples(task, SingleProcess(), torch.device("cpu"))) as samples:
            began = time.perf_counter()
            kept = len(samples.of(0))
            first = time.perf_counter() - began
            samples.prepare(1)
            time.sleep(2 * first)  # the first epoch is trained on
            began = time.perf_counter()
            samples.of(1)
            later = time.perf_counter() - began
    return {"clips": clips, "kept": kept, "first_seconds": first, "later_seconds": later}


@click.command(help=__doc__)
@click.option("--cache", help="Folder of the target cache.")
@click.option("--frames", help="Frame store of the same videos.")
@click.option(
    "--judge",
    type=click.IntRange(min=8),
    metavar="CLIPS",
    help="Only judge epochs of CLIPS clips of made-up videos.",
)
@click.option(
    "--keep",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Fraction of the frames that the filter keeps.",
)
@click.option(
    "--clips", default=400, show_default=True, type=click.IntRange(min=8), help="Clips per epoch."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    cache: str | None,
    frames: str | None,
    judge: int | None,
    keep: float,
    clips: int,
    as_json: bool,
) -> None:
    torch.set_num_threads(1)
    if judge is not None:
        cost = judging(judge, keep)
        click.echo(
            json.dumps(cost)
            if as_json
            else f"{judge:,} clips judged: the first epoch waits {cost['first_seconds']:.2f} s, "
            f"a later one {cost['later_seconds']:.2f} s"
        )
        return
    if cache is None or frames is None:
        raise click.UsageError("give --cache and --frames, or --judge")
    values: dict[str, object] = {
        "cache": cache,
        "frames": frames,
        "out": tempfile.gettempdir(),  # nothing is written
        "student": {"name": "tiny_r2plus1d_10"},
        "optimizer": {"clips_per_epoch": clips},
        "runtime": {"batch_size": 8, "device": "cpu"},
    }
    target = {"filter": {"keep_fraction": keep}}
    variants = {
        "no filter": {},
        "weights": {"targets": [target]},
        "skipped": {"targets": [target], "skip_filtered": True},
    }
    try:
        costs = {name: epoch(values | variant) for name, variant in variants.items()}
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(costs))
        return
    whole = costs["no filter"]["seconds"]
    for name, cost in costs.items():
        click.echo(
            f"{name}: {cost['steps']:.0f} steps, {cost['clips']:.0f} clips, "
            f"{cost['seconds']:.2f} s ({cost['seconds'] / whole:.2f} of no filter)"
        )


if __name__ == "__main__":
    main()
