"""Frames per second of stage one: decoding alone, the teachers alone, and the whole extraction.

    python benchmarks/extract.py [--videos VIDEOS] [--teacher NAME ...] [--repeats 3] [--json]

The three take turns, so that a machine which slows down affects all of them. The results are
medians.

- *decode-only*: the videos are decoded as a worker does, as many at a time, and discarded.
- *teacher-only*: the teachers run, one after another, on decoded frames in memory, with all cores.
- *end-to-end*: ``extract`` itself into an empty folder, from listing the videos to the digest.

``efficiency`` is the end-to-end rate divided by the slower of the other two rates. It can reach 1
on a machine with a GPU, where the two parts run on different devices. If both run on the same cores
they cannot overlap, and no program is faster than 1 / (1/decode + 1/teacher). ``of the sum`` is the
end-to-end rate divided by that bound; it shows how much time is spent on anything except decoding
and teacher forwards. ``extra CPU`` shows the same in CPU time, which depends less on other work on
the machine.

``simulated_device.py`` measures the same overlap with a teacher that takes time, but no CPU.

If ``--teacher`` is repeated, all teachers run in one pass; the bound is then one decode and all
forwards.

The goal, .95 (null teacher: .90), is one for ``efficiency`` where a GPU runs the teachers, and one
for ``of the sum`` where both parts share the same cores.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.models import get_model, list_models

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.corpus.listing import Corpus, list_corpus
from distinit.pipeline.demo.footage import make_corpus
from distinit.pipeline.demo.recipe import demo_clips
from distinit.pipeline.frames.fill import store_view
from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.teachers.views import teacher_views
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DistInitError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.teacher import TeacherRequest
from distinit.schemas.video import DecodeConfig
from distinit.stages.extract import extract

GOAL = 0.95
GOALS = {"null": 0.90}  # limited by decoding
TWO_TEACHERS_GOAL = 1.1  # times the duration of one decode and all forwards
MEMORY_BYTES = 512 << 20  # frames kept in memory for teacher-only


@dataclass(frozen=True, slots=True)
class Lap:
    """Duration of one measurement, and how many frames it processed."""

    frames: int
    seconds: float
    cpu_seconds: float  # of this process and of the ffmpeg processes it waited for


@dataclass(frozen=True, slots=True)
class Rates:
    """Medians over laps: frames per second, and CPU milliseconds per frame."""

    frames_per_second: float
    cpu_ms: float

    @classmethod
    def of(cls, laps: Sequence[Lap]) -> Rates:
        return cls(
            statistics.median(lap.frames / lap.seconds for lap in laps),
            statistics.median(1000 * lap.cpu_seconds / lap.frames for lap in laps),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """End-to-end compared with its parts."""

    efficiency: float
    of_the_sum: float
    extra_cpu: float

    @classmethod
    def of(cls, decode: Rates, teacher: Rates, whole: Rates) -> Verdict:
        fps = [decode.frames_per_second, teacher.frames_per_second]
        parts_cpu_ms = decode.cpu_ms + teacher.cpu_ms
        return cls(
            efficiency=whole.frames_per_second / min(fps),
            of_the_sum=whole.frames_per_second * sum(1 / rate for rate in fps),
            extra_cpu=whole.cpu_ms / parts_cpu_ms - 1,
        )


def lap(work: Callable[[], int]) -> Lap:
    """Time ``work``, which returns how many frames it has processed."""
    before, began = os.times(), time.perf_counter()
    frames = work()
    seconds, after = time.perf_counter() - began, os.times()
    return Lap(frames, seconds, sum(after[:4]) - sum(before[:4]))


class Footage:
    """Decodes videos as a worker with these teachers would."""

    def __init__(self, corpus: Corpus, config: ExtractConfig, teachers: Sequence[Teacher]) -> None:
        self._corpus = corpus
        self._config = config
        self._views, self.view_of = teacher_views(teachers)
        if config.frames is not None:
            self._views["store"] = store_view(config.geometry)

    def decode(self) -> int:
        """Decode everything and discard it. Returns the number of frames."""
        paths = [self._corpus.root / file.path for file in self._corpus.files]
        return decode_all(paths, self._views, self._config.decode)

    def in_memory(self) -> list[dict[str, np.ndarray]]:
        """Return the first block of each video, up to ``MEMORY_BYTES`` in total."""
        blocks: list[dict[str, np.ndarray]] = []
        size = 0
        for file in self._corpus.files:
            with open_video(
                self._corpus.root / file.path, self._views, self._config.decode
            ) as stream:
                views = {name: view.copy() for name, view in next(stream).views.items()}
            blocks.append(views)
            size += sum(view.nbytes for view in views.values())
            if size > MEMORY_BYTES:
                break
        return blocks


def decode_all(paths: Sequence[Path], views: Mapping[str, View], config: DecodeConfig) -> int:
    """Decode videos, as many at a time as a worker does. Returns the number of frames."""

    def frames_of(path: Path) -> int:
        with open_video(path, views, config) as stream:
            stream.read_ahead()
            return sum(len(block) for block in stream)

    with ThreadPoolExecutor(config.videos_at_once(os.cpu_count())) as pool:
        return sum(pool.map(frames_of, paths))


def forward_all(
    teachers: Sequence[Teacher],
    footage: Footage,
    blocks: Sequence[dict[str, np.ndarray]],
    seconds: float,
) -> int:
    """Run every teacher on block after block for ``seconds``, two at a time as in a worker."""
    done, began = 0, time.perf_counter()
    pending: deque[list[PendingLogits]] = deque()
    for views in itertools.cycle(blocks):
        pending.append([t.submit(views[footage.view_of[t.id]]) for t in teachers])
        done += len(next(iter(views.values())))
        over = time.perf_counter() - began >= seconds
        while len(pending) > (0 if over else 1):
            for logits in pending.popleft():
                logits()
        if over:
            break
    return done


def run_extract(config: ExtractConfig) -> int:
    """Run one extraction into new folders. Returns the number of decoded frames."""
    with tempfile.TemporaryDirectory() as folder:
        frames = None if config.frames is None else f"{folder}/frames"
        place = {"cache": f"{folder}/cache", "frames": frames}
        return extract(config.model_copy(update=place)).frames_done


def measure(config: ExtractConfig, repeats: int, teacher_seconds: float) -> dict[str, object]:
    """Return one row of the table: all teachers of ``config`` in one pass."""
    teachers = [
        load_teacher(request, device=config.device, precision=config.precision)
        for request in config.teachers
    ]
    corpus = list_corpus(config.videos)
    footage = Footage(corpus, config, teachers)
    blocks = footage.in_memory()
    parts: dict[str, Callable[[], int]] = {
        "decode_only": footage.decode,
        "teacher_only": lambda: forward_all(teachers, footage, blocks, teacher_seconds),
        "end_to_end": lambda: run_extract(config),
    }
    forward_all(teachers, footage, blocks, 0)
    laps: dict[str, list[Lap]] = {name: [] for name in parts}
    for name in itertools.chain.from_iterable([parts] * repeats):
        laps[name].append(lap(parts[name]))
    rates = {name: Rates.of(found) for name, found in laps.items()}
    verdict = Verdict.of(rates["decode_only"], rates["teacher_only"], rates["end_to_end"])
    on_gpu = resolve_device(config.device).type == "cuda"
    return {
        "teachers": [teacher.id for teacher in teachers],
        "videos": len(corpus.files),
        "frames": laps["end_to_end"][0].frames,
        "repeats": repeats,
        **{name: asdict(rate) for name, rate in rates.items()},
        **asdict(verdict),
        "goal_for": "efficiency" if on_gpu else "of_the_sum",
    }


def describe(line: dict[str, Any], goal: float) -> str:
    """Format a result as text."""
    rows = [f"{' + '.join(line['teachers'])}: {line['frames']} frames of {line['videos']} videos"]
    for name in ("decode_only", "teacher_only", "end_to_end"):
        rate: dict[str, float] = line[name]
        rows.append(
            f"  {name.replace('_', '-'):<13}{rate['frames_per_second']:9.1f} frames/s"
            f"{rate['cpu_ms']:9.2f} ms of CPU per frame"
        )
    goals = {line["goal_for"]: f" (goal {goal:.2f}: {_met(line[line['goal_for']] >= goal)})"}
    for name in ("efficiency", "of_the_sum"):
        rows.append(f"  {name.replace('_', ' '):<13}{line[name]:9.3f}{goals.get(name, '')}")
    rows.append(f"  extra CPU    {line['extra_cpu']:9.1%}")
    if len(line["teachers"]) > 1:
        times = 1 / line["of_the_sum"]
        met = _met(times <= TWO_TEACHERS_GOAL)
        rows.append(
            f"  time         {times:9.3f} times one decode and all forwards (goal 1.1: {met})"
        )
    return "\n".join(rows)


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def machine() -> str:
    """Describe the machine: its cores, how busy they are, and torch."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores of {platform.machine()}, load {load:.1f}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the default table: its teachers, and how often each clip is repeated."""

    teachers: tuple[str, ...]
    loops: int


