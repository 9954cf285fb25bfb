"""Steps a second of distillation: fed by cache and frame store, resident tensors, live teacher.

    python benchmarks/distill.py --cache CACHE --frames FRAMES [--student r2plus1d_18] [--json]
    python benchmarks/distill.py ... --device cuda --precision bf16 --compile --batch 64 --loaders 8

The ways take turns, a few steps each, several times; medians of elapsed time:

- fed: as training runs, batches come from cache and frame store by loader threads, which
  have got ahead in an unmeasured step; bar: .95 of the rate of
- resident: the same steps on one clip tensor and its targets that lie ready on the device;
- live: the paper's way: as fed, and ResNet-50 (random weights, 224 x 224) runs over one frame a
  clip, which lies ready; bar: fed, without the teacher's time, is twice as fast;
- look-up: the time of a batch's targets alone, which loader threads spend beside the step;
  bar: at most 2 % of a fed step.

On a CPU the student computes on the cores that the loader threads leave, for every way alike.
Also says which part of the device's measured matrix rate the resident step reaches.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.feed import DeviceBatch
from distinit.pipeline.training.loader import prefetch
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.task import ClipBatch, TrainingSettings
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError

RATE = 1e-4
BARS = {"fed_of_resident": 0.95, "times_live": 2.0, "look_up_percent": 2.0}
MATRIX_EDGE = {"cpu": 2048, "cuda": 8192}

type Way = Callable[[int], None]
"""Runs that many steps."""


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Bench:
    """The three ways to step, over the same task."""

    def __init__(self, config: DistillConfig, device: torch.device) -> None:
        self.device = device
        self.task: DistillTask = open_distill_task(config)
        self.size = config.runtime.batch_size
        self._threads = config.runtime.loader_workers
        settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
        self._settings = settings
        self._stepper = Stepper(self.task.build(), self.task, settings, SingleProcess(), device)
        self._resident = Stepper(self.task.build(), self.task, settings, SingleProcess(), device)
        feed = self._resident.feed
        self._samples = self.task.samples(0)
        self._ready = feed.ready(feed.ahead(self.task.load(0, self._batch(0))))
        self._teacher = resnet50(weights=None).eval().to(device)
        self._frames_BCHW = torch.rand(self.size, 3, 224, 224, device=device)

    @contextmanager
    def batches(self) -> Iterator[Iterator[ClipBatch | DeviceBatch]]:
        """Batches without end, in an epoch's order, from the loader threads."""
        requests = (self._batch(step) for step in count())
        load, ahead = self.task.load, self._stepper.feed.ahead
        with closing(
            prefetch(lambda samples: ahead(load(0, samples)), requests, self._threads)
        ) as items:
            yield (batch for batch, _ in items)

    def _steps(self, steps: int, live: bool) -> None:
        with self.batches() as batches:
            self._stepper.step([(0, next(batches))], 0, RATE)  # the loaders get ahead, as they do
            self._clock_start()
            for step in range(steps):
                if live:
                    self._ask_teacher()
                self._stepper.step([(0, next(batches))], step, RATE)
            self._clock_stop()

    def _ask_teacher(self) -> None:
        runtime = self._settings.runtime
        autocast = torch.autocast(self.device.type, torch.bfloat16, runtime.precision == "bf16")
        with torch.inference_mode(), autocast:
            torch.softmax(self._teacher(self._frames_BCHW), dim=1)

    def fed(self, steps: int) -> None:
        """From cache and frame store."""
        self._steps(steps, live=False)

    def live(self, steps: int) -> None:
        """With the teacher in the loop."""
        self._steps(steps, live=True)

    def resident(self, steps: int) -> None:
        """On tensors that are there."""
        self._clock_start()
        for step in range(steps):
            self._resident.step([(0, self._ready)], step, RATE)
        self._clock_stop()

    def look_up(self, steps: int) -> None:
        """Targets alone, in this thread."""
        self._clock_start()
        for step in range(steps):
            self.task.look_up(0, self._batch(step))
        self._clock_stop()

    def _batch(self, step: int) -> NDArray[np.int64]:
        """Samples of a step; an epoch that is shorter begins anew."""
        places_B = np.arange(step * self.size, (step + 1) * self.size) % len(self._samples)
        samples_B: NDArray[np.int64] = self._samples[places_B]
        return samples_B

    def _clock_start(self) -> None:
        wait_for(self.device)
        self._began = time.perf_counter()

    def _clock_stop(self) -> None:
        wait_for(self.device)
        self.seconds = time.perf_counter() - self._began

    def step_flops(self) -> int:
        """Multiplications and additions of one resident step."""
        with FlopCounterMode(display=False) as counter:
            self.resident(1)
        return int(counter.get_total_flops())


