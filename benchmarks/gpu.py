"""One GPU: how close extraction and training come to what the card itself can do.

    python benchmarks/gpu.py [--json] [--videos DIR]

Takes at most 8 minutes, and needs no network, no Ray and no videos (``--videos`` adds extraction
from files). Without a GPU it measures small networks on the CPU, which only shows that the
benchmark runs.

Extraction, images/s of a network with random weights:

- resident: the images are in the memory of the device. The card can do no more.
- pinned: the images are in the memory of the host, and are copied while the network runs, as in an
  extraction worker. Goal: at least .90 of resident;
- files: the whole ``extract``, from files. Goal: at least .90 of pinned or of decoding, whichever
  is slower.

Training, clips/s of ``distinit distill``:

- plain: a loop written by hand with the same network, precision and optimiser, on one batch that
  is on the device;
- resident: our step on the same batch. Goal: at least .97 of plain;
- fed: loader threads read clips and targets from cache and frame store, and decode on the CPU or
  (fed_nvjpeg) on the GPU. Goal: at least .95 of resident;
- of_matrix_rate: operations per second of the resident step, as a share of the measured rate of a
  large bf16 matrix product;
- kernels, syncs: CUDA kernels of one resident step, and how often it waits for the device
  (``torch.cuda.set_sync_debug_mode``). Goal: 0.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import extract
import numpy as np
import torch
from distill import RATE, Bench, matrix_rate, wait_for
from made_up_cache import made_up_teacher, write_made_up_cache, write_made_up_frames
from torchvision.models import get_model

from distinit.pipeline.frames.jpeg import has_gpu_decoder
from distinit.pipeline.teachers.batch_device import batch_device
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.pipeline.teachers.in_batches import InBatches
from distinit.pipeline.teachers.preprocess import preprocess
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.teacher import PreprocessSpec

GOALS = {
    "pinned_of_resident": 0.90,
    "files_of_slower": 0.90,
    "resident_of_plain": 0.97,
    "fed_of_resident": 0.95,
    "fed_nvjpeg_of_resident": 0.95,
}
MOST_SYNCS = 0
NETWORK_MEAN, NETWORK_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

type Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured on a kind of device."""

    networks: tuple[str, ...]
    image_edge: int
    image_batch: int
    student: str
    clips: tuple[tuple[int, int], ...]  # (frames, clips per step)
    crop: int
    short_edge: int
    videos: int
    classes: int
    seconds: float  # of each measurement
    loaders: int


SIZES = {
    "cuda": Size(
        ("resnet50", "vit_b_16"), 224, 256, "r2plus1d_18", ((8, 64), (32, 16)), 112, 128, 512,
        1000, 12.0, max(1, (os.cpu_count() or 1) - 2),
    ),
    "cpu": Size(
        ("resnet18",), 64, 8, "tiny_r2plus1d_10", ((8, 4),), 32, 48, 16, 50, 1.0, 1
    ),
}  # fmt: skip