CASES = (
    Case(("efficientnet_lite0",), 24),
    Case(("null",), 120),
    Case(("efficientnet_lite0", "mobilenet_v3_large"), 16),
)
CLIPS = ("bigbuckbunny_000", "bigbuckbunny_044", "bikes_000", "carphone_pristine_000")


def looped_footage(folder: Path, loops: int) -> str:
    """Repeat four of the demo's real clips ``loops`` times each, so that start-up weighs less."""
    clips = tuple(clip for clip in demo_clips() if Path(clip.path).stem in CLIPS)
    made = make_corpus(folder / "clips", clips=clips).corpus
    target = folder / f"looped-{loops}"
    target.mkdir()
    for clip in sorted(made.glob("*.mp4")):
        again = ["-stream_loop", str(loops - 1), "-i", str(clip), "-c", "copy"]
        argv = [str(find_ffmpeg().path), "-nostdin", "-v", "error", *again, str(target / clip.name)]
        subprocess.run(argv, check=True)
    return str(target)


def random_weights(name: str, folder: Path) -> str:
    """Write random weights for a torchvision network: weights do not affect its speed."""
    path = folder / f"{name}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(get_model(name, weights=None).state_dict(), path)
    return str(path)


def request_for(text: str, folder: Path) -> TeacherRequest:
    """Parse ``NAME`` or ``NAME=WEIGHTS``; torchvision networks get random weights by default."""
    name, _, weights = text.partition("=")
    if not weights and name in list_models():
        weights = random_weights(name, folder)
    return TeacherRequest(name=name, weights=weights or None)


