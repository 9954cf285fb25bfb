"""Time of a distillation step: with stored targets, with resident tensors, with a live teacher.

    python benchmarks/distill.py --cache CACHE --frames FRAMES [--student r2plus1d_18] [--json]
    python benchmarks/distill.py ... --device cuda --precision bf16 --compile --batch 64 --loaders 8

Four variants take turns, a few steps each, several times. The results are medians of elapsed time:

- resident: steps on one clip tensor and its targets, which are already on the device;
- fed: as in training, loader threads read batches from cache and frame store; they get ahead during
  one step that is not measured. Goal: at least .95 of the resident rate;
- live: as fed, plus what training without a cache needs before each step: a forward of ResNet-50
  (random weights) on one 224 x 224 frame per clip, already in memory. Goal: fed is twice as fast;
- look_up: only reading the targets of a batch, which loader threads do during a step. Goal: at most
  2 % of a fed step.

On a CPU, the student uses the cores that the loader threads leave free, in every variant. The
benchmark also prints the speed of the resident step as a percentage of the device's measured speed
for matrix products.
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
GOALS = {"fed_of_resident": 0.95, "times_live": 2.0, "look_up_percent": 2.0}
MATRIX_EDGE = {"cpu": 2048, "cuda": 8192}

type Variant = Callable[[int], None]
"""Runs the given number of steps."""


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all submitted work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Bench:
    """The variants to measure, all on the same task."""

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
        self._samples = self.task.order(0)
        self.device_batch = feed.to_device(feed.prepare(self.task.load(0, self._batch(0))))
        self._teacher = resnet50(weights=None).eval().to(device)
        self._frames_BCHW = torch.rand(self.size, 3, 224, 224, device=device)

    @contextmanager
    def batches(self) -> Iterator[Iterator[ClipBatch | DeviceBatch]]:
        """Yield an endless iterator over batches from the loader threads, in an epoch's order."""
        requests = (self._batch(step) for step in count())
        load, prepare = self.task.load, self._stepper.feed.prepare
        with closing(
            prefetch(lambda samples: prepare(load(0, samples)), requests, self._threads)
        ) as items:
            yield (batch for batch, _ in items)

    def _steps(self, steps: int, live: bool) -> None:
        with self.batches() as batches:
            self._stepper.step(
                [(0, next(batches))], 0, RATE
            )  # the loaders get ahead, as in training
            self._clock_start()
            for step in range(steps):
                if live:
                    self._run_teacher()
                self._stepper.step([(0, next(batches))], step, RATE)
            self._clock_stop()

    def _run_teacher(self) -> None:
        runtime = self._settings.runtime
        autocast = torch.autocast(self.device.type, torch.bfloat16, runtime.precision == "bf16")
        with torch.inference_mode(), autocast:
            torch.softmax(self._teacher(self._frames_BCHW), dim=1)

    def fed(self, steps: int) -> None:
        """Step on batches from cache and frame store."""
        self._steps(steps, live=False)

    def live(self, steps: int) -> None:
        """Step on the same batches, with a teacher forward before each step."""
        self._steps(steps, live=True)

    def resident(self, steps: int) -> None:
        """Step on tensors that are already on the device."""
        self._clock_start()
        for step in range(steps):
            self._resident.step([(0, self.device_batch)], step, RATE)
        self._clock_stop()

    def look_up(self, steps: int) -> None:
        """Read only the targets, in this thread."""
        self._clock_start()
        for step in range(steps):
            self.task.look_up(0, self._batch(step))
        self._clock_stop()

    def _batch(self, step: int) -> NDArray[np.int64]:
        """Return the samples of a step; wraps around at the end of the epoch."""
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
        """Count the multiplications and additions of one resident step."""
        with FlopCounterMode(display=False) as counter:
            self.resident(1)
        return int(counter.get_total_flops())


def matrix_rate(device: torch.device, precision: str) -> float:
    """Measure the operations per second of a large square matrix product on the device."""
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
    """Return the median milliseconds of a step in each variant, and the ratios with a goal."""
    device = resolve_device(config.runtime.device)
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - config.runtime.loader_workers))
    bench = Bench(config, device)
    variants: dict[str, Variant] = {
        "fed": bench.fed,
        "resident": bench.resident,
        "live": bench.live,
        "look_up": bench.look_up,
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in variants}
    for repetition in range(repetitions + 1):
        for name, variant in variants.items():
            variant(steps)
            if repetition > 0:  # 0: warm-up
                milliseconds[name].append(1000 * bench.seconds / steps)
    fed, resident, live, look_up = (float(np.median(milliseconds[name])) for name in variants)
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


def goals_met(results: dict[str, float]) -> dict[str, bool]:
    """Return, for each goal, whether it is met."""
    return {
        "fed_of_resident": results["fed_of_resident"] >= GOALS["fed_of_resident"],
        "times_live": results["times_live"] >= GOALS["times_live"],
        "look_up_percent": results["look_up_percent"] <= GOALS["look_up_percent"],
    }


@click.command(help=__doc__)
@click.option("--cache", required=True, help="Folder of the target cache.")
@click.option("--frames", required=True, help="Frame store of the same videos.")
@click.option("--student", default="tiny_r2plus1d_10", show_default=True, help="Student to train.")
@click.option(
    "--batch", default=8, show_default=True, type=click.IntRange(min=1), help="Clips per step."
)
@click.option(
    "--loaders", default=1, show_default=True, type=click.IntRange(min=1), help="Loader threads."
)
@click.option(
    "--steps",
    default=8,
    show_default=True,
    type=click.IntRange(min=1),
    help="Steps per measurement.",
)
@click.option(
    "--repetitions",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Measurements of each variant.",
)
@click.option("--device", default="auto", show_default=True, help="Device to train on.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "bf16"]),
    help="Arithmetic of the forward pass.",
)
@click.option("--compile", "compiled", is_flag=True, help="Compile the student with torch.compile.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
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
        "optimizer": {"clips_per_epoch": 1_000_000},
        "runtime": {
            "batch_size": batch,
            "loader_workers": loaders,
            "device": device,
            "precision": precision,
            "compile": compiled,
        },
    }
    try:
        results = measure(DistillConfig.model_validate(values), steps, repetitions)
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(results))
        return
    for name in ("fed", "resident", "live", "look_up"):
        click.echo(f"{name:<9} {results[f'{name}_ms']:9.2f} ms per step of {batch} clips")
    click.echo(
        f"fed: {results['clips_per_second']:.1f} clips/s; resident: "
        f"{100 * results['of_matrix_rate']:.0f} % of the rate of a matrix product, "
        f"{results['matrix_gflops']:.0f} Gflop/s"
    )
    for name, met in goals_met(results).items():
        bound = "at most" if name == "look_up_percent" else "at least"
        verdict = "met" if met else "MISSED"
        click.echo(f"{name} {results[name]:.3f} (goal: {bound} {GOALS[name]:g}; {verdict})")


if __name__ == "__main__":
    main()
