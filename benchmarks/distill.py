"""Steps a second of distillation: fed by cache and frame store, resident tensors, live teacher.

    python benchmarks/distill.py --cache CACHE --frames FRAMES [--student r2plus1d_18] [--json]

One process, in turn, several times, medians of CPU time:

- fed: load a batch from cache and frame store, then step; bar: .95 of the rate of
- resident: the same step on a batch that is in memory;
- look-up: what the targets alone cost; bar: at most 2 % of a fed step;
- live: as fed, with ResNet-50 (random weights, 224 x 224) over one frame a clip instead of the
  look-up; its frames are in memory, which spares it decoding at full size.
  Bar: fed is twice as fast.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from torchvision.models import resnet50

from distinit.pipeline.training.collective import Alone
from distinit.pipeline.training.distill_task import DistillTask, open_distill_task
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.task import TrainingSettings
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError


def ways_of(config: DistillConfig, task: DistillTask) -> dict[str, Callable[[int], object]]:
    """What is timed, each as a function of the repetition."""
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    stepper = Stepper(task.build(), task, settings, Alone(), torch.device("cpu"))
    size = config.runtime.batch_size
    resident = task.load(0, np.arange(size))
    teacher = resnet50(weights=None).eval()
    frames_BCHW = torch.rand(size, 3, 224, 224)

    def samples(repetition: int) -> np.ndarray:
        return np.arange(repetition * size, (repetition + 1) * size)

    def fed(repetition: int) -> None:
        stepper.step([(0, task.load(0, samples(repetition)))], repetition, 1e-4)

    def look_up(repetition: int) -> None:
        numbers = samples(repetition)
        sampler = task._sampler
        task._targets(sampler.choices(0, numbers), sampler.target_uniforms(0, numbers))

    def live(repetition: int) -> None:
        with torch.inference_mode():
            torch.softmax(teacher(frames_BCHW), dim=1)
        fed(repetition)

    return {
        "fed": fed,
        "resident": lambda repetition: stepper.step([(0, resident)], repetition, 1e-4),
        "look_up": look_up,
        "live": live,
    }


def measure(config: DistillConfig, repetitions: int) -> dict[str, float]:
    """Median milliseconds of each way, and the figures that the bars are about."""
    ways = ways_of(config, open_distill_task(config))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            began = time.process_time()
            way(repetition)
            seconds[name].append(time.process_time() - began)
    milliseconds = {n: 1000 * float(np.median(s[1:])) for n, s in seconds.items()}  # 0: warm-up
    fed, look_up = milliseconds["fed"], milliseconds["look_up"]
    return {
        **{f"{name}_ms": value for name, value in milliseconds.items()},
        "fed_of_resident": milliseconds["resident"] / fed,
        "look_up_percent": 100 * look_up / fed,
        # The live teacher's step looks targets up too, as part of ``fed``: take that off.
        "times_live": (milliseconds["live"] - look_up) / fed,
    }


@click.command(help=__doc__)
@click.option("--cache", required=True, help="Target cache.")
@click.option("--frames", required=True, help="Frame store of the same videos.")
@click.option("--student", default="tiny_r2plus1d_10", show_default=True)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--repetitions", default=7, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(
    cache: str, frames: str, student: str, batch: int, repetitions: int, as_json: bool
) -> None:
    torch.set_num_threads(1)
    values = {
        "cache": cache,
        "frames": frames,
        "out": tempfile.gettempdir(),  # nothing is written
        "student": {"name": student},
        "runtime": {"batch_size": batch, "device": "cpu"},
    }
    try:
        figures = measure(DistillConfig.model_validate(values), repetitions)
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(figures))
        return
    click.echo("  ".join(f"{n} {v:.1f}" for n, v in figures.items() if n.endswith("_ms")))
    for name, bar, met in (
        ("fed_of_resident", "at least .95", figures["fed_of_resident"] >= 0.95),
        ("look_up_percent", "at most 2", figures["look_up_percent"] <= 2),
        ("times_live", "at least 2", figures["times_live"] >= 2),
    ):
        click.echo(f"{name} {figures[name]:.3f} (bar: {bar}; {'met' if met else 'MISSED'})")


if __name__ == "__main__":
    main()
