"""Cost of an epoch when the confidence filter skips clips instead of giving them weight zero.

    python benchmarks/skip_filter.py --cache CACHE --frames FRAMES [--keep .5] [--json]

Runs one epoch for each of three variants: without a filter, with the filter as weights (as in the
paper), and with ``skip_filtered``. One process and one thread load and train in turn. Counts are
exact; times are CPU time.
"""

from __future__ import annotations

import json
import tempfile
import time

import click
import torch

from distinit.pipeline.distillation.task import open_distill_task
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.task import TrainingSettings
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError


def epoch(values: dict[str, object]) -> dict[str, float]:
    """Return steps, decoded clips and CPU seconds of the first epoch, with sample selection."""
    config = DistillConfig.model_validate(values)
    task = open_distill_task(config)
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    stepper = Stepper(task.build(), task, settings, SingleProcess(), torch.device("cpu"))
    size = config.runtime.batch_size
    began = time.process_time()
    samples = task.samples(0)
    steps = len(samples) // size
    for step in range(steps):
        batch = task.load(0, samples[step * size : (step + 1) * size])
        stepper.step([(0, batch)], step, 1e-3)
    seconds = time.process_time() - began
    return {"steps": steps, "clips": steps * size, "seconds": seconds}


@click.command(help=__doc__)
@click.option("--cache", required=True, help="Folder of the target cache.")
@click.option("--frames", required=True, help="Frame store of the same videos.")
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
def main(cache: str, frames: str, keep: float, clips: int, as_json: bool) -> None:
    torch.set_num_threads(1)
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