def matrix_rate(device: torch.device, precision: str) -> float:
    """Operations a second of a large square matrix product on the device."""
    edge = MATRIX_EDGE[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(edge, edge, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        wait_for(device)
        began = time.perf_counter()
        torch.mm(a, b)
        wait_for(device)
        best = max(best, 2 * edge**3 / (time.perf_counter() - began))
    return best


def measure(config: DistillConfig, steps: int, repetitions: int) -> dict[str, float]:
    """Median milliseconds of a step each way, and the figures that the bars are about."""
    device = resolve_device(config.runtime.device)
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - config.runtime.loader_workers))
    bench = Bench(config, device)
    ways: dict[str, Way] = {
        "fed": bench.fed,
        "resident": bench.resident,
        "live": bench.live,
        "look_up": bench.look_up,
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            way(steps)
            if repetition > 0:  # 0: warm-up
                milliseconds[name].append(1000 * bench.seconds / steps)
    fed, resident, live, look_up = (float(np.median(milliseconds[name])) for name in ways)
    rate, flops = matrix_rate(device, config.runtime.precision), bench.step_flops()
    return {
        "fed_ms": fed,
        "resident_ms": resident,
        "live_ms": live,
        "look_up_ms": look_up,
        "clips_per_second": 1000 * bench.size / fed,
        "fed_of_resident": resident / fed,
        "look_up_percent": 100 * look_up / fed,
        "times_live": live / fed,
        "matrix_gflops": rate / 1e9,
        "of_matrix_rate": flops / (resident / 1000) / rate,
    }


def verdicts(figures: dict[str, float]) -> dict[str, bool]:
    """Which bars are met."""
    return {
        "fed_of_resident": figures["fed_of_resident"] >= BARS["fed_of_resident"],
        "times_live": figures["times_live"] >= BARS["times_live"],
        "look_up_percent": figures["look_up_percent"] <= BARS["look_up_percent"],
    }


@click.command(help=__doc__)
@click.option("--cache", required=True, help="Target cache.")
@click.option("--frames", required=True, help="Frame store of the same videos.")
@click.option("--student", default="tiny_r2plus1d_10", show_default=True)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--loaders", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]))
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the student.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(
    cache: str,
    frames: str,
    student: str,
    batch: int,
    loaders: int,
    steps: int,
    repetitions: int,
    device: str,
    precision: str,
    compiled: bool,
    as_json: bool,
) -> None:
    values = {
        "cache": cache,
        "frames": frames,
        "out": tempfile.gettempdir(),  # nothing is written
        "student": {"name": student},
        "runtime": {
            "batch_size": batch,
            "loader_workers": loaders,
            "device": device,
            "precision": precision,
            "compile": compiled,
        },
    }
    try:
        figures = measure(DistillConfig.model_validate(values), steps, repetitions)
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name in ("fed", "resident", "live", "look_up"):
        click.echo(f"{name:<9} {figures[f'{name}_ms']:9.2f} ms a step of {batch} clips")
    click.echo(
        f"fed: {figures['clips_per_second']:.1f} clips/s; resident: "
        f"{100 * figures['of_matrix_rate']:.0f} % of {figures['matrix_gflops']:.0f} Gflop/s, the "
        "rate of a matrix product"
    )
    for name, met in verdicts(figures).items():
        bound = "at most" if name == "look_up_percent" else "at least"
        verdict = "met" if met else "MISSED"
        click.echo(f"{name} {figures[name]:.3f} (bar: {bound} {BARS[name]:g}; {verdict})")


if __name__ == "__main__":
    main()
