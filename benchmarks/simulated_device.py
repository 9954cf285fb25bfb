"""Extraction with a teacher on a simulated device, which takes time but no CPU.

    python benchmarks/simulated_device.py [--repeats 3] [--json]

Shows on a machine without a GPU how well decoding and teachers overlap. Copying frames to the
device and running a batch take a given time, on threads that only sleep. Decoding alone is measured
first, with as many videos at a time as a worker decodes; then the device is made twice as fast
(decode-bound), as fast (balanced) and half as fast (device-bound). ``efficiency`` is the rate of
the whole extraction, from the first frame to the last commit, divided by that of the slower part.
Goal: at least .95. ``extra CPU`` is the processor time per frame, of Python and ffmpeg, beyond that
of decoding alone.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from extract import decode_all

from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.compute.in_process import InProcessExecutor
from distinit.pipeline.corpus.listing import Corpus, list_corpus
from distinit.pipeline.demo.footage import make_corpus
from distinit.pipeline.demo.recipe import demo_clips
from distinit.pipeline.extraction.driver import run_tasks
from distinit.pipeline.extraction.probing import Prober, plan_videos
from distinit.pipeline.extraction.task import ExtractionTask, WorkerSpec
from distinit.pipeline.extraction.worker import ExtractionWorker
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.batch_device import BatchDevice
from distinit.pipeline.teachers.forward import PendingLogits
from distinit.pipeline.teachers.in_batches import InBatches
from distinit.pipeline.teachers.network import Network, named_labels
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.pipeline.video.views import View
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord
from distinit.schemas.video import DecodeConfig, SamplingConfig

GOAL = 0.95
CLASSES = 12
BATCH = 64
COPY_SHARE = 0.1  # of the time that the device takes for a frame
FASTEST = 1e6  # frames per second
SPEEDS = {"decode-bound": 2.0, "balanced": 1.0, "device-bound": 0.5}
CLIP = "bigbuckbunny_000"


class SimulatedDevice:
    """Takes ``seconds_per_frame`` for each frame of a batch, one batch after another."""

    def __init__(self, seconds_per_frame: float) -> None:
        self._seconds = seconds_per_frame
        self._copier = ThreadPoolExecutor(1)
        self._device = ThreadPoolExecutor(1)
        self._copied: Future[None] = self._copier.submit(time.sleep, 0)

    def copy(self, frames_NHWC: torch.Tensor) -> torch.Tensor:
        """See BatchDevice."""
        seconds = len(frames_NHWC) * self._seconds * COPY_SHARE
        self._copied = self._copier.submit(time.sleep, seconds)
        return frames_NHWC

    def start(
        self, network: Callable[[torch.Tensor], torch.Tensor], input_NCHW: torch.Tensor
    ) -> PendingLogits:
        """See BatchDevice."""
        copied = self._copied

        def run() -> np.ndarray:
            copied.result()
            time.sleep(len(input_NCHW) * self._seconds)
            return network(input_NCHW).numpy()

        return self._device.submit(run).result


class SimulatedTeacher(NetworkTeacher):
    """Its logits are the first pixels of each frame; the time that it takes is the device's."""

    def __init__(self, device: BatchDevice) -> None:
        labels = named_labels([f"class {number}" for number in range(CLASSES)])
        identity = TeacherIdentity(
            architecture="simulated",
            weights_sha256="0" * 64,
            preprocessing=PreprocessSpec(
                resize_mode="squash", resize_size=2, crop_size=2, mean=(0, 0, 0), std=(1, 1, 1)
            ),
            classes=CLASSES,
            label_space=labels.space,
            label_names=labels.names,
        )
        network = Network(torch.nn.Flatten(), identity, "simulated")
        super().__init__("simulated", network, device="cpu")
        self._forward = InBatches(
            lambda frames_NHWC: frames_NHWC[:, 0].flatten(1)[:, :CLASSES].float(),
            lambda input_NC: input_NC,
            BATCH,
            device=device,
            name=self.id,
        )


@dataclass(frozen=True, slots=True)
class Footage:
    """Videos made of one real clip of the demo."""

    name: str
    size: str  # width:height
    videos: int
    frames: int

    def make(self, folder: Path) -> Corpus:
        """Write the videos and list them."""
        clips = tuple(clip for clip in demo_clips() if Path(clip.path).stem == CLIP)
        (source,) = make_corpus(folder / "source", clips=clips).corpus.glob("*.mp4")
        target = folder / "videos"
        target.mkdir()
        for number in range(self.videos):
            # Each begins at another frame: videos with the same bytes would count as one.
            picked = ["-vf", f"trim=start_frame={number},setpts=PTS-STARTPTS,scale={self.size}"]
            loop = ["-stream_loop", "-1", "-i", str(source)]
            coded = ["-frames:v", str(self.frames), "-c:v", "libx264", "-preset", "veryfast"]
            argv = [str(find_ffmpeg().path), "-nostdin", "-v", "error", *loop, *picked, *coded]
            subprocess.run([*argv, str(target / f"{number:03d}.mp4")], check=True)
        return list_corpus(str(target))


