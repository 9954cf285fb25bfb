"""Memory of a process that loads distillation batches, for caches of different sizes.

    python benchmarks/loader_memory.py [--videos 1000 --videos 16000] [--json]

For each size, a cache and a frame store with made-up contents are written (8 frames per video).
Then a new process opens both, loads batches of random clips with their targets, and reports how
much its private memory (neither shared nor a mapped file) grew since before it opened them. A
second process does the same: the first one derives the indexes that both map. Loader workers are
threads: they share this memory, and each adds one batch.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import click
import numpy as np
from made_up_cache import made_up_video

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord
from distinit.schemas.video import SamplingConfig

FRAMES = 8
CLASSES = 100
PIXELS = 32
UNIT_ROWS = 8192
BATCH, BATCHES = 32, 40
MEGABYTE = 2**20

_IMPORTS = ("torch", "distinit.pipeline.distillation.task", "distinit.pipeline.training.feed")
# New processes are forked from a server that has imported these: they start in milliseconds.
_SERVER = multiprocessing.get_context("forkserver")


def digest_of(number: int) -> str:
    """Return a made-up digest for video ``number``."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_cache(root: Path, videos: int) -> None:
    """Write a cache of ``videos`` videos with 8 rows each and one teacher of 100 classes."""
    planned = [made_up_video(digest_of(n), f"{n}.mp4", FRAMES) for n in range(videos)]
    preprocessing = PreprocessSpec(
        resize_mode="squash", resize_size=8, crop_size=8, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    identity = TeacherIdentity(
        architecture="made/up",
        weights_sha256="0" * 64,
        preprocessing=preprocessing,
        classes=CLASSES,
        label_space="made-up",
        label_names=(),
    )
    record = TeacherRecord(
        id="made_up",
        fingerprint=identity.fingerprint,
        identity=identity,
        encoding="float16",
        batch_size=FRAMES,
        software={},
    )
    index_N = np.arange(FRAMES)
    rng = np.random.default_rng(0)
    with CacheWriter.create_or_open(
        root,
        videos=planned,
        sampling=SamplingConfig(),
        teachers={record.id: record},
        unit_rows=UNIT_ROWS,
    ) as writer:
        for spec in writer.pending_groups():
            group = GroupWriter(spec)
            for video in spec.videos:
                logits_NC = rng.standard_normal((FRAMES, CLASSES)).astype(np.float32)
                hash_N = index_N.astype(np.uint64)
                group.add(video, index_N, index_N, "1/25", hash_N, {record.id: logits_NC})
                group.finish_video(
                    VideoOutcome(
                        video_id=video.video_id,
                        status="ok",
                        frame_count=FRAMES,
                        width=PIXELS,
                        height=PIXELS,
                        duration_seconds=FRAMES / 25,
                    )
                )
            group.commit()
        writer.finalise()


def write_frames(root: Path, videos: int) -> None:
    """Write a frame store of the same videos: grey pictures of 32 x 32 pixels."""
    writer = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    frames_NHWC = np.full((FRAMES, PIXELS, PIXELS, 3), 128, np.uint8)
    per_unit = UNIT_ROWS // FRAMES
    units = range(-(-videos // per_unit))
    for unit in units:
        with writer.open_unit(unit) as file:
            for n in range(unit * per_unit, min(videos, (unit + 1) * per_unit)):
                file.append(digest_of(n)[:16], digest_of(n), 0, frames_NHWC, 25.0)
            file.commit()
    writer.finalise(list(units))


def private_bytes() -> int:
    """Return the private memory of this process: anonymous pages (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise click.ClickException("this needs Linux: /proc/self/status has no RssAnon")


class PeakWatch:
    """The largest ``private_bytes`` inside the context, polled every 5 milliseconds."""

    def __init__(self) -> None:
        self.peak = private_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, private_bytes())

    def __enter__(self) -> PeakWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, private_bytes())


def load_batches(root: Path) -> dict[str, float]:
    """Open both stores, load batches, and return time and memory. Runs in a new process."""
    import torch

    from distinit.pipeline.distillation.task import open_distill_task
    from distinit.pipeline.training.feed import Feed
    from distinit.schemas.distill import DistillConfig

    torch.set_num_threads(1)
    config = DistillConfig.model_validate(
        {
            "cache": str(root / "cache"),
            "frames": str(root / "frames"),
            "out": str(root / "run"),
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"crop": PIXELS, "frames": FRAMES},
            "optimizer": {"clips_per_epoch": 100_000},
        }
    )
    before, began = private_bytes(), time.monotonic()
    with PeakWatch() as opening:
        task = open_distill_task(config)
    opened, seconds = private_bytes(), time.monotonic() - began
    samples = task.order(0)
    feed = Feed(config.clip, config.runtime, torch.device("cpu"), torch.float32)
    with PeakWatch() as loading:
        for first in range(0, BATCH * BATCHES, BATCH):
            feed.prepare(task.load(0, samples[first : first + BATCH]))
    return {
        "open_seconds": seconds,
        "open_peak_mb": (opening.peak - before) / MEGABYTE,
        "held_mb": (opened - before) / MEGABYTE,
        "load_peak_mb": (loading.peak - before) / MEGABYTE,
    }


def measure_in_new_process(root: Path) -> dict[str, float]:
    """``load_batches`` in a process that has only imported what it needs."""
    receiver, sender = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_send_measured, args=(root, sender))
    process.start()
    sender.close()
    try:
        measured: dict[str, float] = receiver.recv()
    except EOFError:
        raise click.ClickException("the process that loads batches died") from None
    process.join()
    return measured


def _send_measured(root: Path, sender: Connection) -> None:
    os.environ["XDG_CACHE_HOME"] = str(root / "derived")
    sender.send(load_batches(root))


def measure(videos: int) -> list[dict[str, float | str]]:
    """Write both stores, then load from them in two processes, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cache(root / "cache", videos)
        write_frames(root / "frames", videos)
        results: list[dict[str, float | str]] = []
        for opening in ("first", "later"):
            measured = measure_in_new_process(root)
            sizes = {"opening": opening, "videos": videos, "rows": videos * FRAMES}
            results.append(sizes | measured)
    return results


@click.command(help=__doc__)
@click.option(
    "--videos",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1000, 16000),
    help="Number of videos; repeat for several sizes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def main(videos: tuple[int, ...], as_json: bool) -> None:
    _SERVER.set_forkserver_preload([*_IMPORTS])
    for count in videos:
        for result in measure(count):
            if as_json:
                click.echo(json.dumps(result))
                continue
            click.echo(
                f"{count} videos, {result['rows']} rows, {result['opening']} opening: "
                f"{result['open_seconds']:.2f} s (peak {result['open_peak_mb']:.1f} MB), "
                f"holds {result['held_mb']:.1f} MB, while loading at most "
                f"{result['load_peak_mb']:.1f} MB"
            )


if __name__ == "__main__":
    main()