def rate_of(work: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Return how many items per second ``work`` processes; each call returns its number."""
    work()
    wait_for(device)
    items, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        items += work()
    wait_for(device)
    return items / (time.perf_counter() - began)


class Images:
    """A network with random weights, as a teacher runs it, and images for it."""

    def __init__(self, name: str, size: Size, device: torch.device) -> None:
        self._device, self._size = device, size
        module = get_model(name, weights=None).eval().to(device)
        self._module = module.to(memory_format=torch.channels_last)
        self._spec = PreprocessSpec(
            resize_mode="squash",
            resize_size=size.image_edge,
            crop_size=size.image_edge,
            mean=NETWORK_MEAN,
            std=NETWORK_STD,
        )
        self._forward = InBatches(
            self._prepare, self._network, size.image_batch, device=batch_device(device), name=name
        )
        shape = (size.image_batch, size.image_edge, size.image_edge, 3)
        self._frames_NHWC = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self._on_device = torch.from_numpy(self._frames_NHWC).to(device)
        self._pending: deque[PendingLogits] = deque()

    def _prepare(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        return preprocess(frames_NHWC, self._spec)

    def _network(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16):
            logits: torch.Tensor = self._module(input_NCHW)
        return logits.float()

    def resident(self) -> int:
        """Run one batch that is on the device."""
        self._network(self._prepare(self._on_device))
        return self._size.image_batch

    def pinned(self) -> int:
        """Submit one batch from the memory of the host, and wait for the one before."""
        self._pending.append(self._forward.submit(self._frames_NHWC))
        if len(self._pending) > 1:
            self._pending.popleft()()
        return self._size.image_batch


def extraction(name: str, size: Size, device: torch.device) -> Row:
    """Return images/s of one network."""
    images = Images(name, size, device)
    resident = rate_of(images.resident, device, size.seconds)
    pinned = rate_of(images.pinned, device, size.seconds)
    return {
        "network": name,
        "resident": resident,
        "pinned": pinned,
        "pinned_of_resident": pinned / resident,
    }


def from_files(videos: str, name: str, device: torch.device, folder: Path) -> Row:
    """Return images/s of decoding, of a teacher and of the whole extraction."""
    config = ExtractConfig.model_validate(
        {
            "videos": videos,
            "teachers": [extract.request_for(name, folder)],
            "cache": "unused",
            "device": str(device),
            "precision": "bf16",
        }
    )
    row = extract.measure(config, repeats=1, teacher_seconds=10.0)
    return {"network": name, "files_of_slower": row["efficiency"], **row}


class PlainLoop:
    """A training loop written by hand; the batch, network and precision are those of a Bench."""

    def __init__(self, bench: Bench, config: DistillConfig) -> None:
        self._config, self._device = config, bench.device
        student = bench.task.build().to(bench.device).train()
        if bench.device.type == "cuda":
            student.to(memory_format=torch.channels_last_3d)
        self._forward = torch.compile(student) if config.runtime.compile else student
        self._optimizer = torch.optim.SGD(
            student.parameters(),
            lr=RATE,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            fused=bench.device.type == "cuda" or None,
        )
        self._task, self._batch = bench.task, bench.device_batch

    def step(self) -> None:
        """Train on the batch."""
        enabled = self._config.runtime.precision == "bf16"
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=enabled):
            outputs = self._forward(self._batch.clip_BCTHW)
        outputs = {name: output.float() for name, output in outputs.items()}
        loss, _ = self._task.loss(outputs, self._batch.targets)
        torch.autograd.backward(loss)
        self._optimizer.step()


def steps_of(bench: Bench, variant: Callable[[int], None], seconds: float) -> float:
    """Return the clips per second of a variant of ``Bench``."""
    variant(2)
    variant(2)
    steps = max(2, int(seconds / (bench.seconds / 2)))
    variant(steps)
    return bench.size * steps / bench.seconds


def kernels_and_syncs(bench: Bench) -> tuple[int, int]:
    """Return CUDA kernels of one resident step, and its waits for the device."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        bench.resident(1)
    kernels = sum(event.device_type == DeviceType.CUDA for event in profiler.events())
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bench.resident(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return kernels, sum("synchroniz" in str(warning.message) for warning in caught)


def training(frames: int, batch: int, size: Size, device: torch.device, folder: Path) -> Row:
    """Return clips/s of one clip length."""
    on_gpu = device.type == "cuda"

    def config(decoder: str) -> DistillConfig:
        return DistillConfig.model_validate(
            {
                "cache": str(folder / "cache"),
                "frames": str(folder / "frames"),
                "out": "unused",
                "student": {"name": size.student},
                "clip": {"frames": frames, "crop": size.crop},
                "runtime": {
                    "batch_size": batch,
                    "loader_workers": size.loaders,
                    "device": str(device),
                    "precision": "bf16" if on_gpu else "fp32",
                    "jpeg_decoder": decoder,
                    "compile": on_gpu,
                },
            }
        )

    bench = Bench(config("cpu"), device)
    plain = PlainLoop(bench, config("cpu"))
    row: Row = {"student": size.student, "frames": frames, "batch": batch}
    row["plain"] = batch * rate_of(lambda: plain.step() or 1, device, size.seconds)
    row["resident"] = steps_of(bench, bench.resident, size.seconds)
    row["fed"] = steps_of(bench, bench.fed, size.seconds)
    row["resident_of_plain"] = row["resident"] / row["plain"]
    row["fed_of_resident"] = row["fed"] / row["resident"]
    flops_per_second = bench.step_flops() * row["resident"] / batch
    row["of_matrix_rate"] = flops_per_second / matrix_rate(device, "bf16" if on_gpu else "fp32")
    if on_gpu:
        row["kernels"], row["syncs"] = kernels_and_syncs(bench)
        if has_gpu_decoder():
            decoding = Bench(config("gpu"), device)
            row["fed_nvjpeg"] = steps_of(decoding, decoding.fed, size.seconds)
            row["fed_nvjpeg_of_resident"] = row["fed_nvjpeg"] / row["resident"]
    return row


def verdicts(row: Row) -> dict[str, bool]:
    """Return, for each goal that the row has a figure for, whether it is met."""
    met = {name: row[name] >= goal for name, goal in GOALS.items() if name in row}
    return met | ({"syncs": row["syncs"] <= MOST_SYNCS} if "syncs" in row else {})


def describe(row: Row) -> str:
    """Format a row as text, with what has become of its goals."""
    met = verdicts(row)
    lines = []
    for name, value in row.items():
        text = f"{value:.3f}" if isinstance(value, float) and value < 10 else value
        text = f"{value:,.0f}" if isinstance(value, float) and value >= 10 else text
        goal = GOALS.get(name, MOST_SYNCS)
        verdict = f"  (goal {goal:g}: {'met' if met[name] else 'MISSED'})" if name in met else ""
        lines.append(f"  {name:<24} {text}{verdict}")
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    """Return the name of the card, or of the processor, and the versions."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{card}, {os.cpu_count()} CPUs, torch {torch.__version__}"


@click.command(help=__doc__)
@click.option("--videos", help="Folder of videos, for extraction from files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(videos: str | None, as_json: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = SIZES[device.type]
    result: dict[str, Any] = {"machine": machine(device), "extraction": [], "training": []}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            frames = [64] * size.videos
            teacher = made_up_teacher("made_up", size.classes)
            write_made_up_cache(folder / "cache", frames, [teacher], capacity=1 << 20)
            width = 4 * size.short_edge // 3
            write_made_up_frames(folder / "frames", frames, size.short_edge, width)
            result["extraction"] = [extraction(n, size, device) for n in size.networks]
            if videos:
                files = from_files(videos, size.networks[0], device, folder)
                result["extraction"].append(files)
            result["training"] = [
                training(frames, batch, size, device, folder) for frames, batch in size.clips
            ]
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(result["machine"])
    if device.type == "cpu":
        click.echo("no GPU: small networks on the CPU; only shows that the benchmark runs")
    for part in ("extraction", "training"):
        for row in result[part]:
            click.echo(f"{part}\n{describe(row)}")


if __name__ == "__main__":
    main()