FOOTAGE = (
    Footage("340x256, 10 s", "340:256", 24, 300),
    Footage("640x480, one long video", "640:480", 1, 6000),
)


def decode_only(corpus: Corpus, decode: DecodeConfig) -> int:
    """Decode as a worker does, and discard the frames. Returns their number."""
    paths = [corpus.root / file.path for file in corpus.files]
    return decode_all(paths, {"view0": View.source()}, decode)


def extract_all(corpus: Corpus, device_rate: float, decode: DecodeConfig) -> tuple[int, float]:
    """Run an extraction with a device of that rate; its frames, and their seconds."""
    teacher = SimulatedTeacher(SimulatedDevice(1 / device_rate))
    record = TeacherRecord(
        id=teacher.id,
        fingerprint=teacher.identity.fingerprint,
        identity=teacher.identity,
        encoding="float16",
        batch_size=BATCH,
        software={},
    )
    prober = Prober(decode, SamplingConfig())
    with (
        tempfile.TemporaryDirectory() as folder,
        CacheWriter.create_or_open(
            Path(folder) / "cache",
            videos=list(plan_videos(prober, corpus.source, corpus.files)),
            sampling=SamplingConfig(),
            teachers={teacher.id: record},
            unit_rows=1024,
        ) as writer,
    ):
        spec = WorkerSpec(
            source=corpus.source,
            frames_root=None,
            plan_digest=writer.plan.digest,
            geometry=FrameGeometry(),
            sampling=SamplingConfig(),
            decode=decode,
            parallel_videos=decode.videos_at_once(os.cpu_count()),
        )
        tasks = [ExtractionTask(group) for group in writer.pending_groups()]
        began = time.perf_counter()
        totals = run_tasks(
            InProcessExecutor(),
            lambda: ExtractionWorker(spec, {teacher.id: teacher}),
            tasks,
            1,
            0,
            NullProgress(),
            parallel_videos=spec.parallel_videos,
        )
        return totals.frame_count, time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Lap:
    """One measurement: rates in frames per second, processor time in microseconds per frame."""

    decode_rate: float
    whole_rate: float
    decode_cpu_us: float
    whole_cpu_us: float


def processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def lap(corpus: Corpus, speed: float, decode: DecodeConfig) -> Lap:
    """Decode alone, then extract with a device that is ``speed`` times as fast."""
    cpu_began, began = processor_seconds(), time.perf_counter()
    decoded = decode_only(corpus, decode)
    decode_rate = decoded / (time.perf_counter() - began)
    cpu_decoded = processor_seconds()
    frames, seconds = extract_all(corpus, speed * decode_rate, decode)
    cpu_extracted = processor_seconds()
    return Lap(
        decode_rate=decode_rate,
        whole_rate=frames / seconds,
        decode_cpu_us=1e6 * (cpu_decoded - cpu_began) / decoded,
        whole_cpu_us=1e6 * (cpu_extracted - cpu_decoded) / frames,
    )


def measure(footage: Footage, decode: DecodeConfig, repeats: int) -> Iterator[dict[str, object]]:
    """Yield one row per speed of the device; decoding is measured before each lap."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = footage.make(Path(folder))
        extract_all(corpus, FASTEST, decode)  # imports what is imported on first use
        for name, speed in SPEEDS.items():
            laps = [lap(corpus, speed, decode) for _ in range(repeats)]
            yield {
                "footage": footage.name,
                "setting": name,
                "decode_only": statistics.median(one.decode_rate for one in laps),
                "device": statistics.median(speed * one.decode_rate for one in laps),
                "end_to_end": statistics.median(one.whole_rate for one in laps),
                "efficiency": statistics.median(
                    one.whole_rate / (min(1, speed) * one.decode_rate) for one in laps
                ),
                "decode_cpu_us": statistics.median(one.decode_cpu_us for one in laps),
                "extra_cpu_us": statistics.median(
                    one.whole_cpu_us - one.decode_cpu_us for one in laps
                ),
            }


@click.command(help=__doc__)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--parallel", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, parallel: int, as_json: bool) -> None:
    rows = []
    for footage in FOOTAGE:
        for row in measure(footage, DecodeConfig(parallel_videos=parallel), repeats):
            rows.append(row)
            if not as_json:
                met = "met" if float(str(row["efficiency"])) >= GOAL else "missed"
                click.echo(
                    f"{row['footage']:<26}{row['setting']:<14}decode {row['decode_only']:7.0f}  "
                    f"device {row['device']:7.0f}  end-to-end {row['end_to_end']:7.0f} frames/s  "
                    f"efficiency {row['efficiency']:.2f} ({met}), CPU of a frame "
                    f"{row['decode_cpu_us']:.0f} + {row['extra_cpu_us']:.0f} us"
                )
    if as_json:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
        footage = [asdict(one) for one in FOOTAGE]
        click.echo(json.dumps({"machine": machine, "footage": footage, "table": rows}))


if __name__ == "__main__":
    main()