@click.command(help=__doc__)
@click.option("--videos", help="Folder or list of videos. [default: looped clips of the demo]")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    help="NAME or NAME=WEIGHTS; repeat to run several in one pass.",
)
@click.option(
    "--loops",
    default=4,
    show_default=True,
    help="How often each default clip is repeated, with --teacher.",
)
@click.option(
    "--repeats",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Measurements of each part.",
)
@click.option(
    "--teacher-seconds",
    default=20.0,
    show_default=True,
    help="Duration of one teacher-only measurement.",
)
@click.option(
    "--store",
    is_flag=True,
    help="Also write a frame store (decode-only then decodes its view too).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    videos: str | None,
    teachers: tuple[str, ...],
    loops: int,
    repeats: int,
    teacher_seconds: float,
    store: bool,
    as_json: bool,
) -> None:
    found = []
    for case in (Case(teachers, loops),) if teachers else CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                config = ExtractConfig(
                    videos=videos or looped_footage(Path(folder), case.loops),
                    teachers=tuple(request_for(name, Path(folder)) for name in case.teachers),
                    cache="(created for each lap)",
                    frames="(created for each lap)" if store else None,
                )
                found.append(measure(config, repeats, teacher_seconds))
            except DistInitError as error:
                raise click.ClickException(str(error)) from error
        if not as_json:
            click.echo(describe(found[-1], GOALS.get(case.teachers[0], GOAL)))
    if as_json:
        click.echo(json.dumps({"machine": machine(), "table": found}))
    else:
        click.echo(machine())


if __name__ == "__main__":
    main()
