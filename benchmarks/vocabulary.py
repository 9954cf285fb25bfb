"""Cost of the logits of a vocabulary in a distillation step: 512 features x 1,000 names.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/vocabulary.py [--json]

Writes a cache of made-up features, a frame store and a vocabulary, and takes turns, several times:

- step: all that training does for a batch: reads clips and targets, forward, backward, update;
- look_up: only reading the targets: stored features, their logits, the softmax, and the mean over
  frames. Loader threads do it during a step. Goal: at most 2 % of it;
- stored: the same for 1,000 stored logits, without a vocabulary;
- fp64, fp32: only the logits of as many rows, in the arithmetic of distinit and in fp32.

``center`` makes a target from one frame of a clip, ``all`` from every frame. The results are
medians of processor time, which depends less on other work on the machine; with a GPU, of elapsed
time. Without the two variables, threads that wait for each other count as well.
``shortest_step_ms``: the step of which the look-up is 2 %, to compare with other devices.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from distill import RATE, wait_for
from made_up_cache import made_up_teacher, write_made_up_cache, write_made_up_frames
from numpy.typing import NDArray

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.step import Stepper
from distinit.pipeline.training.task import TrainingSettings
from distinit.pipeline.vocabulary.files import read_vocabulary, write_vocabulary
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import DistInitError
from distinit.schemas.vocabulary import VocabularyMetadata

DIMENSIONS, NAMES = 512, 1_000
GOAL_PERCENT = 2.0
PICKS = ("center", "all")
VIDEOS, VIDEO_FRAMES = 16, 64
SCALE = 100.0

type Variant = Callable[[], object]


def write_inputs(root: Path, crop: int) -> None:
    """Write cache, frames and vocabulary.safetensors to ``root``."""
    frames = [VIDEO_FRAMES] * VIDEOS
    teachers = [made_up_teacher("features", DIMENSIONS, target="features")]
    teachers.append(made_up_teacher("logits", NAMES))
    write_made_up_cache(root / "cache", frames, teachers, VIDEO_FRAMES * VIDEOS)
    edge = 16 * -(-crop // 16)  # made-up pictures consist of blocks of 16 pixels
    write_made_up_frames(root / "frames", frames, edge, edge)
    texts_KD = np.random.default_rng(1).standard_normal((NAMES, DIMENSIONS), np.float32)
    metadata = VocabularyMetadata(
        text_tower="made-up",
        image_architecture="made-up",
        names=tuple(f"class {number}" for number in range(NAMES)),
    )
    write_vocabulary(root / "vocabulary.safetensors", texts_KD, metadata, scale=SCALE)


def config_of(
    root: Path, target: dict[str, str], student: str, batch: int, crop: int, device: str
) -> DistillConfig:
    values = {
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
        "out": str(root / "run"),  # nothing is written
        "student": {"name": student},
        "clip": {"frames": 8, "crop": crop},
        "targets": [target],
        "optimizer": {"clips_per_epoch": 10_000},
        "runtime": {"batch_size": batch, "device": device},
    }
    return DistillConfig.model_validate(values)


def step_of(config: DistillConfig) -> Variant:
    """A step of training, with everything that is read for it."""
    task, device = open_distill_task(config), resolve_device(config.runtime.device)
    settings = TrainingSettings(task.config.clip, config.optimizer, config.runtime)
    stepper = Stepper(task.build(), task, settings, SingleProcess(), device)
    batches = batches_of(task, config.runtime.batch_size)

    def step() -> None:
        batch = stepper.feed.prepare(task.load(0, next(batches)))
        stepper.step([(0, batch)], 0, RATE)
        wait_for(device)

    return step


def look_up_of(config: DistillConfig) -> Variant:
    """The targets of one batch after another."""
    task = open_distill_task(config)
    batches = batches_of(task, config.runtime.batch_size)
    return lambda: task.look_up(0, next(batches))


def batches_of(task: DistillTask, size: int) -> Iterator[NDArray[np.int64]]:
    """Samples of one batch after another, in random order as in training."""
    samples_N = task.order(0)
    for start in range(0, len(samples_N) - size + 1, size):
        yield samples_N[start : start + size]


def logits_of(vocabulary: Path, rows: int) -> dict[str, Variant]:
    """The logits of ``rows`` rows: as distinit computes them, and in fp32."""
    read = read_vocabulary(vocabulary)
    text_KD = (read.scale * read.text_KD).astype(np.float32)
    features_ND = np.random.default_rng(2).standard_normal((rows, DIMENSIONS), np.float32)

    def in_fp32() -> object:
        norm_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
        return (features_ND / norm_N1) @ text_KD.T

    return {"fp64": lambda: read.logits(features_ND), "fp32": in_fp32}


def medians(
    variants: dict[str, Variant], repetitions: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds of each variant; they take turns, and the first turn is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repetitions + 1):
        for name, variant in variants.items():
            began = clock()
            variant()
            taken[name].append(1_000 * (clock() - began))
    return {name: float(np.median(values[1:])) for name, values in taken.items()}


def variants_of(root: Path, pick: str, **settings: Any) -> dict[str, Variant]:
    """What is measured for targets of these frames of a clip. ``settings``: of ``config_of``."""
    vocabulary = root / "vocabulary.safetensors"
    target = {"teacher": "features", "vocabulary": str(vocabulary), "pick": pick}
    config = config_of(root, target, **settings)
    stored = config_of(root, {"teacher": "logits", "pick": pick}, **settings)
    rows = config.runtime.batch_size * (1 if pick == "center" else config.clip.frames)
    looked_up = {"look_up": look_up_of(config), "stored": look_up_of(stored)}
    return {"step": step_of(config)} | looked_up | logits_of(vocabulary, rows)


def measure(root: Path, pick: str, repetitions: int, **settings: Any) -> dict[str, float]:
    """The times of all variants, and the ratio with a goal."""
    is_cpu = resolve_device(settings["device"]).type == "cpu"
    clock = time.process_time if is_cpu else time.perf_counter
    found = medians(variants_of(root, pick, **settings), repetitions, clock)
    return {f"{name}_ms": value for name, value in found.items()} | {
        "look_up_percent": 100 * found["look_up"] / found["step"],
        "shortest_step_ms": 100 * found["look_up"] / GOAL_PERCENT,
    }


def show(results: dict[str, dict[str, float]], student: str, batch: int) -> None:
    click.echo(f"{student}, {batch} clips in a step; ms")
    click.echo(
        "pick        step  look_up   stored   fp64   fp32  shortest_step  look_up, % of step"
    )
    for pick, row in results.items():
        verdict = "met" if row["look_up_percent"] <= GOAL_PERCENT else "MISSED"
        click.echo(
            f"{pick:<7} {row['step_ms']:8.1f} {row['look_up_ms']:8.2f} {row['stored_ms']:8.2f} "
            f"{row['fp64_ms']:6.2f} {row['fp32_ms']:6.2f} {row['shortest_step_ms']:14.1f} "
            f"{row['look_up_percent']:7.3f} (goal: at most {GOAL_PERCENT:g}; {verdict})"
        )


@click.command(help=__doc__)
@click.option("--student", default="r2plus1d_18", show_default=True, help="Student to train.")
@click.option(
    "--batch", default=4, show_default=True, type=click.IntRange(1, 512), help="Clips per step."
)
@click.option(
    "--crop", default=112, show_default=True, type=click.IntRange(16), help="Pixels of a clip."
)
@click.option(
    "--repetitions", default=3, show_default=True, type=click.IntRange(1, 15), help="Measurements."
)
@click.option("--device", default="auto", show_default=True, help="Device to train on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(student: str, batch: int, crop: int, repetitions: int, device: str, as_json: bool) -> None:
    settings = {"student": student, "batch": batch, "crop": crop, "device": device}
    with tempfile.TemporaryDirectory(prefix="distinit-vocabulary-") as folder:
        root = Path(folder)
        write_inputs(root, crop)
        try:
            results = {pick: measure(root, pick, repetitions, **settings) for pick in PICKS}
        except DistInitError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(results))
        return
    show(results, student, batch)


if __name__ == "__main__":
    main()
